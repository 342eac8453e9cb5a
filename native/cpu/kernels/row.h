// Rows of floats, read by vectors with a partial one at the end, or of doubles, one by one. Only
// for files that are compiled per level.
#pragma once
#include "cpu/kernels/fold.h"
#include "cpu/kernels/vec_math.h"

namespace adjoint::cpu::ADJOINT_LEVEL {

constexpr int64_t kBlockOfRow = 512;  // summed in T, then in double

// The elements of a row of T as vectors (float) or one by one (double), the rest of a row by a
// partial vector. V is Vec or double.
template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  using V = Vec;
  static constexpr int64_t width = kLanes;
  static ADJOINT_INLINE V read(const float* p) { return load(p); }
  static ADJOINT_INLINE V read(const float* p, int64_t n, V fill) {
    return loadPartial(p, n, fill);
  }
  static ADJOINT_INLINE void write(float* p, V x) { store(p, x); }
  static ADJOINT_INLINE void write(float* p, V x, int64_t n) { storePartial(p, x, n); }
  template <class Op>
  static ADJOINT_INLINE float fold(V x, Op op) {
    return foldLanes(x, op);
  }
};
template <>
struct Lanes<double> {
  using V = double;
  static constexpr int64_t width = 1;
  static ADJOINT_INLINE V read(const double* p) { return *p; }
  static ADJOINT_INLINE V read(const double*, int64_t, V fill) { return fill; }
  static ADJOINT_INLINE void write(double* p, V x) { *p = x; }
  static ADJOINT_INLINE void write(double*, V, int64_t) {}
  template <class Op>
  static ADJOINT_INLINE double fold(V x, Op) {
    return x;
  }
};

// Calls f(i, rest) for each vector of [0, n); rest is how many lanes count.
template <class T, class F>
ADJOINT_INLINE void forEachLanes(int64_t n, F f) {
  constexpr int64_t width = Lanes<T>::width;
  int64_t i = 0;
  for (; i + width <= n; i += width) f(i, width);
  if constexpr (width > 1) {
    if (i < n) f(i, n - i);
  }
}
template <class T>
ADJOINT_INLINE typename Lanes<T>::V get(const T* p, int64_t rest, T fill) {
  using V = typename Lanes<T>::V;
  return rest == Lanes<T>::width ? Lanes<T>::read(p) : Lanes<T>::read(p, rest, V(fill));
}
template <class T>
ADJOINT_INLINE void put(T* p, typename Lanes<T>::V x, int64_t rest) {
  if (rest == Lanes<T>::width) {
    Lanes<T>::write(p, x);
  } else {
    Lanes<T>::write(p, x, rest);
  }
}

#if defined(ADJOINT_LEVEL_SCALAR)
ADJOINT_INLINE float expOrZero(float x) {
  return ::expf(x);
}
#endif
ADJOINT_INLINE double expOrZero(double x) {
  return ::exp(x);
}

// The sum of f(i, rest) over a row, in two running vectors within a block and in double beyond.
template <class T, class F>
ADJOINT_INLINE double sumOfRow(int64_t n, F f) {
  using V = typename Lanes<T>::V;
  constexpr int64_t width = Lanes<T>::width;
  double total = 0;
  for (int64_t start = 0; start < n; start += kBlockOfRow) {
    const int64_t end = n - start < kBlockOfRow ? n : start + kBlockOfRow;
    V even(0), odd(0);
    int64_t i = start;
    for (; i + 2 * width <= end; i += 2 * width) {
      even = even + f(i, width);
      odd = odd + f(i + width, width);
    }
    for (; i + width <= end; i += width) even = even + f(i, width);
    if constexpr (width > 1) {
      if (i < end) odd = odd + f(i, end - i);
    }
    total += static_cast<double>(Lanes<T>::fold(even + odd, SumOf()));
  }
  return total;
}

}  // namespace adjoint::cpu::ADJOINT_LEVEL
