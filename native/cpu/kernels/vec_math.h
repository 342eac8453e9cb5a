// Elementary functions of a Vec of floats, within a few units in the last place over the whole
// range, denormals, infinities and NaN included. Polynomials are minimax approximations (Remez
// exchange, 40 digits); arguments are reduced as in Cody & Waite, "Software Manual for the
// Elementary Functions" (1980). The scalar level uses the C library instead.
#pragma once
#include "cpu/kernels/vec.h"
#include "cpu/kernels/vec_trigonometric.h"

#if !defined(ADJOINT_LEVEL_SCALAR)

namespace adjoint::cpu::ADJOINT_LEVEL {

// x 2^n for x in [1/2, 2) and whole n in [-161, 161]. A product that is denormal would trap into
// microcode, at 30 times the time; as a multiple of 2^-149 its bits are that integer.
ADJOINT_INLINE Vec scaleByPower(Vec x, Vec n) {
  const Mask denormal = n <= Vec(-126);
  const Vec exponent = select(denormal, n + Vec(149), n);
#if defined(ADJOINT_LEVEL_AVX512)
  const Vec y(_mm512_maskz_scalef_ps(kAllLanes, x.v, exponent.v));
#else
  const Ints k = toInts(exponent), half = k >> 1;
  const Vec y = x * fromBits((half + 127) << 23) * fromBits((k - half + 127) << 23);
#endif
  return select(denormal, fromBits(toInts(roundEven(y))), y);
}

// ---------------------------------------------------------------- exponentials
constexpr float kLog2e = 1.44269504f;
constexpr float kLn2High = 0.693147182f, kLn2Low = -1.90465421e-9f;

// x = n ln 2 + r, |r| <= ln 2 / 2
ADJOINT_INLINE Vec reduceByLn2(Vec x, Vec& n) {
  n = roundEven(x * Vec(kLog2e));
  return subtractProduct(subtractProduct(x, n, Vec(kLn2High)), n, Vec(kLn2Low));
}

// e^r = 1 + r + r^2 q(r)
ADJOINT_INLINE Vec expNear0(Vec r) {
  const Vec q =
      polynomial(r, {0.49999994f, 0.166665196f, 0.0416684002f, 0.00836885069f, 0.00138143206f});
  return Vec(1) + (r + r * r * q);
}
// e^x = 2^n e^r
ADJOINT_INLINE Vec expOf(Vec x) {
  Vec n;
  const Vec r = reduceByLn2(clamp(x, -104.0f, 89.0f), n);
  return scaleByPower(expNear0(r), n);
}
// e^x for x <= 0, where 0 may stand for what is below the smallest normal number.
ADJOINT_INLINE Vec expOrZero(Vec x) {
  constexpr float kLowest = -87.3f;
  Vec n;
#if defined(ADJOINT_LEVEL_AVX512)
  const Vec y = expNear0(reduceByLn2(x, n));
  const __mmask16 isNormal = _mm512_cmp_ps_mask(x.v, Vec(kLowest).v, _CMP_NLT_UQ);
  return Vec(_mm512_maskz_scalef_ps(isNormal, y.v, n.v));
#else
  const Vec r = reduceByLn2(select(x < Vec(kLowest), Vec(kLowest), x), n);
  const Vec y = expNear0(r) * fromBits((toInts(n) + 127) << 23);
  return select(x < Vec(kLowest), Vec(0), y);
#endif
}

// 2^x = 2^n 2^r, 2^r = 1 + r q(r)
ADJOINT_INLINE Vec exp2Of(Vec x) {
  const Vec bounded = clamp(x, -151.0f, 129.0f);
  const Vec n = roundEven(bounded);
  const Vec r = bounded - n;
  const Vec q = polynomial(r, {0.693147182f, 0.240226477f, 0.0555033199f, 0.00961843878f,
                               0.00133990031f, 0.000153532586f});
  return scaleByPower(Vec(1) + r * q, n);
}

// e^x - 1 = 2 (t p + (t - 1/2)) with t = 2^(n-1), p = e^r - 1 = r + r^2 q(r)
ADJOINT_INLINE Vec expm1Of(Vec x) {
  Vec n;
  const Vec r = reduceByLn2(clamp(x, -20.0f, 89.0f), n);
  const Vec q = polynomial(
      r, {0.5f, 0.166666672f, 0.0416663513f, 0.0083332723f, 0.00139412063f, 0.000199144488f});
  const Vec p = r + r * r * q;
  const Vec t = fromBits((toInts(n) + 126) << 23);
  const Vec y = Vec(2) * (t * p + (t - Vec(0.5)));
  return select(n == Vec(0), select(x == Vec(0), x, p), y);
}

// ---------------------------------------------------------------- logarithms
// x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), for 0 < x < infinity
ADJOINT_INLINE Vec splitPower(Vec x, Vec& k) {
  const Mask denormal = x < Vec(0x1p-126f);
  const Ints i = bits(absolute(select(denormal, x * Vec(0x1p23f), x)));
  const Ints exponent = (i - 0x3f3504f3) >> 23;  // of sqrt(1/2)
  k = toFloats(exponent) - select(denormal, Vec(23), Vec(0));
  return fromBits(i - (exponent << 23)) - Vec(1);
}

// log(1 + f) - f = -f^2 / 2 + f^3 P(f)
ADJOINT_INLINE Vec logTail(Vec f) {
  const Vec p =
      polynomial(f, {0.333333135f, -0.250000089f, 0.200021237f, -0.166680053f, 0.142194524f,
                     -0.124053404f, 0.118886963f, -0.116775155f, 0.0674773082f});
  const Vec z = f * f;
  return f * z * p - Vec(0.5) * z;
}

// log at 0 is -inf, of negative numbers NaN, of inf and NaN themselves.
ADJOINT_INLINE Vec logEdges(Vec x, Vec y) {
  const Vec edge = select(x == Vec(0), Vec(-HUGE_VALF), select(x < Vec(0), Vec(NAN), x));
  return select((x > Vec(0)) & (x < Vec(HUGE_VALF)), y, edge);
}

ADJOINT_INLINE Vec logOf(Vec x) {
  Vec k;
  const Vec f = splitPower(x, k);
  const Vec y = f + (logTail(f) + k * Vec(kLn2Low));
  return logEdges(x, k * Vec(kLn2High) + y);
}

// log2(1 + f) = (f + tail) (1 + c), c = log2(e) - 1: the large part is not rounded by a product
ADJOINT_INLINE Vec log2Of(Vec x) {
  Vec k;
  const Vec f = splitPower(x, k);
  const Vec tail = logTail(f);
  const Vec c(0.442695051f);
  return logEdges(x, k + (f + (tail + (f * c + tail * c))));
}

// log10(x) = k log10(2) + (f + tail) log10(e), both constants in two parts
ADJOINT_INLINE Vec log10Of(Vec x) {
  Vec k;
  const Vec f = splitPower(x, k);
  const Vec tail = logTail(f);
  const Vec high(0.43359375f), low(0.000700731878f);
  const Vec small = k * Vec(-1.43209888e-8f) + (f + tail) * low + tail * high;
  return logEdges(x, k * Vec(0.30103001f) + (small + f * high));
}

// log(1 + x) = log(u) + (x - (u - 1)) / u with u = 1 + x rounded
ADJOINT_INLINE Vec log1pOf(Vec x) {
  const Vec u = Vec(1) + x;
  const Vec lost = x - (u - Vec(1));
  const Vec y = logOf(u) + lost / u;
  return select((x > Vec(-1)) & (x < Vec(HUGE_VALF)), select(x == Vec(0), x, y), logOf(u));
}

// ---------------------------------------------------------------- hyperbolic
// tanh a = -e / (e + 2), e = expm1(-2a)
ADJOINT_INLINE Vec tanhOf(Vec x) {
  const Vec e = expm1Of(Vec(-2) * absolute(x));
  return copySign(e / (e + Vec(2)), x);
}

// e^a / 2 for a that overflow e^a
ADJOINT_INLINE Vec halfExp(Vec a) {
  const Vec root = expOf(Vec(0.5) * a);
  return Vec(0.5) * root * root;
}
// sinh a = (e + e / (e + 1)) / 2, e = expm1(a)
ADJOINT_INLINE Vec sinhOf(Vec x) {
  const Vec a = absolute(x);
  const Vec e = expm1Of(a);
  const Vec y = Vec(0.5) * (e + e / (e + Vec(1)));
  return copySign(select(a > Vec(88), halfExp(a), y), x);
}
ADJOINT_INLINE Vec coshOf(Vec x) {
  const Vec a = absolute(x);
  const Vec e = expOf(a);
  return select(a > Vec(88), halfExp(a), Vec(0.5) * e + Vec(0.5) / e);
}

constexpr float kLn2 = 0.693147182f;
// asinh a = log(1 + a + a^2 / (1 + sqrt(1 + a^2))), log(2a) where a is large
ADJOINT_INLINE Vec asinhOf(Vec x) {
  const Vec a = absolute(x);
  const Vec z = a * a;
  const Vec y = log1pOf(a + z / (Vec(1) + squareRoot(Vec(1) + z)));
  return copySign(select(a > Vec(0x1p13f), logOf(a) + Vec(kLn2), y), x);
}
// acosh x = log(1 + t + sqrt(t (t + 2))), t = x - 1
ADJOINT_INLINE Vec acoshOf(Vec x) {
  const Vec t = x - Vec(1);
  const Vec y = log1pOf(t + squareRoot(t * (t + Vec(2))));
  return select(x > Vec(0x1p13f), logOf(x) + Vec(kLn2), select(x < Vec(1), Vec(NAN), y));
}
// atanh a = log(1 + 2a / (1 - a)) / 2
ADJOINT_INLINE Vec atanhOf(Vec x) {
  const Vec a = absolute(x);
  return copySign(Vec(0.5) * log1pOf((a + a) / (Vec(1) - a)), x);
}

// ---------------------------------------------------------------- the error function
// (1 + 2a) e^(a^2) erfc(a) for a >= 0, a polynomial in (a - 2) / (a + 2): the form of Shepherd &
// Laframboise, Math. Comp. 36 (1981).
ADJOINT_INLINE Vec scaledErfc(Vec a) {
  const Vec t = (a - Vec(2)) / (a + Vec(2));
  return polynomial(
      t, {1.27697837f, -0.0927639902f, -0.166031495f, 0.164055496f, -0.0542034656f, -0.00806039944f,
          0.00862850994f, 0.00131307589f, -0.00122609118f, -0.000398324541f});
}
// erfc(a) for a >= 0. e^(-a^2) takes the square with its rounding error.
ADJOINT_INLINE Vec erfcPositive(Vec a) {
  const Vec bounded = select(a > Vec(10.2f), Vec(10.2f), a);
  const Vec square = bounded * bounded;
  const Vec lost = fusedMultiplySubtract(bounded, bounded, square);
  const Vec e = expOf(-square);
  return (e - e * lost) * (scaledErfc(bounded) / (Vec(1) + (bounded + bounded)));
}
ADJOINT_INLINE Vec erfcOf(Vec x) {
  const Vec c = erfcPositive(absolute(x));
  return select(x < Vec(0), Vec(2) - c, c);
}
ADJOINT_INLINE Vec erfOf(Vec x) {
  const Vec a = absolute(x);
  const Vec p = polynomial(x * x, {1.12837911f, -0.376126021f, 0.112831131f, -0.0268208068f,
                                   0.00508513069f, -0.000653523661f});
  return select(a < Vec(0.8f), x * p, copySign(Vec(1) - erfcPositive(a), x));
}
// Phi(x) = erfc(-x / sqrt(2)) / 2, where the rounding of x / sqrt(2) must not reach e^(-x^2 / 2).
ADJOINT_INLINE Vec normalCdfOf(Vec x) {
  const Vec a = absolute(x);
  const Vec bounded = select(a > Vec(14.5f), Vec(14.5f), a);
  const Vec square = bounded * bounded;
  const Vec lost = fusedMultiplySubtract(bounded, bounded, square);
  const Vec e = expOf(Vec(-0.5) * square);
  const Vec w = bounded * Vec(0.707106781f);
  const Vec tail = (e - e * (Vec(0.5) * lost)) * (scaledErfc(w) / (Vec(2) + Vec(4) * w));
  return select(x > Vec(0), Vec(1) - tail, tail);
}

// ---------------------------------------------------------------- powers
typedef float HalfFloats __attribute__((vector_size(kLanes * 2)));
typedef double Doubles __attribute__((vector_size(kLanes * 4)));

template <int n>
ADJOINT_INLINE Doubles polynomial(Doubles x, const double (&c)[n]) {
  Doubles y = Doubles{} + c[n - 1];
  for (int i = n - 2; i >= 0; i--) y = y * x + c[i];
  return y;
}
struct PowerOf2 {
  HalfFloats mantissa, exponent;
};
// (2^k (1 + f))^y = 2^(y (k + log2(1 + f))) in double precision, for |y log2 x| amplifies errors;
// log2(1 + f) = s A(s^2), s = f / (2 + f), the series of 2 atanh(s) / ln 2.
ADJOINT_INLINE PowerOf2 powerOf(HalfFloats k, HalfFloats f, HalfFloats y) {
  const Doubles fd = __builtin_convertvector(f, Doubles);
  const Doubles s = fd / (fd + 2.0);
  const Doubles l =
      __builtin_convertvector(k, Doubles) +
      s * polynomial(s * s, {2.8853900817778491, 0.96179669411521995, 0.57707794177096416,
                             0.41220931682882306, 0.3199028857228855, 0.28294255313373706});
  Doubles t = l * __builtin_convertvector(y, Doubles);
  t = t > 160.0 ? Doubles{} + 160.0 : t;
  t = t < -160.0 ? Doubles{} - 160.0 : t;
  constexpr double kRounder = 0x1.8p52;  // adding it rounds to a whole number
  const Doubles n = (t + kRounder) - kRounder;
  const Doubles p =
      polynomial(t - n, {0.99999999996162148, 0.69314718072871551, 0.24022651198755204,
                         0.055504103528344104, 0.0096180271726855476, 0.0013333922854083023,
                         0.00015469317332108271, 1.5201901408882862e-05});
  return {__builtin_convertvector(p, HalfFloats), __builtin_convertvector(n, HalfFloats)};
}

ADJOINT_INLINE Vec powOf(Vec x, Vec y) {
  const Vec a = absolute(x);
  const Vec infinity(HUGE_VALF);
  Vec k;
  const Vec f = splitPower(a, k);
  k = select(a == Vec(0), -infinity, select(a < infinity, k, a));
  HalfFloats ks[2], fs[2], ys[2], mantissa[2], exponent[2];
  memcpy(ks, &k.v, sizeof ks);
  memcpy(fs, &f.v, sizeof fs);
  memcpy(ys, &y.v, sizeof ys);
  for (int i = 0; i < 2; i++) {
    const PowerOf2 p = powerOf(ks[i], fs[i], ys[i]);
    mantissa[i] = p.mantissa;
    exponent[i] = p.exponent;
  }
  Vec m, n;
  memcpy(&m.v, mantissa, sizeof mantissa);
  memcpy(&n.v, exponent, sizeof exponent);
  const Vec r = scaleByPower(m, n);

  const Mask whole = roundEven(y) == y;
  const Vec half = Vec(0.5) * y;
  const Mask odd = whole & (roundEven(half) != half);
  const Mask negative = {bits(x) < 0};
  const Vec withSign = select(negative & odd, -r, r);
  const Mask noRoot = (x < Vec(0)) & (a < infinity) & (roundEven(y) != y);
  const Mask one = (x == Vec(1)) | (y == Vec(0)) | ((a == Vec(1)) & (absolute(y) == infinity));
  return select(one, Vec(1), select(noRoot, Vec(NAN), withSign));
}

// sqrt(a^2 + b^2) = m sqrt(1 + (l / m)^2): neither overflows nor underflows
ADJOINT_INLINE Vec hypotOf(Vec x, Vec y) {
  const Vec a = absolute(x), b = absolute(y);
  const Vec large = select(b > a, b, a), small = select(b > a, a, b);
  const Vec t = small / large;
  const Vec r = select(large == Vec(0), large, large * squareRoot(Vec(1) + t * t));
  const Mask infinite = (a == Vec(HUGE_VALF)) | (b == Vec(HUGE_VALF));
  return select(infinite, Vec(HUGE_VALF), select((a != a) | (b != b), x + y, r));
}

}  // namespace adjoint::cpu::ADJOINT_LEVEL

namespace adjoint {

template <>
struct Math<cpu::ADJOINT_LEVEL::Vec> {
  using Vec = cpu::ADJOINT_LEVEL::Vec;
#define ADJOINT_FUNCTION(name, implementation)    \
  static ADJOINT_INLINE Vec name(Vec x) {         \
    return cpu::ADJOINT_LEVEL::implementation(x); \
  }
#define ADJOINT_FUNCTION2(name, implementation)      \
  static ADJOINT_INLINE Vec name(Vec a, Vec b) {     \
    return cpu::ADJOINT_LEVEL::implementation(a, b); \
  }
  ADJOINT_FUNCTION(abs, absolute)
  ADJOINT_FUNCTION(sqrt, squareRoot)
  ADJOINT_FUNCTION(floor, roundDown)
  ADJOINT_FUNCTION(ceil, roundUp)
  ADJOINT_FUNCTION(trunc, roundToZero)
  ADJOINT_FUNCTION(rint, roundEven)
  ADJOINT_FUNCTION(exp, expOf)
  ADJOINT_FUNCTION(exp2, exp2Of)
  ADJOINT_FUNCTION(expm1, expm1Of)
  ADJOINT_FUNCTION(log, logOf)
  ADJOINT_FUNCTION(log2, log2Of)
  ADJOINT_FUNCTION(log10, log10Of)
  ADJOINT_FUNCTION(log1p, log1pOf)
  ADJOINT_FUNCTION(sin, sinOf)
  ADJOINT_FUNCTION(cos, cosOf)
  ADJOINT_FUNCTION(tan, tanOf)
  ADJOINT_FUNCTION(asin, asinOf)
  ADJOINT_FUNCTION(acos, acosOf)
  ADJOINT_FUNCTION(atan, atanOf)
  ADJOINT_FUNCTION(sinh, sinhOf)
  ADJOINT_FUNCTION(cosh, coshOf)
  ADJOINT_FUNCTION(tanh, tanhOf)
  ADJOINT_FUNCTION(asinh, asinhOf)
  ADJOINT_FUNCTION(acosh, acoshOf)
  ADJOINT_FUNCTION(atanh, atanhOf)
  ADJOINT_FUNCTION(erf, erfOf)
  ADJOINT_FUNCTION(erfc, erfcOf)
  ADJOINT_FUNCTION(normalCdf, normalCdfOf)
  ADJOINT_FUNCTION2(pow, powOf)
  ADJOINT_FUNCTION2(atan2, atan2Of)
  ADJOINT_FUNCTION2(hypot, hypotOf)
  ADJOINT_FUNCTION2(copysign, copySign)
#undef ADJOINT_FUNCTION
#undef ADJOINT_FUNCTION2
  // Exact in the C library, by a loop of its own for each lane.
  static ADJOINT_INLINE Vec fmod(Vec a, Vec b) {
    return cpu::ADJOINT_LEVEL::mapLanes(a, b, ::fmodf);
  }
};

}  // namespace adjoint

#endif
