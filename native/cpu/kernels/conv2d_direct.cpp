#include "cpu/kernels/conv2d_direct.h"

#include <algorithm>

#include "cpu/kernels/bf16_lanes.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// ---------------------------------------------------------------- slabs
// y[j] = x[j * stride] for j < n
template <class T, int Stride>
ADJOINT_INLINE void copySpaced(T* y, const T* x, int64_t stride, int64_t n) {
  int64_t j = 0;
  if constexpr (Stride != 0) {
    // A vector of spaced elements is read with all between them.
    for (; j + kLanes<T> < n; j += kLanes<T>) {
      storeVector(y + j, loadSpaced<T, Stride>(x + j * Stride, Stride));
    }
  }
  for (; j < n; j++) y[j] = x[j * stride];
}

template <class T>
void fillSlab(T* slab, const ImageView<const T>& x, const DirectSlab& s) {
  const int64_t stride = s.strideW * x.columnStride;
  const auto copy = stride == 1   ? copySpaced<T, 1>
                    : stride == 2 ? copySpaced<T, 2>
                                  : copySpaced<T, 0>;
  for (int64_t column = 0; column < s.kernelW; column++) {
    // Pixel j sees x[j * strideW + left].
    const int64_t left = column * s.dilationW - s.padW;
    const auto firstAtOrAfter = [&](int64_t position) {
      const int64_t distance = position - left;
      return distance <= 0 ? 0 : std::min(s.q, (distance + s.strideW - 1) / s.strideW);
    };
    const int64_t begin = firstAtOrAfter(0), end = std::max(begin, firstAtOrAfter(x.width));
    for (int64_t c = 0; c < x.channels; c++) {
      for (int64_t i = 0; i < s.rows; i++, slab += s.row) {
        for (int64_t j = 0; j < s.row; j += kLanes<T>) storeVector(slab + j, Vector<T>{});
        const int64_t row = s.top + i;
        if (row < 0 || row >= x.height) continue;
        copy(slab + begin,
             x.data + c * x.channelStride + row * x.rowStride +
                 (begin * s.strideW + left) * x.columnStride,
             stride, end - begin);
      }
    }
  }
}

// ---------------------------------------------------------------- forward
// F filters at N rows of the output and a vector of columns, `count` of them there.
template <class T, class S, int F, int N>
ADJOINT_INLINE void correlateColumns(S* y, int64_t yFilter, int64_t yRow, const T* x,
                                     const DirectTaps<T>& taps, const T* weight, const T* bias,
                                     bool relu, int64_t count) {
  const int64_t depth = taps.count, step = taps.row;
  const int64_t* const offset = taps.offset;
  Vector<T> sum[F][N];
#pragma GCC unroll 8
  for (int f = 0; f < F; f++) {
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) sum[f][i] = splat(bias[f]);
  }
  for (int64_t t = 0; t < depth; t++) {
    const T* from = x + offset[t];
    Vector<T> pixels[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) pixels[i] = load(from + i * step);
#pragma GCC unroll 8
    for (int f = 0; f < F; f++) {
      const Vector<T> w = splat(weight[f * depth + t]);
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) sum[f][i] += w * pixels[i];
    }
  }
#pragma GCC unroll 8
  for (int f = 0; f < F; f++) {
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
      Vector<T> v = sum[f][i];
      if (relu) v = v <= T(0) ? Vector<T>{} : v;
      storeFirst(y + f * yFilter + i * yRow, v, count);
    }
  }
}

template <class T, class S, int F, int N>
void correlateFilters(const DirectRows<S>& y, int64_t k, const DirectTaps<T>& taps,
                      const DirectFilters<T>& filters) {
  const T* const weight = filters.weight + k * taps.count;
  for (int64_t j = 0; j < y.q; j += kLanes<T>) {
    S* const to = y.data + k * y.filter + j;
    const auto columns = [&](auto n, int64_t i) {
      correlateColumns<T, S, F, decltype(n)::value>(to + i * y.row, y.filter, y.row,
                                                    taps.slab + i * taps.row + j, taps, weight,
                                                    filters.bias + k, filters.relu, y.q - j);
    };
    int64_t i = 0;
    for (; i + N <= y.rows; i += N) columns(std::integral_constant<int, N>(), i);
    for (; i < y.rows; i++) columns(std::integral_constant<int, 1>(), i);
  }
}

template <class T, class S>
void correlate(const DirectRows<S>& y, const DirectTaps<T>& x, const DirectFilters<T>& w) {
#if defined(ADJOINT_LEVEL_AVX2) || defined(ADJOINT_LEVEL_SCALAR)  // 16 registers
  constexpr int kRows = 2;
#else
  constexpr int kRows = 4;
#endif
  int64_t k = 0;
  for (; k + 4 <= w.count; k += 4) correlateFilters<T, S, 4, kRows>(y, k, x, w);
  for (; k < w.count; k++) correlateFilters<T, S, 1, 8>(y, k, x, w);
}

// ---------------------------------------------------------------- the filters' gradient
// F filters from k on, N taps from t on.
template <class T, class S, bool IsRectified, int F, int N>
void addTaps(T* sums, const DirectGradient<S>& y, int64_t k, const DirectTaps<T>& x, int64_t t) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t filter = y.filter, q = y.q, rows = y.rows, yRow = y.row, xRow = x.row;
  const S* dy = y.dy + k * filter;
  const S* rectified = IsRectified ? y.y + k * filter : nullptr;
  const T* tap[N];
  for (int n = 0; n < N; n++) tap[n] = x.slab + x.offset[t + n];
  Vector<T> sum[F][N] = {}, total[F] = {};
  const auto add = [&](int64_t from, int64_t pixel, auto read) {
    Vector<T> v[F];
#pragma GCC unroll 4
    for (int f = 0; f < F; f++) {
      v[f] = read(dy + from + f * filter);
      if constexpr (IsRectified) {
        v[f] = read(rectified + from + f * filter) <= T(0) ? Vector<T>{} : v[f];
      }
      total[f] += v[f];
    }
#pragma GCC unroll 9
    for (int n = 0; n < N; n++) {
      const Vector<T> pixels = load(tap[n] + pixel);
#pragma GCC unroll 4
      for (int f = 0; f < F; f++) sum[f][n] += v[f] * pixels;
    }
  };
  for (int64_t i = 0; i < rows; i++) {
    int64_t j = 0;
    for (; j + lanes <= q; j += lanes) {
      add(i * yRow + j, i * xRow + j, [](const S* p) { return loadElements(p); });
    }
    if (j < q) add(i * yRow + j, i * xRow + j, [&](const S* p) { return loadFirst(p, q - j); });
  }
  const int64_t depth = x.count;
#pragma GCC unroll 4
  for (int f = 0; f < F; f++) {
    T* const to = sums + (k + f) * (depth + 1) * lanes;
    for (int n = 0; n < N; n++) {
      T* const place = to + (t + n) * lanes;
      storeVector(place, load(place) + sum[f][n]);
    }
    if (t == 0) storeVector(to + depth * lanes, load(to + depth * lanes) + total[f]);
  }
}

template <class T, class S, bool IsRectified, int F>
void addAllTaps(T* sums, const DirectGradient<S>& y, int64_t k, const DirectTaps<T>& x) {
  int64_t t = 0;
  for (; t + 9 <= x.count; t += 9) addTaps<T, S, IsRectified, F, 9>(sums, y, k, x, t);
  for (; t + 3 <= x.count; t += 3) addTaps<T, S, IsRectified, F, 3>(sums, y, k, x, t);
  for (; t < x.count; t++) addTaps<T, S, IsRectified, F, 1>(sums, y, k, x, t);
}

template <class T, class S, bool IsRectified>
void addAllFilters(T* sums, const DirectGradient<S>& y, const DirectTaps<T>& x) {
#if defined(ADJOINT_LEVEL_AVX2) || defined(ADJOINT_LEVEL_SCALAR)  // 16 registers
  constexpr int kFilters = 1;
#else
  constexpr int kFilters = 2;
#endif
  int64_t k = 0;
  for (; k + kFilters <= y.filters; k += kFilters) {
    addAllTaps<T, S, IsRectified, kFilters>(sums, y, k, x);
  }
  for (; k < y.filters; k++) addAllTaps<T, S, IsRectified, 1>(sums, y, k, x);
}

template <class T, class S>
void addProducts(T* sums, const DirectGradient<S>& y, const DirectTaps<T>& x) {
  if (y.y) return addAllFilters<T, S, true>(sums, y, x);
  addAllFilters<T, S, false>(sums, y, x);
}

template <class T>
void foldSums(T* y, const T* sums, int64_t count) {
  for (int64_t i = 0; i < count; i++) y[i] = sumLanes<T>(load(sums + i * kLanes<T>));
}

}  // namespace

const DirectTable directTable = {
    {fillSlab<float>, correlate<float, float>, correlate<float, BFloat16>, kLanes<float>,
     addProducts<float, float>, addProducts<float, BFloat16>, foldSums<float>},
    {fillSlab<double>, correlate<double, double>, nullptr, kLanes<double>,
     addProducts<double, double>, nullptr, foldSums<double>}};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
