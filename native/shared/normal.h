// The distribution function of the normal distribution, Phi(x) = erfc(-x / sqrt(2)) / 2.
#pragma once
#include <math.h>

#include "shared/host_device.h"

namespace adjoint {

ADJOINT_INLINE double normalCdf(double x) {
  return 0.5 * ::erfc(x * -0.70710678118654752440);
}

constexpr float kNormalNear = 12.5f;
// Phi(-a) = e^(-a^2 / 2) u P(u), u = 1 / (a + 2.5), for 0 <= a <= kNormalNear: calls f with the
// coefficients of P, a minimax polynomial of relative error 3e-8, the constant first.
template <class F>
ADJOINT_INLINE auto withNormalTail(const F& f) {
  constexpr float p[] = {0.398944199f, 0.99744308f,  2.08524919f, 3.50852251f, -2.18472481f,
                         27.1149349f,  -222.060806f, 571.616516f, -661.97699f, 301.449127f};
  return f(p);
}

// u P(u) by Horner's rule.
struct NormalTail {
  float u;
  template <int N>
  ADJOINT_INLINE float operator()(const float (&c)[N]) const {
    float sum = c[N - 1];
    for (int i = N - 2; i >= 0; i--) sum = ::fmaf(sum, u, c[i]);
    return u * sum;
  }
};

// By one exponential and one division, where nearly all arguments are.
ADJOINT_INLINE float normalCdf(float x) {
  constexpr float kLog2e = 1.44269502f, kLog2eRest = 1.92596299e-8f, kLn2 = 0.693147182f;
  const float a = ::fabsf(x);
  if (!(a <= kNormalNear)) {
#if defined(__CUDA_ARCH__)
    return ::normcdff(x);
#else
    return static_cast<float>(normalCdf(static_cast<double>(x)));
#endif
  }
  // e^(-a^2 / 2) = 2^high (1 + rest ln 2): rounding the exponent would cost a^2 units of the last
  // place.
  const float half = -0.5f * a, square = half * a, high = square * kLog2e;
  const float rest =
      ::fmaf(square, kLog2e, -high) + ::fmaf(square, kLog2eRest, ::fmaf(half, a, -square) * kLog2e);
  const float power = ::exp2f(high), density = ::fmaf(power, rest * kLn2, power);
#if defined(__CUDA_ARCH__)
  const float u = ::__fdividef(1.0f, a + 2.5f);
#else
  const float u = 1.0f / (a + 2.5f);
#endif
  const float tail = density * withNormalTail(NormalTail{u});
  return x > 0.0f ? 1.0f - tail : tail;
}

}  // namespace adjoint
