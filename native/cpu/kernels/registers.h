// The widest register of the level, as a vector of any element type. Included by per-level sources
// alone; everything has internal linkage.
#pragma once
#include <cstdint>

#if defined(ADJOINT_LEVEL_AVX2) || defined(ADJOINT_LEVEL_AVX512)
#include <immintrin.h>
#endif

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

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
