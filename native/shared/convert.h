// Conversion between the stored element types and the types that kernels compute in.
//   float -> int   truncates, saturates at the ends of the range, NaN -> 0
//   int -> int     wraps around
//   any -> bool    x != 0 (NaN is true)
//   float -> half  rounds to nearest even, NaN stays NaN
#pragma once
#include <string.h>

#include <cstdint>
#include <limits>
#include <type_traits>

#include "shared/dtype.h"
#include "shared/error.h"
#include "shared/host_device.h"
#include "shared/view.h"

namespace adjoint {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};
// A byte; `bool` itself would make a byte other than 0 and 1 undefined behaviour.
struct Boolean {
  uint8_t value;
};

template <class To, class From>
ADJOINT_INLINE To bitCast(From x) {
  static_assert(sizeof(To) == sizeof(From), "bitCast: sizes differ");
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}

ADJOINT_INLINE float toFloat(BFloat16 x) {
  return bitCast<float>(static_cast<uint32_t>(x.bits) << 16);
}

// In CUDA kernels the conversions that round, and those of float16, are the processor's.
ADJOINT_INLINE BFloat16 toBFloat16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  BFloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  const uint32_t u = bitCast<uint32_t>(x);
  const uint32_t rounded = u + 0x7fff + ((u >> 16) & 1);  // half to even; may carry into infinity
  const uint32_t quiet = u | 0x400000;                    // a NaN whose payload is cut stays a NaN
  return {static_cast<uint16_t>((x != x ? quiet : rounded) >> 16)};
#endif
}

// Moves the fields in place and rescales by 2^(127 - 15): exact, for denormals too.
ADJOINT_INLINE float toFloat(Float16 x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#else
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  const uint32_t scaled = bitCast<uint32_t>(bitCast<float>(magnitude) * 0x1p112f);
  const bool special = magnitude >= 0x0f800000;  // infinity and NaN
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  return bitCast<float>(sign | (special ? magnitude | 0x7f800000 : scaled));
#endif
}

ADJOINT_INLINE Float16 toFloat16(float x) {
#if defined(__CUDA_ARCH__)
  Float16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  const uint32_t u = bitCast<uint32_t>(x);
  const uint32_t a = u & 0x7fffffff;
  const uint32_t sign = (u >> 16) & 0x8000;
  // normal: rebias the exponent and round the 13 bits that go; 65520 and up carry into infinity
  const uint32_t normal = (a - (112u << 23) + 0xfff + ((a >> 13) & 1)) >> 13;
  // denormal: adding 0.5 moves the unit of the last place to 2^-24, the addition rounds
  const uint32_t denormal = bitCast<uint32_t>(bitCast<float>(a) + 0.5f) - 0x3f000000;
  const uint32_t special = a > 0x7f800000 ? 0x7e00 | ((a >> 13) & 0x3ff) : 0x7c00;
  const uint32_t magnitude = a >= 0x47800000 ? special : a < 0x38800000 ? denormal : normal;
  return {static_cast<uint16_t>(sign | magnitude)};
#endif
}

// To is a signed or unsigned integer, From is float or double. The bounds are powers of two, so
// they are exact in From.
template <class To, class From>
ADJOINT_INLINE To saturate(From x) {
  constexpr int bits = std::numeric_limits<To>::digits;
  const From high = static_cast<From>(static_cast<uint64_t>(1) << (bits - 1)) * From(2);
  const From low = std::is_signed<To>::value ? -high : From(0);
  return x >= high  ? std::numeric_limits<To>::max()
         : x <= low ? std::numeric_limits<To>::min()
         : x != x   ? To(0)
                    : static_cast<To>(x);
}

template <class To, class From>
ADJOINT_INLINE To convert(From x) {
  if constexpr (std::is_same<To, From>::value) {
    return x;
  } else if constexpr (std::is_same<From, BFloat16>::value || std::is_same<From, Float16>::value) {
    return convert<To>(toFloat(x));
  } else if constexpr (std::is_same<From, Boolean>::value) {
    return convert<To>(static_cast<int64_t>(x.value != 0));
  } else if constexpr (std::is_same<To, Boolean>::value) {
    return {static_cast<uint8_t>(x != From(0))};
  } else if constexpr (std::is_same<To, BFloat16>::value) {
    return toBFloat16(static_cast<float>(x));
  } else if constexpr (std::is_same<To, Float16>::value) {
    return toFloat16(static_cast<float>(x));
  } else if constexpr (std::is_integral<To>::value && std::is_floating_point<From>::value) {
    return saturate<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

template <class T>
struct TypeTag {
  using type = T;
};

// Calls f(TypeTag<S>) with the stored type S of a dtype.
template <class F>
inline void visitDType(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float32:
      return f(TypeTag<float>());
    case DType::float64:
      return f(TypeTag<double>());
    case DType::bfloat16:
      return f(TypeTag<BFloat16>());
    case DType::float16:
      return f(TypeTag<Float16>());
    case DType::int64:
      return f(TypeTag<int64_t>());
    case DType::int32:
      return f(TypeTag<int32_t>());
    case DType::int16:
      return f(TypeTag<int16_t>());
    case DType::int8:
      return f(TypeTag<int8_t>());
    case DType::uint8:
      return f(TypeTag<uint8_t>());
    case DType::boolean:
      return f(TypeTag<Boolean>());
    default:
      fail(ErrorKind::dtype, "kernel: expected a dtype that tensors may have, got %s",
           dtypeName(dtype));
  }
}

// Calls f(TypeTag<T>) with the type that a kernel computes in.
template <class F>
inline void visitCompute(Compute compute, F&& f) {
  switch (compute) {
    case Compute::f32:
      return f(TypeTag<float>());
    case Compute::f64:
      return f(TypeTag<double>());
    case Compute::i64:
      return f(TypeTag<int64_t>());
  }
}

template <class T>
ADJOINT_INLINE T scalarAs(const Scalar& s) {
  return s.dtype == DType::int64 ? convert<T>(s.i) : convert<T>(s.f);
}

// Writes a number as one element of `dtype` at p (host memory).
inline void storeScalar(void* p, DType dtype, const Scalar& s) {
  visitDType(dtype, [&](auto tag) {
    const auto x = scalarAs<typename decltype(tag)::type>(s);
    memcpy(p, &x, sizeof x);
  });
}

}  // namespace adjoint
