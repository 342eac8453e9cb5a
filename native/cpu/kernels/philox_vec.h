// Philox over many counters at once, a counter in each lane of a vector.
#pragma once
#include "cpu/kernels/vec.h"
#include "shared/philox.h"

namespace adjoint::cpu::ADJOINT_LEVEL {

#if defined(ADJOINT_LEVEL_AVX512) || defined(ADJOINT_LEVEL_AVX2)

typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef uint64_t LongWords __attribute__((vector_size(kLanes * 4)));
constexpr int64_t kCountersAtOnce = kLanes;

#if defined(ADJOINT_LEVEL_AVX512)
#define ADJOINT_WORDS(instruction, mask, a, b) \
  (Words) _mm512_maskz_##instruction(mask, (__m512i)(a), (__m512i)(b))
#else
#define ADJOINT_WORDS(instruction, mask, a, b) \
  (Words) _mm256_##instruction((__m256i)(a), (__m256i)(b))
#endif

struct WideProduct {
  Words high, low;
};
// The products of the even lanes and of the odd ones, put back in their places.
ADJOINT_INLINE WideProduct wideProduct(Words a, uint32_t factor) {
  const Words f = Words{} + factor;
  const LongWords even = (LongWords)ADJOINT_WORDS(mul_epu32, 0xff, a, f);
  const LongWords odd = (LongWords)ADJOINT_WORDS(mul_epu32, 0xff, (LongWords)a >> 32, f);
  constexpr uint64_t kLow = 0xffffffffu;
  return {(Words)(even >> 32 | (odd & ~kLow)), (Words)((even & kLow) | odd << 32)};
}

// The four lanes of kCountersAtOnce successive counters. Lane 4 j + i of a vector takes counter
// i kLanes / 4 + j, so that the transpose below leaves them in order.
ADJOINT_INLINE void drawCounters(uint32_t* out, uint64_t seed, uint64_t counter) {
  Words place;
  for (uint32_t l = 0; l < kLanes; l++) place[l] = l % 4 * (kLanes / 4) + l / 4;
  const Words start = Words{} + static_cast<uint32_t>(counter);
  Words c0 = start + place;
  Words c1 = static_cast<uint32_t>(counter >> 32) - (Words)(c0 < start);  // the carry, as -1
  Words c2{}, c3{};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const WideProduct p0 = wideProduct(c0, 0xD2511F53u), p1 = wideProduct(c2, 0xCD9E8D57u);
    c0 = p1.high ^ c1 ^ k0;
    c1 = p1.low;
    c2 = p0.high ^ c3 ^ k1;
    c3 = p0.low;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const Words low01 = ADJOINT_WORDS(unpacklo_epi32, 0xffff, c0, c1);
  const Words high01 = ADJOINT_WORDS(unpackhi_epi32, 0xffff, c0, c1);
  const Words low23 = ADJOINT_WORDS(unpacklo_epi32, 0xffff, c2, c3);
  const Words high23 = ADJOINT_WORDS(unpackhi_epi32, 0xffff, c2, c3);
  const Words quads[4] = {ADJOINT_WORDS(unpacklo_epi64, 0xff, low01, low23),
                          ADJOINT_WORDS(unpackhi_epi64, 0xff, low01, low23),
                          ADJOINT_WORDS(unpacklo_epi64, 0xff, high01, high23),
                          ADJOINT_WORDS(unpackhi_epi64, 0xff, high01, high23)};
  memcpy(out, quads, sizeof quads);
}
#undef ADJOINT_WORDS

#else

constexpr int64_t kCountersAtOnce = 1;
ADJOINT_INLINE void drawCounters(uint32_t* out, uint64_t seed, uint64_t counter) {
  const Philox4 numbers = philox(seed, counter);
  memcpy(out, numbers.lane, sizeof numbers.lane);
}

#endif

}  // namespace adjoint::cpu::ADJOINT_LEVEL
