// The formula of every elementwise operation, written once for all backends: T is float, double,
// int64_t, or a SIMD vector of floats that brings its own Math<T>, comparisons and select().
// Results of predicates are 0 and 1. Meaning follows PyTorch.
#pragma once
#include <math.h>

#include <cstdint>
#include <limits>
#include <type_traits>

#include "shared/dtype.h"
#include "shared/host_device.h"
#include "shared/normal.h"
#include "shared/opcodes.h"

namespace adjoint {

// ---------------------------------------------------------------- elementary functions
template <class T>
struct Math;

// clang-format moves this list at every run.
// clang-format off
#define ADJOINT_LIBM(X)                                                                           \
  X(sqrt) X(exp) X(exp2) X(expm1) X(log) X(log2) X(log10) X(log1p) X(sin) X(cos) X(tan) X(asin)   \
  X(acos) X(atan) X(sinh) X(cosh) X(tanh) X(asinh) X(acosh) X(atanh) X(erf) X(erfc) X(floor)      \
  X(ceil) X(trunc) X(rint)
// clang-format on

template <>
struct Math<float> {
#define ADJOINT_FUNCTION(name)                \
  static ADJOINT_INLINE float name(float x) { \
    return ::name##f(x);                      \
  }
  ADJOINT_LIBM(ADJOINT_FUNCTION)
#undef ADJOINT_FUNCTION
  static ADJOINT_INLINE float abs(float x) {
    return ::fabsf(x);
  }
  static ADJOINT_INLINE float pow(float a, float b) {
    return ::powf(a, b);
  }
  static ADJOINT_INLINE float fmod(float a, float b) {
    return ::fmodf(a, b);
  }
  static ADJOINT_INLINE float atan2(float a, float b) {
    return ::atan2f(a, b);
  }
  static ADJOINT_INLINE float hypot(float a, float b) {
    return ::hypotf(a, b);
  }
  static ADJOINT_INLINE float copysign(float a, float b) {
    return ::copysignf(a, b);
  }
  static ADJOINT_INLINE float normalCdf(float x) {
    return adjoint::normalCdf(x);
  }
};

template <>
struct Math<double> {
#define ADJOINT_FUNCTION(name)                  \
  static ADJOINT_INLINE double name(double x) { \
    return ::name(x);                           \
  }
  ADJOINT_LIBM(ADJOINT_FUNCTION)
#undef ADJOINT_FUNCTION
  static ADJOINT_INLINE double abs(double x) {
    return ::fabs(x);
  }
  static ADJOINT_INLINE double pow(double a, double b) {
    return ::pow(a, b);
  }
  static ADJOINT_INLINE double fmod(double a, double b) {
    return ::fmod(a, b);
  }
  static ADJOINT_INLINE double atan2(double a, double b) {
    return ::atan2(a, b);
  }
  static ADJOINT_INLINE double hypot(double a, double b) {
    return ::hypot(a, b);
  }
  static ADJOINT_INLINE double copysign(double a, double b) {
    return ::copysign(a, b);
  }
  static ADJOINT_INLINE double normalCdf(double x) {
    return adjoint::normalCdf(x);
  }
};
#undef ADJOINT_LIBM

template <class T>
ADJOINT_INLINE T select(bool condition, T a, T b) {
  return condition ? a : b;
}

// ---------------------------------------------------------------- arithmetic
// Integers wrap around, in unsigned arithmetic, where overflow is defined.
template <class T>
ADJOINT_INLINE T plus(T a, T b) {
  return a + b;
}
template <class T>
ADJOINT_INLINE T minus(T a, T b) {
  return a - b;
}
template <class T>
ADJOINT_INLINE T times(T a, T b) {
  return a * b;
}
template <class T>
ADJOINT_INLINE T negative(T x) {
  return -x;
}
ADJOINT_INLINE int64_t plus(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
ADJOINT_INLINE int64_t minus(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}
ADJOINT_INLINE int64_t times(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
ADJOINT_INLINE int64_t negative(int64_t x) {
  return minus(static_cast<int64_t>(0), x);
}

// ---------------------------------------------------------------- pieces of formulas
// maximum and minimum of a NaN and a number are NaN.
template <class T>
ADJOINT_INLINE T maximumOf(T a, T b) {
  return select((a > b) | (a != a), a, b);
}
template <class T>
ADJOINT_INLINE T minimumOf(T a, T b) {
  return select((a < b) | (a != a), a, b);
}

ADJOINT_INLINE int64_t maximumOf(int64_t a, int64_t b) {
  return a > b ? a : b;
}
ADJOINT_INLINE int64_t minimumOf(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// 1 / (1 + e^-x), with the exponential of -|x|, which cannot overflow.
template <class T>
ADJOINT_INLINE T sigmoidOf(T x) {
  const T z = Math<T>::exp(-Math<T>::abs(x));
  return select(x >= T(0), T(1), z) / (T(1) + z);
}

// x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3); equals x (1 + tanh u) / 2 without cancelling.
template <class T>
ADJOINT_INLINE T geluTanhArgument(T x) {
  return T(1.5957691216057308) * x * (T(1) + T(0.044715) * x * x);
}

// d/dx x s(v(x)) = s + x s (1 - s) v'
template <class T>
ADJOINT_INLINE T geluTanhSlope(T x) {
  const T s = sigmoidOf(geluTanhArgument(x));
  const T dv = T(1.5957691216057308) * (T(1) + T(0.134145) * x * x);
  // Where s (1 - s) has underflowed, x dv may be infinite: the product is 0.
  const T d = s * (T(1) - s);
  return s + select(d == T(0), T(0), x * d * dv);
}

// x Phi(x); vectors bring a faster form of this and of its slope.
template <class T>
ADJOINT_INLINE T geluOf(T x) {
  return x * Math<T>::normalCdf(x);
}

// d/dx x Phi(x) = Phi(x) + x phi(x), phi(x) = e^(-x^2/2) / sqrt(2 pi)
template <class T>
ADJOINT_INLINE T geluSlope(T x) {
  const T density = T(0.39894228040143268) * Math<T>::exp(T(-0.5) * x * x);
  return Math<T>::normalCdf(x) + select(density == T(0), T(0), x * density);
}

// d/dx x s(x) = s (1 + x (1 - s))
template <class T>
ADJOINT_INLINE T siluSlope(T x) {
  const T s = sigmoidOf(x);
  return select(s == T(0), T(0), s * (T(1) + x * (T(1) - s)));
}

// The remainder with the sign of the divisor: a - b floor(a / b), from the exact fmod.
template <class T>
ADJOINT_INLINE T remainderOf(T a, T b) {
  const T r = Math<T>::fmod(a, b);
  return select((r != T(0)) & ((r < T(0)) != (b < T(0))), r + b, r);
}

// floor(a / b) as Python does it: (a - remainder) / b is within rounding of an integer.
template <class T>
ADJOINT_INLINE T floorDivideOf(T a, T b) {
  const T r = Math<T>::fmod(a, b);
  const T quotient = (a - r) / b;
  const T down = select((r != T(0)) & ((r < T(0)) != (b < T(0))), quotient - T(1), quotient);
  const T whole = Math<T>::floor(down);
  const T nearest = select(down - whole > T(0.5), whole + T(1), whole);
  return select(b == T(0), a / b, select(down == T(0), Math<T>::copysign(T(0), a / b), nearest));
}

// ---- integers. Division by zero is refused before a kernel starts; 0 stands for it here, and
// division by -1 is negation, so that nothing traps.
ADJOINT_INLINE int64_t fmodOf(int64_t a, int64_t b) {
  return b == 0 || b == -1 ? 0 : a % b;
}
ADJOINT_INLINE int64_t remainderOf(int64_t a, int64_t b) {
  const int64_t r = fmodOf(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
ADJOINT_INLINE int64_t floorDivideOf(int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return negative(a);
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

// By squaring. A negative exponent gives the integer part of 1 / a^|b|.
ADJOINT_INLINE int64_t powOf(int64_t a, int64_t b) {
  if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
  int64_t y = 1;
  for (; b != 0; b >>= 1) {
    if (b & 1) y = times(y, a);
    a = times(a, a);
  }
  return y;
}

// A shift by less than 0 or more than 63 bits moves every bit out.
ADJOINT_INLINE int64_t shiftLeftOf(int64_t a, int64_t b) {
  return b < 0 || b > 63 ? 0 : static_cast<int64_t>(static_cast<uint64_t>(a) << b);
}
ADJOINT_INLINE int64_t shiftRightOf(int64_t a, int64_t b) {
  return a >> (b < 0 || b > 63 ? 63 : b);
}

// ---------------------------------------------------------------- the operations
// Unary<op>()(x) and Binary<op>()(a, b). Those without a formula for a type of computation have
// no instance for it: see isDefined below.
template <UnaryOp op>
struct Unary;
template <BinaryOp op>
struct Binary;

#define ADJOINT_UNARY(name, formula)         \
  template <>                                \
  struct Unary<UnaryOp::name> {              \
    template <class T>                       \
    ADJOINT_INLINE T operator()(T x) const { \
      using M [[maybe_unused]] = Math<T>;    \
      return formula;                        \
    }                                        \
  };
#define ADJOINT_BINARY(name, formula)             \
  template <>                                     \
  struct Binary<BinaryOp::name> {                 \
    template <class T>                            \
    ADJOINT_INLINE T operator()(T a, T b) const { \
      using M [[maybe_unused]] = Math<T>;         \
      return formula;                             \
    }                                             \
  };
#define ADJOINT_TRUTH(condition) select(condition, T(1), T(0))
// Real types take the first formula, integers the second.
#define ADJOINT_UNARY_REAL_OR_INT(name, real, integer) \
  template <>                                          \
  struct Unary<UnaryOp::name> {                        \
    template <class T>                                 \
    ADJOINT_INLINE T operator()(T x) const {           \
      using M [[maybe_unused]] = Math<T>;              \
      if constexpr (std::is_integral<T>::value)        \
        return integer;                                \
      else                                             \
        return real;                                   \
    }                                                  \
  };
#define ADJOINT_BINARY_REAL_OR_INT(name, real, integer) \
  template <>                                           \
  struct Binary<BinaryOp::name> {                       \
    template <class T>                                  \
    ADJOINT_INLINE T operator()(T a, T b) const {       \
      using M [[maybe_unused]] = Math<T>;               \
      if constexpr (std::is_integral<T>::value)         \
        return integer;                                 \
      else                                              \
        return real;                                    \
    }                                                   \
  };

ADJOINT_UNARY(neg, negative(x))
ADJOINT_UNARY_REAL_OR_INT(abs, M::abs(x), select(x < T(0), negative(x), x))
ADJOINT_UNARY(sign, select(x > T(0), T(1), select(x < T(0), T(-1), T(0))))
ADJOINT_UNARY(square, times(x, x))
ADJOINT_UNARY(sqrt, M::sqrt(x))
ADJOINT_UNARY(rsqrt, T(1) / M::sqrt(x))
ADJOINT_UNARY(reciprocal, T(1) / x)
ADJOINT_UNARY(exp, M::exp(x))
ADJOINT_UNARY(exp2, M::exp2(x))
ADJOINT_UNARY(expm1, M::expm1(x))
ADJOINT_UNARY(log, M::log(x))
ADJOINT_UNARY(log2, M::log2(x))
ADJOINT_UNARY(log10, M::log10(x))
ADJOINT_UNARY(log1p, M::log1p(x))
ADJOINT_UNARY(sin, M::sin(x))
ADJOINT_UNARY(cos, M::cos(x))
ADJOINT_UNARY(tan, M::tan(x))
ADJOINT_UNARY(asin, M::asin(x))
ADJOINT_UNARY(acos, M::acos(x))
ADJOINT_UNARY(atan, M::atan(x))
ADJOINT_UNARY(sinh, M::sinh(x))
ADJOINT_UNARY(cosh, M::cosh(x))
ADJOINT_UNARY(tanh, M::tanh(x))
ADJOINT_UNARY(asinh, M::asinh(x))
ADJOINT_UNARY(acosh, M::acosh(x))
ADJOINT_UNARY(atanh, M::atanh(x))
ADJOINT_UNARY_REAL_OR_INT(floor, M::floor(x), x)
ADJOINT_UNARY_REAL_OR_INT(ceil, M::ceil(x), x)
ADJOINT_UNARY_REAL_OR_INT(round, M::rint(x), x)  // half to even
ADJOINT_UNARY_REAL_OR_INT(trunc, M::trunc(x), x)
ADJOINT_UNARY(erf, M::erf(x))
ADJOINT_UNARY(erfc, M::erfc(x))
ADJOINT_UNARY(sigmoid, sigmoidOf(x))
// log(1 + e^x), which is x itself beyond 20
ADJOINT_UNARY(softplus, select(x > T(20), x, M::log1p(M::exp(x))))
ADJOINT_UNARY(relu, select(x <= T(0), T(0), x))
ADJOINT_UNARY(gelu, geluOf(x))
ADJOINT_UNARY(geluTanh, x* sigmoidOf(geluTanhArgument(x)))
ADJOINT_UNARY(silu, x* sigmoidOf(x))
ADJOINT_UNARY(isnan, ADJOINT_TRUTH(x != x))
ADJOINT_UNARY_REAL_OR_INT(isinf, ADJOINT_TRUTH(M::abs(x) == T(HUGE_VALF)), T(0))
ADJOINT_UNARY_REAL_OR_INT(isfinite, ADJOINT_TRUTH(M::abs(x) < T(HUGE_VALF)), T(1))
ADJOINT_UNARY(logicalNot, ADJOINT_TRUTH(x == T(0)))
ADJOINT_UNARY(bitwiseNot, ~x)

ADJOINT_BINARY(add, plus(a, b))
ADJOINT_BINARY(sub, minus(a, b))
ADJOINT_BINARY(mul, times(a, b))
ADJOINT_BINARY(div, a / b)
ADJOINT_BINARY(floorDivide, floorDivideOf(a, b))
ADJOINT_BINARY(remainder, remainderOf(a, b))
ADJOINT_BINARY_REAL_OR_INT(fmod, M::fmod(a, b), fmodOf(a, b))
ADJOINT_BINARY_REAL_OR_INT(pow, M::pow(a, b), powOf(a, b))
ADJOINT_BINARY(atan2, M::atan2(a, b))
ADJOINT_BINARY(hypot, M::hypot(a, b))
ADJOINT_BINARY(maximum, maximumOf(a, b))
ADJOINT_BINARY(minimum, minimumOf(a, b))
ADJOINT_BINARY(eq, ADJOINT_TRUTH(a == b))
ADJOINT_BINARY(ne, ADJOINT_TRUTH(a != b))
ADJOINT_BINARY(lt, ADJOINT_TRUTH(a < b))
ADJOINT_BINARY(le, ADJOINT_TRUTH(a <= b))
ADJOINT_BINARY(gt, ADJOINT_TRUTH(a > b))
ADJOINT_BINARY(ge, ADJOINT_TRUTH(a >= b))
ADJOINT_BINARY(logicalAnd, ADJOINT_TRUTH((a != T(0)) & (b != T(0))))
ADJOINT_BINARY(logicalOr, ADJOINT_TRUTH((a != T(0)) | (b != T(0))))
ADJOINT_BINARY(logicalXor, ADJOINT_TRUTH((a != T(0)) != (b != T(0))))
ADJOINT_BINARY(bitwiseAnd, a& b)
ADJOINT_BINARY(bitwiseOr, a | b)
ADJOINT_BINARY(bitwiseXor, a ^ b)
ADJOINT_BINARY(shiftLeft, shiftLeftOf(a, b))
ADJOINT_BINARY(shiftRight, shiftRightOf(a, b))
// Derivatives: a is dy; b is y for relu, sigmoid and tanh, x for gelu and silu.
ADJOINT_BINARY(reluBackward, select(b <= T(0), T(0), a))
ADJOINT_BINARY(sigmoidBackward, a*(b*(T(1) - b)))
ADJOINT_BINARY(tanhBackward, a*(T(1) - b * b))
ADJOINT_BINARY(geluBackward, a* geluSlope(b))
ADJOINT_BINARY(geluTanhBackward, a* geluTanhSlope(b))
ADJOINT_BINARY(siluBackward, a* siluSlope(b))

#undef ADJOINT_UNARY
#undef ADJOINT_BINARY
#undef ADJOINT_UNARY_REAL_OR_INT
#undef ADJOINT_BINARY_REAL_OR_INT
#undef ADJOINT_TRUTH

// ---------------------------------------------------------------- which are defined
constexpr bool isDefined(UnaryOp op, Compute compute) {
  switch (op) {
    case UnaryOp::neg:
    case UnaryOp::abs:
    case UnaryOp::sign:
    case UnaryOp::square:
    case UnaryOp::floor:
    case UnaryOp::ceil:
    case UnaryOp::round:
    case UnaryOp::trunc:
    case UnaryOp::relu:
    case UnaryOp::isnan:
    case UnaryOp::isinf:
    case UnaryOp::isfinite:
    case UnaryOp::logicalNot:
      return true;
    case UnaryOp::bitwiseNot:
      return compute == Compute::i64;
    default:
      return compute != Compute::i64;
  }
}

constexpr bool isDefined(BinaryOp op, Compute compute) {
  switch (op) {
    case BinaryOp::bitwiseAnd:
    case BinaryOp::bitwiseOr:
    case BinaryOp::bitwiseXor:
    case BinaryOp::shiftLeft:
    case BinaryOp::shiftRight:
      return compute == Compute::i64;
    case BinaryOp::div:
    case BinaryOp::atan2:
    case BinaryOp::hypot:
    case BinaryOp::sigmoidBackward:
    case BinaryOp::tanhBackward:
    case BinaryOp::geluBackward:
    case BinaryOp::geluTanhBackward:
    case BinaryOp::siluBackward:
      return compute != Compute::i64;
    default:
      return true;
  }
}

#define ADJOINT_NAME(name) #name,
inline const char* opName(UnaryOp op) {
  static constexpr const char* names[] = {ADJOINT_UNARY_OPS(ADJOINT_NAME)};
  return names[static_cast<int>(op)];
}
inline const char* opName(BinaryOp op) {
  static constexpr const char* names[] = {ADJOINT_BINARY_OPS(ADJOINT_NAME)};
  return names[static_cast<int>(op)];
}
#undef ADJOINT_NAME

// The operation that an activation is, and its derivative: of y for relu, of what it was applied to
// for the others. Not of Activation::none.
constexpr UnaryOp unaryOf(Activation activation) {
  return activation == Activation::relu   ? UnaryOp::relu
         : activation == Activation::gelu ? UnaryOp::gelu
                                          : UnaryOp::geluTanh;
}
constexpr BinaryOp backwardOf(Activation activation) {
  return activation == Activation::relu   ? BinaryOp::reluBackward
         : activation == Activation::gelu ? BinaryOp::geluBackward
                                          : BinaryOp::geluTanhBackward;
}

// bool is computed in int64, where ~1 is -2, which is true: not is meant.
constexpr UnaryOp resolve(UnaryOp op, DType common) {
  return op == UnaryOp::bitwiseNot && common == DType::boolean ? UnaryOp::logicalNot : op;
}

}  // namespace adjoint
