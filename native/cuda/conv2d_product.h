// Convolutions as products, for each group out [rows, columns] = a [rows, depth] b [depth,
// columns], whose factors are read from the tensors where they lie:
//                   out   rows   columns   depth     a    b
//   forward         y     k      n p q     c r s     w    x
//   backwardInput   dx    c      n h w     k r s     w    dy
//   backwardWeight  dw    k      c r s     n p q     dy   x
#pragma once
#include "cuda/conv2d.h"
#include "cuda/elements.h"
#include "cuda/walk.h"
#include "shared/functors.h"

namespace adjoint::cuda {

struct Triple {
  int outer, middle, inner;
};
// The number of an element of [.., middle, inner].
struct Splitter {
  Divider middle, inner;

  Splitter() = default;
  Splitter(int64_t m, int64_t i)
      : middle(static_cast<uint32_t>(m)), inner(static_cast<uint32_t>(i)) {}
  ADJOINT_DEVICE Triple split(uint32_t index) const {
    const uint32_t j = inner.quotient(index), k = middle.quotient(j);
    return {static_cast<int>(k), static_cast<int>(j - k * middle.divisor),
            static_cast<int>(index - j * inner.divisor)};
  }
};

struct Conv2dProduct {
  Conv2dTensor x, w, y;
  const void* bias;
  bool relu;
  int strideH, strideW, padH, padW, dilationH, dilationW;
  Divider byStrideH, byStrideW;
  int groups, groupC, groupK;
  uint32_t rows, columns, depth;  // of a group
  Splitter column, inDepth;
  uint32_t chunk;  // of the depth
  int chunks;
  void* partial;  // [chunks, groups, rows, columns] where there are several
};

ADJOINT_DEVICE int64_t offsetIn(const Conv2dTensor& t, int i, int j, int k, int l) {
  return i * t.stride[0] + j * t.stride[1] + k * t.stride[2] + l * t.stride[3];
}

template <class C, class S>
ADJOINT_DEVICE C elementOf(const Conv2dTensor& t, int64_t offset) {
  return convert<C>(static_cast<const S*>(t.data)[offset]);
}

// a [row, d]
template <class S, class C, Conv2dOp op>
ADJOINT_DEVICE C factorA(const Conv2dProduct& p, int group, int row, const Triple& d) {
  if constexpr (op == Conv2dOp::forward) {
    return elementOf<C, S>(p.w, offsetIn(p.w, group * p.groupK + row, d.outer, d.middle, d.inner));
  } else if constexpr (op == Conv2dOp::backwardInput) {
    return elementOf<C, S>(p.w, offsetIn(p.w, group * p.groupK + d.outer, row, d.middle, d.inner));
  } else {
    return elementOf<C, S>(p.y, offsetIn(p.y, d.outer, group * p.groupK + row, d.middle, d.inner));
  }
}

// What a tap (r, s) of the window at pixel (p, q) sees of image n, channel c: 0 beyond the edges.
template <class S, class C>
ADJOINT_DEVICE C pixelSeen(const Conv2dProduct& p, int n, int c, int pixelH, int pixelW, int r,
                           int s) {
  const int h = pixelH * p.strideH - p.padH + r * p.dilationH;
  const int w = pixelW * p.strideW - p.padW + s * p.dilationW;
  if (h < 0 || h >= p.x.size[2] || w < 0 || w >= p.x.size[3]) return C(0);
  return elementOf<C, S>(p.x, offsetIn(p.x, n, c, h, w));
}

// b [d, column]
template <class S, class C, Conv2dOp op>
ADJOINT_DEVICE C factorB(const Conv2dProduct& p, int group, const Triple& d, const Triple& column) {
  if constexpr (op == Conv2dOp::forward) {
    return pixelSeen<S, C>(p, column.outer, group * p.groupC + d.outer, column.middle, column.inner,
                           d.middle, d.inner);
  } else if constexpr (op == Conv2dOp::backwardWeight) {
    return pixelSeen<S, C>(p, d.outer, group * p.groupC + column.outer, d.middle, d.inner,
                           column.middle, column.inner);
  } else {
    // The pixel whose window has its tap (r, s) here: (h + pad - r dilation) / stride, if whole.
    const int h = column.middle + p.padH - d.middle * p.dilationH;
    const int w = column.inner + p.padW - d.inner * p.dilationW;
    if (h < 0 || w < 0) return C(0);
    const int pixelH = static_cast<int>(p.byStrideH.quotient(static_cast<uint32_t>(h)));
    const int pixelW = static_cast<int>(p.byStrideW.quotient(static_cast<uint32_t>(w)));
    const bool whole = pixelH * p.strideH == h && pixelW * p.strideW == w;
    if (!whole || pixelH >= p.y.size[2] || pixelW >= p.y.size[3]) return C(0);
    return elementOf<C, S>(p.y,
                           offsetIn(p.y, column.outer, group * p.groupK + d.outer, pixelH, pixelW));
  }
}

template <class S, class C, Conv2dOp op>
ADJOINT_DEVICE void writeResult(const Conv2dProduct& p, int group, int row, const Triple& column,
                                C sum) {
  if constexpr (op == Conv2dOp::forward) {
    const int k = group * p.groupK + row;
    if (p.bias) sum += convert<C>(static_cast<const S*>(p.bias)[k]);
    if (p.relu) sum = Unary<UnaryOp::relu>()(sum);
    static_cast<S*>(p.y.data)[offsetIn(p.y, column.outer, k, column.middle, column.inner)] =
        convert<S>(sum);
  } else if constexpr (op == Conv2dOp::backwardInput) {
    const int c = group * p.groupC + row;
    static_cast<S*>(p.x.data)[offsetIn(p.x, column.outer, c, column.middle, column.inner)] =
        convert<S>(sum);
  } else {
    const int k = group * p.groupK + row;
    static_cast<S*>(p.w.data)[offsetIn(p.w, k, column.outer, column.middle, column.inner)] =
        convert<S>(sum);
  }
}

ADJOINT_DEVICE int64_t partialAt(const Conv2dProduct& p, int chunk, int group, uint32_t row,
                                 uint32_t column) {
  return ((int64_t(chunk) * p.groups + group) * p.rows + row) * p.columns + column;
}

}  // namespace adjoint::cuda
