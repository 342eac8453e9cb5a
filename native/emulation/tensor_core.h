// The tensor cores of native/cuda/tensor_core.h.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "shared/convert.h"

namespace adjoint::emulation {

enum class MmaKind { bfloat16, float16, tf32 };
// sum += left right, 16 x 8 x 16 of halves or 16 x 8 x 8 of float32 (tensor_core.cpp)
void multiplyOnTensorCore(MmaKind kind, float (&sum)[4], const uint32_t (&left)[4], uint32_t right0,
                          uint32_t right1);

template <class S>
void multiplyAccumulate(float (&sum)[4], const uint32_t (&left)[4], uint32_t right0,
                        uint32_t right1) {
  multiplyOnTensorCore(std::is_same<S, float>::value      ? MmaKind::tf32
                       : std::is_same<S, BFloat16>::value ? MmaKind::bfloat16
                                                          : MmaKind::float16,
                       sum, left, right0, right1);
}

template <bool transposed>
void loadMatrices(uint32_t (&matrices)[4], const void* row) {
  const int g = static_cast<int>(lane()) / 4, t = static_cast<int>(lane()) % 4;
  const auto address = reinterpret_cast<uint64_t>(row);
  for (int m = 0; m < 4; m++) {
    uint16_t pair[2];
    if (transposed) {
      for (int i = 0; i < 2; i++) {
        const uint64_t from = __shfl_sync(~0u, address, 8 * m + 2 * t + i);
        pair[i] = reinterpret_cast<const uint16_t*>(from)[g];
      }
    } else {
      const uint64_t from = __shfl_sync(~0u, address, 8 * m + g);
      for (int i = 0; i < 2; i++) pair[i] = reinterpret_cast<const uint16_t*>(from)[2 * t + i];
    }
    std::memcpy(&matrices[m], pair, sizeof pair);
  }
}

template <class S>
uint32_t packHalves(float first, float second) {
  return convert<S>(first).bits | uint32_t(convert<S>(second).bits) << 16;
}

}  // namespace adjoint::emulation
