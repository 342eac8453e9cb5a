// The tensor cores of native/cuda/tensor_core.h: what lanes hold travels by shuffles.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "shared/convert.h"

namespace adjoint::emulation {

inline uint64_t twoOf(uint32_t low, uint32_t high) {
  return uint64_t(high) << 32 | low;
}
template <class S>
float halfOf(uint64_t bits, int i) {
  return toFloat(S{static_cast<uint16_t>(bits >> 16 * i)});
}

template <class S>
void multiplyAccumulate(float (&sum)[4], const uint32_t (&left)[4], uint32_t right0,
                        uint32_t right1) {
  const int g = static_cast<int>(lane()) / 4, t = static_cast<int>(lane()) % 4;
  float rows[2][16], columns[2][16];
  const uint64_t first = twoOf(left[0], left[2]), second = twoOf(left[1], left[3]),
                 right = twoOf(right0, right1);
  for (int j = 0; j < 4; j++) {
    const uint64_t held[4] = {
        __shfl_sync(~0u, first, 4 * g + j), __shfl_sync(~0u, second, 4 * g + j),
        __shfl_sync(~0u, right, 4 * (2 * t) + j), __shfl_sync(~0u, right, 4 * (2 * t + 1) + j)};
    for (int i = 0; i < 4; i++) {
      const int k = 2 * j + i % 2 + i / 2 * 8;
      for (int side = 0; side < 2; side++) {
        rows[side][k] = halfOf<S>(held[side], i);
        columns[side][k] = halfOf<S>(held[2 + side], i);
      }
    }
  }
  for (int i = 0; i < 4; i++) {
    for (int k = 0; k < 16; k++) sum[i] += rows[i / 2][k] * columns[i % 2][k];
  }
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
