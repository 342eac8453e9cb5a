// GELU of a Vec of floats and its slope, as overloads of the general forms in shared/functors.h:
// near 0, where nearly all arguments are, with one exponential and one division.
#pragma once
#include "cpu/kernels/vec_math.h"

#if !defined(ADJOINT_LEVEL_SCALAR)

namespace adjoint::cpu::ADJOINT_LEVEL {

constexpr float kNear0 = 12.5f;  // |x| to here; beyond it the general forms

struct Gaussian {
  Vec density;  // e^(-a^2 / 2)
  Vec tail;     // Phi(-a)
};
// For 0 <= a <= kNear0, with one division.
// density = 2^n e^r, r = -a^2 / 2 - n ln 2: the square is never rounded by itself, and n times the
// high part of ln 2, of nine bits, is exact.
// tail = density u P(u), u = 1 / (a + 4): a minimax polynomial (Remez exchange), error 2e-8.
ADJOINT_INLINE Gaussian gaussianNear0(Vec a) {
  constexpr float kRounder = 0x1.8p23f;  // adding it rounds to a whole number, in the low bits
  const Vec half = Vec(-0.5f) * a;
  const Vec shifted = Vec(kLog2e) * half * a + Vec(kRounder);
  const Vec n = shifted - Vec(kRounder);
  const Vec r = fusedMultiplySubtract(half, a, n * Vec(0.693359375f)) + n * Vec(2.12194440e-4f);
  const Vec density = fromBits(bits(expNear0(r)) + (bits(shifted) << 23));
  const Vec u = Vec(1) / (a + Vec(4));
  const Vec p = polynomial(u, {0.399018407f, 1.58996463f, 6.17203999f, 17.4032173f, 99.9211731f,
                               -26.7386417f, 826.263428f, 2352.15259f, -14773.9463f, 16187.8115f});
  return {density, density * (u * p)};
}

// max(x, 0) - |x| Phi(-|x|): nothing cancels
ADJOINT_INLINE Vec geluOf(Vec x) {
  const Vec a = absolute(x);
  if (any(a > Vec(kNear0))) return adjoint::geluOf<Vec>(x);
  return select(x > Vec(0), x, Vec(0)) - a * gaussianNear0(a).tail;
}

// Phi(x) + x phi(x)
ADJOINT_INLINE Vec geluSlope(Vec x) {
  const Vec a = absolute(x);
  if (any(a > Vec(kNear0))) return adjoint::geluSlope<Vec>(x);
  const Gaussian g = gaussianNear0(a);
  const Vec cdf = select(x > Vec(0), Vec(1) - g.tail, g.tail);
  return cdf + x * (g.density * Vec(0.398942280f));
}

}  // namespace adjoint::cpu::ADJOINT_LEVEL

#endif
