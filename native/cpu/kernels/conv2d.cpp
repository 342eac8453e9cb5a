#include "cpu/kernels/conv2d.h"

#include "cpu/kernels/gemm_pack.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

template <class T>
ADJOINT_INLINE void clear(T* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = 0;
}

ADJOINT_INLINE int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
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
        clear(y, w.slabRow);
        continue;
      }
      const T* from = x.data + c * x.channelStride + row * x.rowStride + left * x.columnStride;
      clear(y, begin);
      if (x.columnStride == 1) {
        copyElements(y + begin, from + begin, end - begin);
      } else {
        for (int64_t j = begin; j < end; j++) y[j] = from[j * x.columnStride];
      }
      clear(y + end, w.slabRow - end);
    }
  }
}

template <class T>
void readSlab(const ImageView<T>& x, const T* slab, const ConvWindow& w, int64_t top, int64_t left,
              int64_t rows) {
  for (int64_t c = 0; c < x.channels; c++) {
    for (int64_t i = 0; i < x.height; i++) {
      T* y = x.data + c * x.channelStride + i * x.rowStride;
      const int64_t row = i - top;
      const bool inside = row >= 0 && row < rows;
      const T* from = slab + c * w.slabChannel + row * w.slabRow;
      for (int64_t j = 0; j < x.width; j++) {
        const int64_t column = j - left;
        y[j * x.columnStride] = inside && column >= 0 && column < w.slabRow ? from[column] : 0;
      }
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

// y[i] = x[i * stride], i < n; with unit stride in whole vectors, beyond n
template <class T>
ADJOINT_INLINE void copyPixels(T* y, const T* x, int64_t stride, int64_t n) {
  if (stride == 1) {
    for (int64_t i = 0; i < n; i += kLanes<T>) storeVector(y + i, load(x + i));
  } else if (stride == 2) {
    for (int64_t i = 0; i < n; i++) y[i] = x[2 * i];
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = x[i * stride];
  }
}

template <class T>
void packColumns(T* panels, const T* slab, const ConvWindow& w, int64_t k, int64_t kEnd,
                 int64_t pixels) {
  constexpr int64_t lanes = kLanes<T>, columns = 2 * lanes;
  // A panel's pixels come in runs, one for each row of the output that it touches.
  struct Run {
    int64_t source, target, size;
  } run[columns];
  for (int64_t j = 0; j < pixels; j += columns) {
    const int64_t count = pixels - j < columns ? pixels - j : columns;
    const int64_t width = count <= lanes ? lanes : columns;
    int runs = 0;
    for (int64_t at = 0; at < count; runs++) {
      const int64_t p = (j + at) / w.q, q = (j + at) % w.q;
      const int64_t size = w.q - q < count - at ? w.q - q : count - at;
      run[runs] = {p * w.strideH * w.slabRow + q * w.strideW, at, size};
      at += size;
    }
    T* y = panels + j * (kEnd - k);
    Taps taps(w, k);
    for (int64_t i = k; i < kEnd; i++, y += width, taps.next()) {
      const T* x = slab + taps.offset();
      for (int r = 0; r < runs; r++) {
        copyPixels(y + run[r].target, x + run[r].source, w.strideW, run[r].size);
      }
      clear(y + count, width - count);
    }
  }
}

template <class T>
void packTransposedColumns(T* panels, const T* slab, const ConvWindow& w, int64_t k, int64_t kEnd,
                           int64_t pixel, int64_t pixelEnd) {
  constexpr int64_t lanes = kLanes<T>, columns = 2 * lanes;
  const int64_t depth = pixelEnd - pixel;
  for (int64_t j = k; j < kEnd; j += columns) {
    const int64_t count = kEnd - j < columns ? kEnd - j : columns;
    const int64_t width = count <= lanes ? lanes : columns;
    // Lanes beyond the last tap repeat it; the product drops their results.
    const T* tap[columns];
    Taps taps(w, j);
    for (int64_t i = 0; i < width; i++) {
      tap[i] = slab + taps.offset();
      if (i + 1 < count) taps.next();
    }
    T* panel = panels + (j - k) * depth;
    for (int64_t at = pixel; at < pixelEnd;) {
      const int64_t q = at % w.q;
      const int64_t source = at / w.q * w.strideH * w.slabRow + q * w.strideW;
      const int64_t size = w.q - q < pixelEnd - at ? w.q - q : pixelEnd - at;
      T* y = panel + (at - pixel) * width;
      if (w.strideW == 1) {
        // Whole squares; what they write beyond the run is written again by what follows.
        for (int64_t i = 0; i < size; i += lanes) {
          for (int64_t g = 0; g < width; g += lanes) {
            Vector<T> square[lanes];
#pragma GCC unroll 16
            for (int l = 0; l < lanes; l++) square[l] = load(tap[g + l] + source + i);
            transposeSquare<lanes / 2, lanes>(square);
#pragma GCC unroll 16
            for (int l = 0; l < lanes; l++) storeVector(y + (i + l) * width + g, square[l]);
          }
        }
      } else {
        for (int64_t i = 0; i < size; i++) {
          for (int64_t g = 0; g < width; g++) {
            y[i * width + g] = tap[g][source + i * w.strideW];
          }
        }
      }
      at += size;
    }
  }
}

template <class T>
void addColumns(T* slab, const T* columns, const ConvWindow& w, int64_t channels, int64_t pixels) {
  Taps taps(w, 0);
  const int64_t count = channels * w.kernelH * w.kernelW;
  for (int64_t k = 0; k < count; k++, taps.next()) {
    for (int64_t j = 0; j < pixels; j += w.q) {
      T* y = slab + taps.offset() + j / w.q * w.strideH * w.slabRow;
      const T* x = columns + k * pixels + j;
      if (w.strideW == 1) {
        addElements(y, y, x, w.q);
      } else {
        for (int64_t q = 0; q < w.q; q++) y[q * w.strideW] += x[q];
      }
    }
  }
}

template <class T>
constexpr Conv2dKernels<T> kernelsOf() {
  return {fillSlab<T>, readSlab<T>, packColumns<T>, packTransposedColumns<T>, addColumns<T>};
}

}  // namespace

const Conv2dTable conv2dTable = {kernelsOf<float>(), kernelsOf<double>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
