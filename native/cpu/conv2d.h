// The sizes of a convolution, and its image slabs: shared by the forward and backward passes.
#pragma once
#include <algorithm>

#include "contract.h"
#include "cpu/gemm.h"
#include "cpu/kernels/conv2d.h"

namespace adjoint::cpu {

// x [n, groups c, h, w], weight [groups k, c, r, s], y [n, groups k, p, q]
struct ConvSizes {
  ConvSizes(const View& x, const View& weight, const View& y, const backend::Conv2dShape& shape)
      : shape(shape),
        n(x.size[0]),
        groups(shape.groups),
        c(weight.size[1]),
        h(x.size[2]),
        w(x.size[3]),
        k(weight.size[0] / std::max<int64_t>(1, shape.groups)),
        r(weight.size[2]),
        s(weight.size[3]),
        p(y.size[2]),
        q(y.size[3]),
        depth(c * r * s) {}

  // Rows of x that so many rows of y see, and columns of x that a whole row sees.
  int64_t slabRows(int64_t rows) const {
    return (rows - 1) * shape.strideH + (r - 1) * shape.dilationH + 1;
  }
  int64_t slabColumns() const { return (q - 1) * shape.strideW + (s - 1) * shape.dilationW + 1; }
  ConvWindow window(int64_t rows) const {
    return {r,
            s,
            shape.strideH,
            shape.strideW,
            shape.dilationH,
            shape.dilationW,
            q,
            slabColumns(),
            slabColumns() * slabRows(rows)};
  }

  int64_t slabSlack() const { return kConvSlack * (shape.strideW + 1); }

  // Rows of y of about so many pixels, evenly cut.
  int64_t blockRows(int64_t pixels) const {
    const int64_t cuts = ceilDivide(p, std::max<int64_t>(1, pixels / q));
    return ceilDivide(p, cuts);
  }

  const backend::Conv2dShape& shape;
  int64_t n, groups, c, h, w, k, r, s, p, q;
  int64_t depth;  // of the product: c r s
};

template <class T>
const Conv2dKernels<T>& conv2dKernels();
template <>
inline const Conv2dKernels<float>& conv2dKernels<float>() {
  return conv2dTable().f32;
}
template <>
inline const Conv2dKernels<double>& conv2dKernels<double>() {
  return conv2dTable().f64;
}

// Channels of image n from `channel` on.
template <class T, class V = T>
ImageView<V> imageOf(const View& x, int64_t n, int64_t channel, int64_t channels) {
  return {x.as<T>() + n * x.stride[0] + channel * x.stride[1],
          channels,
          x.size[2],
          x.size[3],
          x.stride[1],
          x.stride[2],
          x.stride[3]};
}

// Whether the pixels of a channel are evenly spaced, so that they form one axis.
inline bool hasFlatPixels(const View& x) {
  return x.size[2] == 1 || x.stride[2] == x.size[3] * x.stride[3];
}

// The forward pass, by a product with the columns of the image. Views of T.
template <class T>
void convolve(const View& y, const View& x, const View& weight, const View* bias,
              const backend::Conv2dShape& shape, bool relu = false);
// dx where the stride is 1 and the padding less than the window: the convolution of dy with the
// weights turned round and their channel axes exchanged.
template <class T>
void convolveInputGradient(const View& dx, const View& dy, const View& weight,
                           const backend::Conv2dShape& shape);
// dw, dense; the pixels of dy are evenly spaced.
template <class T>
void convolveWeightGradient(const View& dw, const View& dy, const View& x,
                            const backend::Conv2dShape& shape);

// Whether the gradient of the input is a convolution of dy with the filters turned round.
inline bool isTurnedConvolution(const ConvSizes& z) {
  const backend::Conv2dShape& s = z.shape;
  return s.strideH == 1 && s.strideW == 1 && s.padH <= (z.r - 1) * s.dilationH &&
         s.padW <= (z.s - 1) * s.dilationW;
}

// Where each filter sees few values: depthwise, or of few channels. Forward in float32 a vector of
// pixels for each tap pays for more of them than in bfloat16, which has products of pairs, or
// backward.
constexpr int64_t kFewTaps = 16, kFewTapsForward = 32;
inline bool isDirect(const ConvSizes& z, int64_t fewTaps = kFewTaps) {
  return (z.c == 1 && z.groups > 1) || (z.r * z.s > 1 && z.depth <= fewTaps);
}
// x, weight (dense) and bias of T, y of T or bfloat16; its columns have unit stride.
template <class T>
void convolveDirect(const View& y, const View& x, const View& weight, const View* bias,
                    const ConvSizes& sizes, bool relu);
// The gradients of weight and bias (none: nullptr), dense. x of T, dy of T or bfloat16, with
// columns of unit stride; with y, which is laid out alike, the gradient is that of what was
// rectified.
template <class T>
void directParameters(T* dw, T* dbias, const View& dy, const View& x, const View* y,
                      const ConvSizes& sizes);

}  // namespace adjoint::cpu
