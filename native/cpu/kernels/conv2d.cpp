#include "cpu/kernels/conv2d.h"

#include "cpu/kernels/gemm_pack.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

ADJOINT_INLINE int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

// y[begin..end) = 0, in whole vectors, beyond `end`
template <class T>
ADJOINT_INLINE void clearVectors(T* y, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += kLanes<T>) storeVector(y + i, Vector<T>{});
}

// A row of the slab: zeros before `begin`, x[0..end - begin), zeros from `end` on. Rows ascend, so
// what vectors write beyond a row is written again by the next.
template <class T>
ADJOINT_INLINE void fillRow(T* y, int64_t width, const T* x, int64_t xStride, int64_t begin,
                            int64_t end) {
  constexpr int64_t lanes = kLanes<T>;
  clearVectors(y, 0, begin);
  int64_t j = begin;
  if (xStride == 1) {
    for (; j + lanes <= end; j += lanes) storeVector(y + j, load(x + (j - begin)));
    if (j < end) {
      storeVector(y + j, loadPartial(x + (j - begin), end - j));
      j += lanes;
    }
  } else {
    for (; j < end; j++) y[j] = x[(j - begin) * xStride];
  }
  clearVectors(y, j, width);
}

template <class T>
void fillSlab(T* slab, const ImageView<const T>& x, const ConvWindow& w, int64_t top, int64_t left,
              int64_t rows) {
  const int64_t begin = clamp(-left, 0, w.slabRow);
  const int64_t end = clamp(x.width - left, begin, w.slabRow);
  for (int64_t c = 0; c < x.channels; c++) {
    for (int64_t i = 0; i < rows; i++) {
      T* y = slab + c * w.slabChannel + i * w.slabRow;
      const int64_t row = top + i;
      if (row < 0 || row >= x.height) {
        clearVectors(y, 0, w.slabRow);
        continue;
      }
      const T* from =
          x.data + c * x.channelStride + row * x.rowStride + (left + begin) * x.columnStride;
      fillRow(y, w.slabRow, from, x.columnStride, begin, end);
    }
  }
}

// y[i * stride] = x[i]
template <class T>
ADJOINT_INLINE void storeRow(T* y, int64_t stride, const T* x, int64_t n) {
  constexpr int64_t lanes = kLanes<T>;
  int64_t i = 0;
  if (stride == 1) {
    for (; i + lanes <= n; i += lanes) storeVector(y + i, load(x + i));
    if (i < n) storePartial(y + i, loadPartial(x + i, n - i), n - i);
    return;
  }
  for (; i < n; i++) y[i * stride] = x[i];
}

template <class T>
void readSlab(const ImageView<T>& x, const T* slab, const ConvWindow& w, int64_t top, int64_t left,
              int64_t rows) {
  const int64_t begin = clamp(left, 0, x.width);
  const int64_t end = clamp(w.slabRow + left, begin, x.width);
  for (int64_t c = 0; c < x.channels; c++) {
    for (int64_t i = 0; i < x.height; i++) {
      T* y = x.data + c * x.channelStride + i * x.rowStride;
      const int64_t row = i - top;
      const bool inside = row >= 0 && row < rows;
      const int64_t first = inside ? begin : x.width, last = inside ? end : x.width;
      for (int64_t j = 0; j < first; j++) y[j * x.columnStride] = 0;
      if (inside) {
        const T* from = slab + c * w.slabChannel + row * w.slabRow + begin - left;
        storeRow(y + begin * x.columnStride, x.columnStride, from, end - begin);
      }
      for (int64_t j = last; j < x.width; j++) y[j * x.columnStride] = 0;
    }
  }
}

// Steps through the taps (c, r, s) in the order of the weights.
class Taps {
 public:
  Taps(const ConvWindow& w, int64_t k)
      : w_(w), s_(k % w.kernelW), r_(k / w.kernelW % w.kernelH), c_(k / (w.kernelW * w.kernelH)) {}
  int64_t offset() const {
    return c_ * w_.slabChannel + r_ * w_.dilationH * w_.slabRow + s_ * w_.dilationW;
  }
  void next() {
    if (++s_ < w_.kernelW) return;
    s_ = 0;
    if (++r_ < w_.kernelH) return;
    r_ = 0;
    c_++;
  }

 private:
  const ConvWindow& w_;
  int64_t s_, r_, c_;
};

// A vector of pixels of a row of the output: where it lies in the slab, and in the panel.
struct PixelVector {
  int64_t source, target;
};

// panel[i, target] = slab[offset[i] + source] for rows i and N vectors of pixels. What a vector
// writes beyond its run of pixels is written again by the next vector or the next row.
template <class T, int Stride, int N>
void packVectors(T* panel, int64_t width, const T* slab, const int64_t* offset, int64_t rows,
                 const PixelVector* vectors, int64_t stride, int64_t count) {
  PixelVector v[N];
  for (int i = 0; i < N; i++) v[i] = vectors[i];
  for (int64_t k = 0; k < rows; k++, panel += width) {
    const T* x = slab + offset[k];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
      storeVector(panel + v[i].target, loadSpaced<T, Stride>(x + v[i].source, stride));
    }
    for (int64_t i = count; i < width; i++) panel[i] = 0;
  }
}

template <class T, int Stride>
void packPanel(T* panel, int64_t width, const T* slab, const int64_t* offset, int64_t rows,
               const PixelVector* vectors, int64_t n, int64_t stride, int64_t count) {
  using Pack = void (*)(T*, int64_t, const T*, const int64_t*, int64_t, const PixelVector*, int64_t,
                        int64_t);
  constexpr Pack some[] = {packVectors<T, Stride, 1>, packVectors<T, Stride, 2>,
                           packVectors<T, Stride, 3>, packVectors<T, Stride, 4>,
                           packVectors<T, Stride, 5>, packVectors<T, Stride, 6>};
  if (n <= 6) return some[n - 1](panel, width, slab, offset, rows, vectors, stride, count);
  for (int64_t k = 0; k < rows; k++, panel += width) {
    const T* x = slab + offset[k];
    for (int64_t i = 0; i < n; i++) {
      storeVector(panel + vectors[i].target, loadSpaced<T, Stride>(x + vectors[i].source, stride));
    }
    for (int64_t i = count; i < width; i++) panel[i] = 0;
  }
}

void tapOffsets(int64_t* offset, const ConvWindow& w, int64_t k, int64_t count) {
  Taps taps(w, k);
  for (int64_t i = 0; i < count; i++, taps.next()) offset[i] = taps.offset();
}

template <class T>
void packColumns(T* panel, const T* slab, const ConvWindow& w, const int64_t* offset, int64_t rows,
                 int64_t pixel, int64_t count) {
  constexpr int64_t lanes = kLanes<T>, columns = 2 * lanes;
  const int64_t width = count <= lanes ? lanes : columns;
  PixelVector vectors[columns];
  int64_t n = 0, q = pixel % w.q;
  for (int64_t at = 0, row = pixel / w.q * w.strideH * w.slabRow; at < count;) {
    const int64_t size = w.q - q < count - at ? w.q - q : count - at;
    for (int64_t x = 0; x < size; x += lanes) vectors[n++] = {row + (q + x) * w.strideW, at + x};
    at += size;
    row += w.strideH * w.slabRow;
    q = 0;
  }
  if (w.strideW == 1) {
    packPanel<T, 1>(panel, width, slab, offset, rows, vectors, n, 1, count);
  } else if (w.strideW == 2) {
    packPanel<T, 2>(panel, width, slab, offset, rows, vectors, n, 2, count);
  } else {
    packPanel<T, 0>(panel, width, slab, offset, rows, vectors, n, w.strideW, count);
  }
}

// Squares of taps x pixels of one row of the output, transposed; what they write beyond `size`
// pixels is written again by what follows.
template <class T, int Stride>
ADJOINT_INLINE void packSquares(T* y, int64_t width, const T* const* tap, int64_t source,
                                int64_t stride, int64_t size) {
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t i = 0; i < size; i += lanes) {
    for (int64_t g = 0; g < width; g += lanes) {
      Vector<T> square[lanes];
#pragma GCC unroll 16
      for (int l = 0; l < lanes; l++) {
        square[l] = loadSpaced<T, Stride>(tap[g + l] + source + i * stride, stride);
      }
      transposeSquare<lanes / 2, lanes>(square);
#pragma GCC unroll 16
      for (int l = 0; l < lanes; l++) storeVector(y + (i + l) * width + g, square[l]);
    }
  }
}

template <class T>
void packTransposedColumns(T* panel, const T* slab, const ConvWindow& w, const int64_t* offset,
                           int64_t count, int64_t pixels) {
  constexpr int64_t lanes = kLanes<T>, columns = 2 * lanes;
  const int64_t width = count <= lanes ? lanes : columns;
  // Lanes beyond the last tap repeat it; the product drops their results.
  const T* tap[columns];
  for (int64_t i = 0; i < width; i++) tap[i] = slab + offset[i < count ? i : count - 1];
  for (int64_t at = 0; at < pixels; at += w.q, panel += w.q * width) {
    const int64_t source = at / w.q * w.strideH * w.slabRow;
    if (w.strideW == 1) {
      packSquares<T, 1>(panel, width, tap, source, 1, w.q);
    } else if (w.strideW == 2) {
      packSquares<T, 2>(panel, width, tap, source, 2, w.q);
    } else {
      packSquares<T, 0>(panel, width, tap, source, w.strideW, w.q);
    }
  }
}

// y[i * stride] += x[i]; with stride 2 in whole vectors, which add zeros in between
template <class T>
ADJOINT_INLINE void addRow(T* y, int64_t stride, const T* x, int64_t n) {
  constexpr int64_t lanes = kLanes<T>;
  if (stride == 1) {
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) storeVector(y + i, load(y + i) + load(x + i));
    if (i < n) storePartial(y + i, loadPartial(y + i, n - i) + loadPartial(x + i, n - i), n - i);
  } else if (stride == 2) {
    for (int64_t i = 0; i < n; i += lanes) {
      const Vector<T> v = loadPartial(x + i, n - i < lanes ? n - i : lanes);
      T* to = y + 2 * i;
      storeVector(to, load(to) + interleave<T, 0>(v, Vector<T>{}));
      storeVector(to + lanes, load(to + lanes) + interleave<T, 1>(v, Vector<T>{}));
    }
  } else {
    for (int64_t i = 0; i < n; i++) y[i * stride] += x[i];
  }
}

template <class T>
void addColumns(T* slab, const T* columns, const ConvWindow& w, int64_t channels, int64_t pixels) {
  Taps taps(w, 0);
  const int64_t count = channels * w.kernelH * w.kernelW;
  for (int64_t k = 0; k < count; k++, taps.next()) {
    for (int64_t j = 0; j < pixels; j += w.q) {
      addRow(slab + taps.offset() + j / w.q * w.strideH * w.slabRow, w.strideW,
             columns + k * pixels + j, w.q);
    }
  }
}

template <class T>
constexpr Conv2dKernels<T> kernelsOf() {
  return {fillSlab<T>,  readSlab<T>, tapOffsets, packColumns<T>, packTransposedColumns<T>,
          addColumns<T>};
}

}  // namespace

const Conv2dTable conv2dTable = {kernelsOf<float>(), kernelsOf<double>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
