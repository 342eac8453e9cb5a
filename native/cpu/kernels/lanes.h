// Vectors of any element type, in the widest registers of the level. Included by per-level sources
// alone; everything has internal linkage.
#pragma once
#include <cstdint>

#include "shared/host_device.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

#if defined(ADJOINT_LEVEL_AVX512)
constexpr int kVectorBytes = 64;
#elif defined(ADJOINT_LEVEL_AVX2)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
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
ADJOINT_INLINE void copyElements(T* y, const T* x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i];
}
template <class T>
ADJOINT_INLINE void addElements(T* y, const T* a, const T* b, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}
// The first `count` lanes, zeros in the rest; reads nothing beyond.
template <class T>
ADJOINT_INLINE Vector<T> loadPartial(const T* p, int64_t count) {
  if (count == kLanes<T>) return load(p);
  Vector<T> v = {};
  __builtin_memcpy(&v, p, static_cast<unsigned long>(count) * sizeof(T));
  return v;
}
template <class T>
ADJOINT_INLINE void storePartial(T* p, Vector<T> v, int64_t count) {
  if (count == kLanes<T>) return storeVector(p, v);
  __builtin_memcpy(p, &v, static_cast<unsigned long>(count) * sizeof(T));
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
