// The vector vocabulary of the kernels: Vec, as many floats as a register of the level holds, with
// operators, comparisons and select(). At the scalar level Vec is float itself, so a kernel written
// once in Vec serves every level. Only for files that are compiled per level.
#pragma once
#include <string.h>

#include <cstdint>

#include "shared/functors.h"
#include "shared/host_device.h"

#if defined(ADJOINT_LEVEL_AVX2) || defined(ADJOINT_LEVEL_AVX512)
#include <immintrin.h>
#elif defined(ADJOINT_LEVEL_NEON)
#include <arm_neon.h>
#endif

namespace adjoint::cpu::ADJOINT_LEVEL {

using adjoint::select;

#if defined(ADJOINT_LEVEL_SCALAR)

using Vec = float;
using Mask = bool;
constexpr int kLanes = 1;

ADJOINT_INLINE Vec load(const float* p) {
  return *p;
}
ADJOINT_INLINE void store(float* p, Vec x) {
  *p = x;
}
ADJOINT_INLINE Vec loadPartial(const float* p, int64_t n, Vec fill) {
  return n ? *p : fill;
}
ADJOINT_INLINE void storePartial(float* p, Vec x, int64_t n) {
  if (n) *p = x;
}
ADJOINT_INLINE Mask lanesBelow(int64_t n) {
  return n > 0;
}
template <class F>
ADJOINT_INLINE float foldLanes(Vec x, F) {
  return x;
}
ADJOINT_INLINE Vec select(Mask m, Vec a, Vec b) {
  return m ? a : b;
}

#else

#if defined(ADJOINT_LEVEL_AVX512)
constexpr int kLanes = 16;
#elif defined(ADJOINT_LEVEL_AVX2)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));

struct Mask {
  Ints v;  // -1 or 0
};

struct Vec {
  Floats v;
  Vec() = default;
  ADJOINT_INLINE Vec(Floats x) : v(x) {}                     // NOLINT: implicit on purpose
  ADJOINT_INLINE explicit Vec(float x) : v(x - Floats{}) {}  // - 0 keeps a negative zero
};

ADJOINT_INLINE Vec operator+(Vec a, Vec b) {
  return a.v + b.v;
}
ADJOINT_INLINE Vec operator-(Vec a, Vec b) {
  return a.v - b.v;
}
ADJOINT_INLINE Vec operator*(Vec a, Vec b) {
  return a.v * b.v;
}
ADJOINT_INLINE Vec operator/(Vec a, Vec b) {
  return a.v / b.v;
}
ADJOINT_INLINE Vec operator-(Vec a) {
  return -a.v;
}
ADJOINT_INLINE Mask operator<(Vec a, Vec b) {
  return {a.v < b.v};
}
ADJOINT_INLINE Mask operator<=(Vec a, Vec b) {
  return {a.v <= b.v};
}
ADJOINT_INLINE Mask operator>(Vec a, Vec b) {
  return {a.v > b.v};
}
ADJOINT_INLINE Mask operator>=(Vec a, Vec b) {
  return {a.v >= b.v};
}
ADJOINT_INLINE Mask operator==(Vec a, Vec b) {
  return {a.v == b.v};
}
ADJOINT_INLINE Mask operator!=(Vec a, Vec b) {
  return {a.v != b.v};
}
ADJOINT_INLINE Mask operator&(Mask a, Mask b) {
  return {a.v & b.v};
}
ADJOINT_INLINE Mask operator|(Mask a, Mask b) {
  return {a.v | b.v};
}
ADJOINT_INLINE Mask operator!=(Mask a, Mask b) {
  return {a.v ^ b.v};
}
ADJOINT_INLINE Vec select(Mask m, Vec a, Vec b) {
  return m.v ? a.v : b.v;
}

// Lanes below n, which may be negative or beyond the last.
ADJOINT_INLINE Mask lanesBelow(int64_t n) {
  Ints lane;
  for (int i = 0; i < kLanes; i++) lane[i] = i;
  return {lane < static_cast<int32_t>(n)};
}

ADJOINT_INLINE Ints bits(Vec x) {
  return (Ints)x.v;
}
ADJOINT_INLINE Vec fromBits(Ints x) {
  return (Floats)x;
}

ADJOINT_INLINE Vec load(const float* p) {
  Vec x;
  memcpy(&x.v, p, sizeof x.v);
  return x;
}
ADJOINT_INLINE void store(float* p, Vec x) {
  memcpy(p, &x.v, sizeof x.v);
}

// ---- what vector extensions cannot say: the first n lanes (0 <= n < kLanes),
// square root, rounding, a product's low part, whether any lane is set, the fold of all lanes
#if defined(ADJOINT_LEVEL_AVX512)

// The zero-masking forms: GCC 12 warns about the undefined operand of the others.
constexpr __mmask16 kAllLanes = 0xffff;
ADJOINT_INLINE __mmask16 firstLanes(int64_t n) {
  return static_cast<__mmask16>((1u << n) - 1);
}
ADJOINT_INLINE Vec loadPartial(const float* p, int64_t n, Vec fill) {
  return Vec(_mm512_mask_loadu_ps(fill.v, firstLanes(n), p));
}
ADJOINT_INLINE void storePartial(float* p, Vec x, int64_t n) {
  _mm512_mask_storeu_ps(p, firstLanes(n), x.v);
}
ADJOINT_INLINE Vec squareRoot(Vec x) {
  return Vec(_mm512_maskz_sqrt_ps(kAllLanes, x.v));
}
template <int mode>
ADJOINT_INLINE Vec rounded(Vec x) {
  return Vec(_mm512_maskz_roundscale_ps(kAllLanes, x.v, mode));
}
ADJOINT_INLINE Vec roundEven(Vec x) {
  return rounded<8>(x);
}
ADJOINT_INLINE Vec roundDown(Vec x) {
  return rounded<9>(x);
}
ADJOINT_INLINE Vec roundUp(Vec x) {
  return rounded<10>(x);
}
ADJOINT_INLINE Vec roundToZero(Vec x) {
  return rounded<11>(x);
}
ADJOINT_INLINE Vec fusedMultiplySubtract(Vec a, Vec b, Vec c) {
  return Vec(_mm512_fmsub_ps(a.v, b.v, c.v));
}
ADJOINT_INLINE bool any(Mask m) {
  return _mm512_movepi32_mask((__m512i)m.v) != 0;
}
// Halves, quarters, pairs and neighbours change places until every lane holds the whole fold.
template <class F>
ADJOINT_INLINE float foldLanes(Vec x, F f) {
  x = f(x, Vec(_mm512_maskz_shuffle_f32x4(kAllLanes, x.v, x.v, 0x4e)));
  x = f(x, Vec(_mm512_maskz_shuffle_f32x4(kAllLanes, x.v, x.v, 0xb1)));
  x = f(x, Vec(_mm512_maskz_permute_ps(kAllLanes, x.v, 0x4e)));
  x = f(x, Vec(_mm512_maskz_permute_ps(kAllLanes, x.v, 0xb1)));
  return x.v[0];
}

#elif defined(ADJOINT_LEVEL_AVX2)

ADJOINT_INLINE __m256i firstLanes(int64_t n) {
  const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7};
  return (__m256i)(lane < static_cast<int32_t>(n));
}
ADJOINT_INLINE Vec loadPartial(const float* p, int64_t n, Vec fill) {
  const __m256i mask = firstLanes(n);
  return select(Mask{(Ints)mask}, Vec(_mm256_maskload_ps(p, mask)), fill);
}
ADJOINT_INLINE void storePartial(float* p, Vec x, int64_t n) {
  _mm256_maskstore_ps(p, firstLanes(n), x.v);
}
ADJOINT_INLINE Vec squareRoot(Vec x) {
  return Vec(_mm256_sqrt_ps(x.v));
}
template <int mode>
ADJOINT_INLINE Vec rounded(Vec x) {
  return Vec(_mm256_round_ps(x.v, mode));
}
ADJOINT_INLINE Vec roundEven(Vec x) {
  return rounded<8>(x);
}
ADJOINT_INLINE Vec roundDown(Vec x) {
  return rounded<9>(x);
}
ADJOINT_INLINE Vec roundUp(Vec x) {
  return rounded<10>(x);
}
ADJOINT_INLINE Vec roundToZero(Vec x) {
  return rounded<11>(x);
}
ADJOINT_INLINE Vec fusedMultiplySubtract(Vec a, Vec b, Vec c) {
  return Vec(_mm256_fmsub_ps(a.v, b.v, c.v));
}
ADJOINT_INLINE bool any(Mask m) {
  return _mm256_movemask_ps((__m256)m.v) != 0;
}
template <class F>
ADJOINT_INLINE float foldLanes(Vec x, F f) {
  x = f(x, Vec(_mm256_permute2f128_ps(x.v, x.v, 1)));
  x = f(x, Vec(_mm256_permute_ps(x.v, 0x4e)));
  x = f(x, Vec(_mm256_permute_ps(x.v, 0xb1)));
  return x.v[0];
}

#else

ADJOINT_INLINE Vec loadPartial(const float* p, int64_t n, Vec fill) {
  float lanes[kLanes];
  store(lanes, fill);
  for (int64_t i = 0; i < n; i++) lanes[i] = p[i];
  return load(lanes);
}
ADJOINT_INLINE void storePartial(float* p, Vec x, int64_t n) {
  for (int64_t i = 0; i < n; i++) p[i] = x.v[i];
}
ADJOINT_INLINE Vec squareRoot(Vec x) {
  return Vec((Floats)vsqrtq_f32((float32x4_t)x.v));
}
ADJOINT_INLINE Vec roundEven(Vec x) {
  return Vec((Floats)vrndnq_f32((float32x4_t)x.v));
}
ADJOINT_INLINE Vec roundDown(Vec x) {
  return Vec((Floats)vrndmq_f32((float32x4_t)x.v));
}
ADJOINT_INLINE Vec roundUp(Vec x) {
  return Vec((Floats)vrndpq_f32((float32x4_t)x.v));
}
ADJOINT_INLINE Vec roundToZero(Vec x) {
  return Vec((Floats)vrndq_f32((float32x4_t)x.v));
}
ADJOINT_INLINE Vec fusedMultiplySubtract(Vec a, Vec b, Vec c) {
  return Vec((Floats)vfmaq_f32((float32x4_t)(-c).v, (float32x4_t)a.v, (float32x4_t)b.v));
}
ADJOINT_INLINE bool any(Mask m) {
  return vmaxvq_u32((uint32x4_t)m.v) != 0;
}
template <class F>
ADJOINT_INLINE float foldLanes(Vec x, F f) {
  x = f(x, Vec((Floats)vextq_f32((float32x4_t)x.v, (float32x4_t)x.v, 2)));
  x = f(x, Vec((Floats)vrev64q_f32((float32x4_t)x.v)));
  return x.v[0];
}

#endif

// The function of a lane, where a vector form would not pay.
template <class F>
ADJOINT_INLINE Vec mapLanes(Vec x, F f) {
  float lanes[kLanes];
  store(lanes, x);
  for (int i = 0; i < kLanes; i++) lanes[i] = f(lanes[i]);
  return load(lanes);
}
template <class F>
ADJOINT_INLINE Vec mapLanes(Vec a, Vec b, F f) {
  float x[kLanes], y[kLanes];
  store(x, a);
  store(y, b);
  for (int i = 0; i < kLanes; i++) x[i] = f(x[i], y[i]);
  return load(x);
}

// x - a b, rounded once, whatever the compiler contracts by itself
ADJOINT_INLINE Vec subtractProduct(Vec x, Vec a, Vec b) {
  return -fusedMultiplySubtract(a, b, x);
}

#endif

ADJOINT_INLINE Vec loadPartial(const float* p, int64_t n) {
  return loadPartial(p, n, Vec(0));
}

// Calls f(i) for each whole vector of [0, n) and tail(i, rest) for what is left.
template <class F, class G>
ADJOINT_INLINE void forEachVector(int64_t n, F f, G tail) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i);
  if constexpr (kLanes > 1) {
    if (i < n) tail(i, n - i);
  }
}

}  // namespace adjoint::cpu::ADJOINT_LEVEL
