// bfloat16 in memory as vectors of floats in registers, and back. Included by per-level sources
// alone; everything has internal linkage.
#pragma once
#include "cpu/kernels/registers.h"
#include "shared/convert.h"
#include "shared/host_device.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
using Words = Vector<uint32_t>;
constexpr int64_t kWords = kVectorBytes / 4;
#if defined(ADJOINT_LEVEL_AVX512)
// Where a permutation of halves finds each: lane i / 2 of the lower ones; the upper half of lane i.
constexpr Vector<uint16_t> kUpperHalves = {0,  0,  1,  1,  2,  2,  3,  3,  4,  4,  5,
                                           5,  6,  6,  7,  7,  8,  8,  9,  9,  10, 10,
                                           11, 11, 12, 12, 13, 13, 14, 14, 15, 15};
constexpr Vector<uint16_t> kOddHalves = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                         1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
#endif

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

ADJOINT_INLINE Vector<float> widen(const BFloat16* p) {
#if defined(ADJOINT_LEVEL_AVX512)  // each half to the upper half of its lane
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return (Vector<float>)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, (__m512i)kUpperHalves,
                                                       _mm512_castsi256_si512(halves));
#else
  return (Vector<float>)(wordsOf(&p->bits) << 16);
#endif
}

// To the nearest bfloat16, ties to even, in the upper half of each lane; the lower one is
// undefined. Not for a NaN whose lower half is not zero.
ADJOINT_INLINE Words roundedNumbers(Vector<float> x) {
  const Words u = (Words)x;
  return u + 0x7fff + ((u >> 16) & 1);
}
// The same for any NaN, which stays one.
ADJOINT_INLINE Words roundedHalves(Vector<float> x) {
  const Words u = (Words)x, rounded = roundedNumbers(x);
#if defined(ADJOINT_LEVEL_AVX512)
  const __mmask16 isNaN = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return (Words)_mm512_mask_or_epi32((__m512i)rounded, isNaN, (__m512i)u,
                                     _mm512_set1_epi32(0x400000));
#else
  const Words isNaN = (Words)(x != x);
  return (isNaN & (u | 0x400000)) | (~isNaN & rounded);
#endif
}
ADJOINT_INLINE Words roundToUpperHalf(Vector<float> x) {
  return roundedHalves(x) & 0xffff0000u;
}
ADJOINT_INLINE Halves upperHalves(Words x) {
#if defined(ADJOINT_LEVEL_AVX512)
  const __m512i odd = _mm512_maskz_permutexvar_epi16(0xffffffff, (__m512i)kOddHalves, (__m512i)x);
  return (Halves)__builtin_shufflevector((__v8di)odd, (__v8di)odd, 0, 1, 2, 3);
#else
  return __builtin_convertvector(x >> 16, Halves);
#endif
}
ADJOINT_INLINE void storeUpperHalves(uint16_t* y, Words x) {
  const Halves h = upperHalves(x);
  __builtin_memcpy(y, &h, sizeof h);
}
ADJOINT_INLINE void narrow(BFloat16* p, Vector<float> x) {
  storeUpperHalves(&p->bits, roundedHalves(x));
}

// The first `count` lanes; zeros in the rest; nothing beyond is touched.
#if defined(ADJOINT_LEVEL_AVX512)
ADJOINT_INLINE __mmask16 firstHalves(int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1);
}
#endif
ADJOINT_INLINE Vector<float> widenFirst(const BFloat16* p, int64_t count) {
  if (count >= kWords) return widen(p);
#if defined(ADJOINT_LEVEL_AVX512)
  const __m256i halves = _mm256_maskz_loadu_epi16(firstHalves(count), p);
  return (Vector<float>)((Words)_mm512_maskz_cvtepu16_epi32(0xffff, halves) << 16);
#else
  BFloat16 lane[kWords] = {};
  for (int64_t i = 0; i < count; i++) lane[i] = p[i];
  return widen(lane);
#endif
}
ADJOINT_INLINE void narrowFirst(BFloat16* p, Vector<float> x, int64_t count) {
  if (count >= kWords) return narrow(p, x);
#if defined(ADJOINT_LEVEL_AVX512)
  _mm256_mask_storeu_epi16(p, firstHalves(count), (__m256i)upperHalves(roundedHalves(x)));
#else
  BFloat16 lane[kWords];
  narrow(lane, x);
  for (int64_t i = 0; i < count; i++) p[i] = lane[i];
#endif
}

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
