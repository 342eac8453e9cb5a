// Elements as vectors of the type that they are computed in: bfloat16 as float32, others as they
// are. Included by per-level sources alone; everything has internal linkage.
#pragma once
#include "cpu/kernels/lanes.h"
#include "shared/convert.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
using Words = Vector<uint32_t>;

ADJOINT_INLINE Words wordsOf(const uint16_t* x) {
#if defined(ADJOINT_LEVEL_AVX512)  // GCC 12 converts by halves
  return (Words)_mm512_maskz_cvtepu16_epi32(
      0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
#else
  Halves h;
  __builtin_memcpy(&h, x, sizeof h);
  return __builtin_convertvector(h, Words);
#endif
}

// Rounds to the nearest bfloat16, ties to even; a NaN stays one. The upper half of each lane.
ADJOINT_INLINE Words roundToUpperHalf(Vector<float> x) {
  const Words u = (Words)x;
  const Words rounded = u + 0x7fff + ((u >> 16) & 1);
  const Words isNaN = (Words)(x != x);
  return ((isNaN & (u | 0x400000)) | (~isNaN & rounded)) & 0xffff0000u;
}
ADJOINT_INLINE void storeUpperHalves(uint16_t* y, Words x) {
#if defined(ADJOINT_LEVEL_AVX512)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(y),
                      _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)(x >> 16)));
#else
  const Halves h = __builtin_convertvector(x >> 16, Halves);
  __builtin_memcpy(y, &h, sizeof h);
#endif
}

ADJOINT_INLINE Vector<float> loadElements(const float* p) {
  return load(p);
}
ADJOINT_INLINE Vector<double> loadElements(const double* p) {
  return load(p);
}
ADJOINT_INLINE Vector<float> loadElements(const BFloat16* p) {
  return (Vector<float>)(wordsOf(&p->bits) << 16);
}
ADJOINT_INLINE void storeElements(float* p, Vector<float> x) {
  storeVector(p, x);
}
ADJOINT_INLINE void storeElements(double* p, Vector<double> x) {
  storeVector(p, x);
}
ADJOINT_INLINE void storeElements(BFloat16* p, Vector<float> x) {
  storeUpperHalves(&p->bits, roundToUpperHalf(x));
}

// The first `count` lanes; zeros in the rest.
template <class T>
ADJOINT_INLINE Vector<T> loadFirst(const T* p, int64_t count) {
  return count >= kLanes<T> ? load(p) : loadPartial(p, count);
}
#if defined(ADJOINT_LEVEL_AVX512)
ADJOINT_INLINE __mmask16 firstHalves(int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1);
}
#endif
ADJOINT_INLINE Vector<float> loadFirst(const BFloat16* p, int64_t count) {
  if (count >= kLanes<float>) return loadElements(p);
#if defined(ADJOINT_LEVEL_AVX512)
  const __m256i halves = _mm256_maskz_loadu_epi16(firstHalves(count), p);
  return (Vector<float>)((Words)_mm512_maskz_cvtepu16_epi32(0xffff, halves) << 16);
#else
  BFloat16 lane[kLanes<float>] = {};
  for (int64_t i = 0; i < count; i++) lane[i] = p[i];
  return loadElements(lane);
#endif
}
template <class T>
ADJOINT_INLINE void storeFirst(T* p, Vector<T> x, int64_t count) {
  if (count >= kLanes<T>) return storeVector(p, x);
  storePartial(p, x, count);
}
ADJOINT_INLINE void storeFirst(BFloat16* p, Vector<float> x, int64_t count) {
  if (count >= kLanes<float>) return storeElements(p, x);
#if defined(ADJOINT_LEVEL_AVX512)
  const Words upper = roundToUpperHalf(x) >> 16;
  _mm256_mask_storeu_epi16(p, firstHalves(count),
                           _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)upper));
#else
  BFloat16 lane[kLanes<float>];
  storeElements(lane, x);
  for (int64_t i = 0; i < count; i++) p[i] = lane[i];
#endif
}

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
