// GELU of a Vec of floats and its slope, as overloads of the general forms in shared/functors.h:
// near 0, where nearly all arguments are, with one exponential and one division.
#pragma once
#include "cpu/kernels/vec_math.h"
#include "shared/normal.h"

#if !defined(ADJOINT_LEVEL_SCALAR)

namespace adjoint::cpu::ADJOINT_LEVEL {

struct Gaussian {
  Vec density;  // e^(-a^2 / 2)
  Vec tail;     // Phi(-a)
};
struct PolynomialAt {
  Vec u;
  template <int n>
  ADJOINT_INLINE Vec operator()(const float (&c)[n]) const {
    return polynomial(u, c);
  }
};
// For 0 <= a <= kNormalNear, with one division.
// density = 2^n e^r, r = -a^2 / 2 - n ln 2: the square is never rounded by itself, and n times the
// high part of ln 2, of nine bits, is exact.
ADJOINT_INLINE Gaussian gaussianNear0(Vec a) {
  constexpr float kRounder = 0x1.8p23f;  // adding it rounds to a whole number, in the low bits
  const Vec half = Vec(-0.5f) * a;
  const Vec shifted = Vec(kLog2e) * half * a + Vec(kRounder);
  const Vec n = shifted - Vec(kRounder);
  const Vec r = fusedMultiplySubtract(half, a, n * Vec(0.693359375f)) + n * Vec(2.12194440e-4f);
  // Unsigned, since lanes beyond kNormalNear may overflow: nobody reads them.
  typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
  const Words exponent = reinterpret_cast<Words>(bits(shifted)) << 23;
  const Words scaled = reinterpret_cast<Words>(bits(expNear0(r))) + exponent;
  const Vec density = fromBits(reinterpret_cast<Ints>(scaled));
  const Vec u = Vec(1) / (a + Vec(2.5f));
  const Vec p = withNormalTail(PolynomialAt{u});
  return {density, density * (u * p)};
}

// max(x, 0) - |x| Phi(-|x|): nothing cancels
ADJOINT_INLINE Vec geluFrom(Vec x, Vec a, const Gaussian& g) {
  return select(x > Vec(0), x, Vec(0)) - a * g.tail;
}
// Phi(x) + x phi(x)
ADJOINT_INLINE Vec slopeFrom(Vec x, const Gaussian& g) {
  const Vec cdf = select(x > Vec(0), Vec(1) - g.tail, g.tail);
  return cdf + x * (g.density * Vec(0.398942280f));
}

ADJOINT_INLINE Vec geluOf(Vec x) {
  const Vec a = absolute(x);
  const Mask far = a > Vec(kNormalNear);
  const Vec y = geluFrom(x, a, gaussianNear0(a));
  return any(far) ? select(far, adjoint::geluOf<Vec>(x), y) : y;
}

ADJOINT_INLINE Vec geluSlope(Vec x) {
  const Vec a = absolute(x);
  const Mask far = a > Vec(kNormalNear);
  const Vec slope = slopeFrom(x, gaussianNear0(a));
  return any(far) ? select(far, adjoint::geluSlope<Vec>(x), slope) : slope;
}

// Both, for hardly more than one.
ADJOINT_INLINE Vec geluAndSlope(Vec x, Vec& slope) {
  const Vec a = absolute(x);
  const Mask far = a > Vec(kNormalNear);
  const Gaussian g = gaussianNear0(a);
  const Vec y = geluFrom(x, a, g);
  slope = slopeFrom(x, g);
  if (!any(far)) return y;
  slope = select(far, adjoint::geluSlope<Vec>(x), slope);
  return select(far, adjoint::geluOf<Vec>(x), y);
}

}  // namespace adjoint::cpu::ADJOINT_LEVEL

#endif
