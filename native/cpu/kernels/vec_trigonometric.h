// Trigonometric functions of a Vec of floats, and the small parts that vec_math.h builds on.
#pragma once
#include "cpu/kernels/vec.h"

#if !defined(ADJOINT_LEVEL_SCALAR)

namespace adjoint::cpu::ADJOINT_LEVEL {

// c[0] + c[1] x + c[2] x^2 + …
template <int n>
ADJOINT_INLINE Vec polynomial(Vec x, const float (&c)[n]) {
  Vec y(c[n - 1]);
  for (int i = n - 2; i >= 0; i--) y = y * x + Vec(c[i]);
  return y;
}

constexpr int32_t kSignBit = INT32_MIN;
ADJOINT_INLINE Vec absolute(Vec x) {
  return fromBits(bits(x) & ~(Ints{} + kSignBit));
}
ADJOINT_INLINE Vec copySign(Vec magnitude, Vec sign) {
  return fromBits(bits(absolute(magnitude)) | (bits(sign) & (Ints{} + kSignBit)));
}
ADJOINT_INLINE Vec toFloats(Ints x) {
  return __builtin_convertvector(x, Floats);
}
ADJOINT_INLINE Ints toInts(Vec x) {
  return __builtin_convertvector(x.v, Ints);
}
// x within [low, high]; NaN stays.
ADJOINT_INLINE Vec clamp(Vec x, float low, float high) {
  return select(Vec(high) < x, Vec(high), select(Vec(low) > x, Vec(low), x));
}

// ---------------------------------------------------------------- trigonometric
// x = k pi/2 + r; pi/2 in three parts, so r is right to its last bits for |x| <= 65536.
constexpr float kReducible = 65536.0f;
ADJOINT_INLINE Vec reduceByHalfPi(Vec x, Ints& quadrant) {
  const Vec k = roundEven(x * Vec(0.636619772f));
  quadrant = toInts(k);
  const Vec r = subtractProduct(subtractProduct(x, k, Vec(1.57079637f)), k, Vec(-4.37113883e-8f));
  return subtractProduct(r, k, Vec(-1.71512451e-15f));
}
ADJOINT_INLINE Vec sinNear0(Vec r) {
  const Vec z = r * r;
  return r +
         r * z * polynomial(z, {-0.166666672f, 0.00833332911f, -0.000198392561f, 2.71756448e-06f});
}
ADJOINT_INLINE Vec cosNear0(Vec r) {
  const Vec z = r * r;
  const Vec p = polynomial(z, {0.0416666679f, -0.00138888834f, 2.47994358e-05f, -2.72033049e-07f});
  return Vec(1) - (Vec(0.5) * z - z * z * p);
}
// sin(r + quadrant pi/2)
ADJOINT_INLINE Vec sinInQuadrant(Vec r, Ints quadrant) {
  const Mask odd = {(quadrant & 1) != 0};
  const Vec y = select(odd, cosNear0(r), sinNear0(r));
  return fromBits(bits(y) ^ ((quadrant & 2) << 30));
}
ADJOINT_INLINE Vec sinOf(Vec x) {
  const Vec a = absolute(x);
  if (any(a > Vec(kReducible))) return mapLanes(x, ::sinf);
  Ints quadrant;
  const Vec r = reduceByHalfPi(a, quadrant);
  return fromBits(bits(sinInQuadrant(r, quadrant)) ^ (bits(x) & (Ints{} + kSignBit)));
}
ADJOINT_INLINE Vec cosOf(Vec x) {
  const Vec a = absolute(x);
  if (any(a > Vec(kReducible))) return mapLanes(x, ::cosf);
  Ints quadrant;
  const Vec r = reduceByHalfPi(a, quadrant);
  return sinInQuadrant(r, quadrant + 1);
}
ADJOINT_INLINE Vec tanOf(Vec x) {
  const Vec a = absolute(x);
  if (any(a > Vec(kReducible))) return mapLanes(x, ::tanf);
  Ints quadrant;
  const Vec r = reduceByHalfPi(a, quadrant);
  const Vec s = sinNear0(r), c = cosNear0(r);
  const Mask odd = {(quadrant & 1) != 0};
  const Vec y = select(odd, -c, s) / select(odd, s, c);
  return fromBits(bits(y) ^ (bits(x) & (Ints{} + kSignBit)));
}

constexpr float kHalfPi = 1.57079637f, kHalfPiLow = -4.37113883e-8f;
// asin s - s for s in [0, 1/2], z = s^2
ADJOINT_INLINE Vec asinTail(Vec s, Vec z) {
  return s * z *
         polynomial(z, {0.166666597f, 0.0750051215f, 0.0445154719f, 0.0318198241f, 0.0143937869f,
                        0.0375781842f});
}
// Beyond 1/2: asin a = pi/2 - 2 asin sqrt((1 - a) / 2)
ADJOINT_INLINE Vec asinOf(Vec x) {
  const Vec a = absolute(x);
  const Mask large = a > Vec(0.5);
  const Vec z = select(large, Vec(0.5) * (Vec(1) - a), a * a);
  const Vec s = select(large, squareRoot(z), a);
  const Vec tail = asinTail(s, z);
  const Vec far = (Vec(kHalfPi) - (s + s)) - (tail + tail - Vec(kHalfPiLow));
  return copySign(select(large, far, s + tail), x);
}
ADJOINT_INLINE Vec acosOf(Vec x) {
  const Vec a = absolute(x);
  const Mask large = a > Vec(0.5);
  const Vec z = select(large, Vec(0.5) * (Vec(1) - a), a * a);
  const Vec s = select(large, squareRoot(z), x);
  const Vec tail = asinTail(s, z);
  const Vec near1 = (s + s) + (tail + tail);
  const Vec nearMinus1 = (Vec(2 * kHalfPi) - (s + s)) - (tail + tail - Vec(2 * kHalfPiLow));
  const Vec middle = (Vec(kHalfPi) - s) - (tail - Vec(kHalfPiLow));
  return select(large, select(x > Vec(0), near1, nearMinus1), middle);
}

// atan t for t in [0, 1]
ADJOINT_INLINE Vec atanNear0(Vec t) {
  const Vec z = t * t;
  return t +
         t * z *
             polynomial(z, {-0.333332986f, 0.199985489f, -0.142642424f, 0.109521858f, -0.08403451f,
                            0.0579576008f, -0.0311778523f, 0.0109146088f, -0.00179362239f});
}
ADJOINT_INLINE Vec atanOf(Vec x) {
  const Vec a = absolute(x);
  const Mask large = a > Vec(1);
  const Vec p = atanNear0(select(large, Vec(1) / a, a));
  return copySign(select(large, Vec(kHalfPi) - (p - Vec(kHalfPiLow)), p), x);
}
ADJOINT_INLINE Vec atan2Of(Vec y, Vec x) {
  const Vec a = absolute(x), b = absolute(y);
  const Vec large = select(b > a, b, a), small = select(b > a, a, b);
  const Vec equal = select(large == Vec(0), Vec(0), Vec(1));
  const Vec p = atanNear0(select(large == small, equal, small / large));
  const Vec steep = select(b > a, Vec(kHalfPi) - (p - Vec(kHalfPiLow)), p);
  const Mask left = {bits(x) < 0};
  const Vec r = select(left, Vec(2 * kHalfPi) - (steep - Vec(2 * kHalfPiLow)), steep);
  return select((x != x) | (y != y), x + y, copySign(r, y));
}

}  // namespace adjoint::cpu::ADJOINT_LEVEL

#endif
