// Reading and writing elements of any dtype as the type that a kernel computes in. The switch on
// the dtype is the same for all threads, so it costs a few instructions and no divergence.
#pragma once
#include <cstdint>

#include "cuda/launch.h"
#include "shared/convert.h"
#include "shared/view.h"

namespace adjoint::cuda {

// How many neighbouring elements one thread takes at a time: 16 bytes of float32.
constexpr int kVector = 4;

// Four elements that move in one access of up to 16 bytes.
template <class S>
struct alignas(sizeof(S) * kVector < 16 ? sizeof(S) * kVector : 16) Pack {
  S value[kVector];
};

#define ADJOINT_FOR_DTYPE(dtype, ...) \
  switch (dtype) {                    \
    case DType::float32: {            \
      using S = float;                \
      __VA_ARGS__;                    \
      break;                          \
    }                                 \
    case DType::float64: {            \
      using S = double;               \
      __VA_ARGS__;                    \
      break;                          \
    }                                 \
    case DType::bfloat16: {           \
      using S = BFloat16;             \
      __VA_ARGS__;                    \
      break;                          \
    }                                 \
    case DType::float16: {            \
      using S = Float16;              \
      __VA_ARGS__;                    \
      break;                          \
    }                                 \
    case DType::int64: {              \
      using S = int64_t;              \
      __VA_ARGS__;                    \
      break;                          \
    }                                 \
    case DType::int32: {              \
      using S = int32_t;              \
      __VA_ARGS__;                    \
      break;                          \
    }                                 \
    case DType::int16: {              \
      using S = int16_t;              \
      __VA_ARGS__;                    \
      break;                          \
    }                                 \
    case DType::int8: {               \
      using S = int8_t;               \
      __VA_ARGS__;                    \
      break;                          \
    }                                 \
    case DType::uint8: {              \
      using S = uint8_t;              \
      __VA_ARGS__;                    \
      break;                          \
    }                                 \
    case DType::boolean: {            \
      using S = Boolean;              \
      __VA_ARGS__;                    \
      break;                          \
    }                                 \
    default:                          \
      break;                          \
  }

template <class C>
__device__ C loadAs(const void* data, DType dtype, int64_t i) {
  C value{};
  ADJOINT_FOR_DTYPE(dtype, value = convert<C>(static_cast<const S*>(data)[i]))
  return value;
}

template <class C>
__device__ void storeAs(void* data, DType dtype, int64_t i, C value) {
  ADJOINT_FOR_DTYPE(dtype, static_cast<S*>(data)[i] = convert<S>(value))
}

// A one-dimensional operand of any dtype and stride; none where data is nullptr.
struct StridedVector {
  void* data;
  DType dtype;
  int64_t stride;

  StridedVector() : data(nullptr), dtype(DType::float32), stride(0) {}
  explicit StridedVector(const View& v)
      : data(v.data), dtype(v.dtype), stride(v.ndim ? v.stride[0] : 0) {}
  explicit StridedVector(const View* v) : StridedVector(v ? StridedVector(*v) : StridedVector()) {}

  template <class C>
  __device__ C read(int64_t i) const {
    return loadAs<C>(data, dtype, i * stride);
  }
  template <class C>
  __device__ C readOr(int64_t i, C otherwise) const {
    return data ? read<C>(i) : otherwise;
  }
  template <class C>
  __device__ void write(int64_t i, C value) const {
    storeAs(data, dtype, i * stride, value);
  }
};

// Elements i .. i + 3 of dense, aligned data; i is a multiple of 4.
template <class C>
__device__ void loadVector(const void* data, DType dtype, int64_t i, C (&value)[kVector]) {
  ADJOINT_FOR_DTYPE(dtype, {
    const Pack<S> pack = static_cast<const Pack<S>*>(data)[i / kVector];
    for (int j = 0; j < kVector; j++) value[j] = convert<C>(pack.value[j]);
  })
}

template <class C>
__device__ void storeVector(void* data, DType dtype, int64_t i, const C (&value)[kVector]) {
  ADJOINT_FOR_DTYPE(dtype, {
    Pack<S> pack;
    for (int j = 0; j < kVector; j++) pack.value[j] = convert<S>(value[j]);
    static_cast<Pack<S>*>(data)[i / kVector] = pack;
  })
}

// Whether loadVector and storeVector may be used on `data`.
inline bool isVectorAligned(const void* data, DType dtype) {
  const size_t bytes = itemSize(dtype) * kVector;
  return reinterpret_cast<uintptr_t>(data) % (bytes < 16 ? bytes : 16) == 0;
}

}  // namespace adjoint::cuda
