#include "cpu/kernels/depthwise.h"

#include "cpu/kernels/lanes.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// `N` rows of the output at a vector of columns, `count` of them there.
template <class T, int Stride, int N>
ADJOINT_INLINE void correlateColumns(T* y, int64_t yRow, const T* slab, const ConvWindow& w,
                                     const int64_t* offset, const T* weight, int64_t taps, T bias,
                                     int64_t count) {
  const int64_t step = w.strideH * w.slabRow;
  Vector<T> sum[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; i++) sum[i] = splat(bias);
  for (int64_t t = 0; t < taps; t++) {
    const T* x = slab + offset[t];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
      sum[i] += weight[t] * loadSpaced<T, Stride>(x + i * step, w.strideW);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; i++) {
    if (count >= kLanes<T>) {
      storeVector(y + i * yRow, sum[i]);
    } else {
      storePartial(y + i * yRow, sum[i], count);
    }
  }
}

template <class T, int Stride>
void correlateRows(T* y, int64_t yRow, int64_t rows, const T* slab, const ConvWindow& w,
                   const int64_t* offset, const T* weight, int64_t taps, T bias) {
  const int64_t step = w.strideH * w.slabRow;
  for (int64_t j = 0; j < w.q; j += kLanes<T>) {
    const T* x = slab + j * w.strideW;
    int64_t i = 0;
    for (; i + 8 <= rows; i += 8) {
      correlateColumns<T, Stride, 8>(y + i * yRow + j, yRow, x + i * step, w, offset, weight, taps,
                                     bias, w.q - j);
    }
    for (; i < rows; i++) {
      correlateColumns<T, Stride, 1>(y + i * yRow + j, yRow, x + i * step, w, offset, weight, taps,
                                     bias, w.q - j);
    }
  }
}

template <class T>
void correlate(T* y, int64_t yRow, int64_t rows, const T* slab, const ConvWindow& w,
               const int64_t* offset, const T* weight, int64_t taps, T bias) {
  const auto run = w.strideW == 1   ? correlateRows<T, 1>
                   : w.strideW == 2 ? correlateRows<T, 2>
                                    : correlateRows<T, 0>;
  run(y, yRow, rows, slab, w, offset, weight, taps, bias);
}

// The first `count` lanes of x, zeros in the others, whatever x has there.
template <class T>
ADJOINT_INLINE Vector<T> firstLanesOf(Vector<T> x, int64_t count) {
  alignas(64) T lane[kLanes<T>];
  storeVector(lane, x);
  return loadPartial(lane, count);
}

template <class T, int Stride, int N>
void sumTaps(T* sums, const T* dy, int64_t dyRow, int64_t rows, const T* slab, const ConvWindow& w,
             const int64_t* offset) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t whole = w.q / lanes * lanes, rest = w.q - whole;
  Vector<T> sum[N] = {};
  for (int64_t i = 0; i < rows; i++) {
    const T* x = slab + i * w.strideH * w.slabRow;
    const T* from = dy + i * dyRow;
    for (int64_t j = 0; j < whole; j += lanes) {
      const Vector<T> v = load(from + j);
#pragma GCC unroll 9
      for (int t = 0; t < N; t++) {
        sum[t] += v * loadSpaced<T, Stride>(x + offset[t] + j * w.strideW, w.strideW);
      }
    }
    if (rest == 0) continue;
    // What lies beyond the row may be a NaN: it counts nothing.
    const Vector<T> v = loadPartial(from + whole, rest);
#pragma GCC unroll 9
    for (int t = 0; t < N; t++) {
      sum[t] += v * firstLanesOf<T>(
                        loadSpaced<T, Stride>(x + offset[t] + whole * w.strideW, w.strideW), rest);
    }
  }
  for (int t = 0; t < N; t++) sums[t] += sumLanes<T>(sum[t]);
}

template <class T, int Stride>
void sumAllTaps(T* sums, const T* dy, int64_t dyRow, int64_t rows, const T* slab,
                const ConvWindow& w, const int64_t* offset, int64_t taps) {
  int64_t t = 0;
  for (; t + 9 <= taps; t += 9) {
    sumTaps<T, Stride, 9>(sums + t, dy, dyRow, rows, slab, w, offset + t);
  }
  for (; t + 3 <= taps; t += 3) {
    sumTaps<T, Stride, 3>(sums + t, dy, dyRow, rows, slab, w, offset + t);
  }
  for (; t < taps; t++) {
    sumTaps<T, Stride, 1>(sums + t, dy, dyRow, rows, slab, w, offset + t);
  }
}

template <class T>
void correlateSums(T* sums, const T* dy, int64_t dyRow, int64_t rows, const T* slab,
                   const ConvWindow& w, const int64_t* offset, int64_t taps) {
  const auto run = w.strideW == 1   ? sumAllTaps<T, 1>
                   : w.strideW == 2 ? sumAllTaps<T, 2>
                                    : sumAllTaps<T, 0>;
  run(sums, dy, dyRow, rows, slab, w, offset, taps);
}

template <class T>
constexpr DepthwiseKernels<T> kernelsOf() {
  return {correlate<T>, correlateSums<T>};
}

}  // namespace

const DepthwiseTable depthwiseTable = {kernelsOf<float>(), kernelsOf<double>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
