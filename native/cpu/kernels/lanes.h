// Vectors of any element type, in the widest registers of the level. Included by per-level sources
// alone; everything has internal linkage.
#pragma once
#include <cstdint>
#include <utility>

#include "cpu/kernels/registers.h"
#include "shared/host_device.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

template <class T>
constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(T));

template <class T>
ADJOINT_INLINE Vector<T> load(const T* p) {
  Vector<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
ADJOINT_INLINE void storeVector(T* p, Vector<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class T>
ADJOINT_INLINE Vector<T> splat(T x) {
  return x - Vector<T>{};  // - 0 keeps a negative zero
}
template <class T>
ADJOINT_INLINE void copyElements(T* y, const T* x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i];
}
template <class T>
ADJOINT_INLINE void addElements(T* y, const T* a, const T* b, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}
// ---- the first `count` lanes, 0 <= count <= lanes: zeros in the rest; nothing beyond is touched
#if defined(ADJOINT_LEVEL_AVX512)
ADJOINT_INLINE Vector<float> loadPartial(const float* p, int64_t count) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
}
ADJOINT_INLINE Vector<double> loadPartial(const double* p, int64_t count) {
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), p);
}
ADJOINT_INLINE void storePartial(float* p, Vector<float> v, int64_t count) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
}
ADJOINT_INLINE void storePartial(double* p, Vector<double> v, int64_t count) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1), v);
}
#elif defined(ADJOINT_LEVEL_AVX2)
ADJOINT_INLINE __m256i firstLanes(const float*, int64_t count) {
  const Vector<int32_t> lane = {0, 1, 2, 3, 4, 5, 6, 7};
  return (__m256i)(lane < static_cast<int32_t>(count));
}
ADJOINT_INLINE __m256i firstLanes(const double*, int64_t count) {
  const Vector<int64_t> lane = {0, 1, 2, 3};
  return (__m256i)(lane < count);
}
ADJOINT_INLINE Vector<float> loadPartial(const float* p, int64_t count) {
  return _mm256_maskload_ps(p, firstLanes(p, count));
}
ADJOINT_INLINE Vector<double> loadPartial(const double* p, int64_t count) {
  return _mm256_maskload_pd(p, firstLanes(p, count));
}
ADJOINT_INLINE void storePartial(float* p, Vector<float> v, int64_t count) {
  _mm256_maskstore_ps(p, firstLanes(p, count), v);
}
ADJOINT_INLINE void storePartial(double* p, Vector<double> v, int64_t count) {
  _mm256_maskstore_pd(p, firstLanes(p, count), v);
}
#endif
template <class T>
ADJOINT_INLINE Vector<T> loadPartial(const T* p, int64_t count) {
  T lane[kLanes<T>] = {};
  for (int64_t i = 0; i < count; i++) lane[i] = p[i];
  return load(lane);
}
template <class T>
ADJOINT_INLINE void storePartial(T* p, Vector<T> v, int64_t count) {
  for (int64_t i = 0; i < count; i++) p[i] = v[i];
}

// The even or odd elements of a and b, one after the other.
template <int Odd, class V, int... I>
ADJOINT_INLINE V everySecond(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (2 * I + Odd)...);
}
template <class T, int Odd>
ADJOINT_INLINE Vector<T> everySecond(Vector<T> a, Vector<T> b) {
  return everySecond<Odd>(a, b, std::make_integer_sequence<int, kLanes<T>>());
}

// x[i * stride] in lane i; reads up to `stride` vectors. Stride: 1, 2, or 0 for any
template <class T, int Stride>
ADJOINT_INLINE Vector<T> loadSpaced(const T* x, int64_t stride) {
  constexpr int64_t lanes = kLanes<T>;
  if constexpr (Stride == 1) return load(x);
  if constexpr (Stride == 2) return everySecond<T, 0>(load(x), load(x + lanes));
  T lane[lanes];
  for (int64_t i = 0; i < lanes; i++) lane[i] = x[i * stride];
  return load(lane);
}

// The low or high halves of a and b, lanes alternating.
template <int Half, class V, int... I>
ADJOINT_INLINE V interleave(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int lanes = sizeof...(I);
  return __builtin_shufflevector(a, b, (I / 2 + I % 2 * lanes + Half * lanes / 2)...);
}
template <class T, int Half>
ADJOINT_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b) {
  return interleave<Half>(a, b, std::make_integer_sequence<int, kLanes<T>>());
}

ADJOINT_INLINE float squareRoot(float x) {
  return __builtin_sqrtf(x);
}
ADJOINT_INLINE double squareRoot(double x) {
  return __builtin_sqrt(x);
}
template <class T>
ADJOINT_INLINE T sumLanes(Vector<T> v) {
  T lane[kLanes<T>];
  __builtin_memcpy(lane, &v, sizeof v);
  for (int64_t d = kLanes<T> / 2; d > 0; d /= 2) {
    for (int64_t i = 0; i < d; i++) lane[i] += lane[i + d];
  }
  return lane[0];
}

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
