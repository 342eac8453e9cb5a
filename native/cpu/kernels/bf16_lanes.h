// Elements as vectors of the type that they are computed in: bfloat16 as float32, others as they
// are. Included by per-level sources alone; everything has internal linkage.
#pragma once
#include "cpu/kernels/bf16_vector.h"
#include "cpu/kernels/lanes.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

ADJOINT_INLINE Vector<float> loadElements(const float* p) {
  return load(p);
}
ADJOINT_INLINE Vector<double> loadElements(const double* p) {
  return load(p);
}
ADJOINT_INLINE Vector<float> loadElements(const BFloat16* p) {
  return widen(p);
}
ADJOINT_INLINE void storeElements(float* p, Vector<float> x) {
  storeVector(p, x);
}
ADJOINT_INLINE void storeElements(double* p, Vector<double> x) {
  storeVector(p, x);
}
ADJOINT_INLINE void storeElements(BFloat16* p, Vector<float> x) {
  narrow(p, x);
}

// The first `count` lanes; zeros in the rest.
template <class T>
ADJOINT_INLINE Vector<T> loadFirst(const T* p, int64_t count) {
  return count >= kLanes<T> ? load(p) : loadPartial(p, count);
}
ADJOINT_INLINE Vector<float> loadFirst(const BFloat16* p, int64_t count) {
  return widenFirst(p, count);
}
template <class T>
ADJOINT_INLINE void storeFirst(T* p, Vector<T> x, int64_t count) {
  if (count >= kLanes<T>) return storeVector(p, x);
  storePartial(p, x, count);
}
ADJOINT_INLINE void storeFirst(BFloat16* p, Vector<float> x, int64_t count) {
  narrowFirst(p, x, count);
}

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
