// Elements of a row as they are computed: Vecs of floats, of which bfloat16 is read and written as
// well, or one double at a time. Only for files that are compiled per level.
#pragma once
#include "cpu/kernels/bf16_vector.h"
#include "cpu/kernels/vec_math.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// Elements of a row as vectors (float) or one by one (double); `rest` lanes of the last one count.
ADJOINT_INLINE Vec get(const float* p, int64_t rest) {
  return rest == kLanes ? load(p) : loadPartial(p, rest);
}
ADJOINT_INLINE void put(float* p, Vec x, int64_t rest) {
  if (rest == kLanes) {
    store(p, x);
  } else {
    storePartial(p, x, rest);
  }
}
ADJOINT_INLINE double get(const double* p, int64_t) {
  return *p;
}
ADJOINT_INLINE void put(double* p, double x, int64_t) {
  *p = x;
}
ADJOINT_INLINE Vec zeroOf(const float*) {
  return Vec(0);
}
ADJOINT_INLINE double zeroOf(const double*) {
  return 0;
}
// bfloat16 as vectors of float.
#if defined(ADJOINT_LEVEL_SCALAR)
ADJOINT_INLINE Vec get(const BFloat16* p, int64_t) {
  return toFloat(*p);
}
ADJOINT_INLINE void put(BFloat16* p, Vec x, int64_t) {
  *p = toBFloat16(x);
}
#else
ADJOINT_INLINE Vec get(const BFloat16* p, int64_t rest) {
  return widenFirst(p, rest);
}
ADJOINT_INLINE void put(BFloat16* p, Vec x, int64_t rest) {
  narrowFirst(p, x.v, rest);
}
#endif

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
