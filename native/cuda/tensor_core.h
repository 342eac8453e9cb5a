// Products of matrices on tensor cores, one warp at a time: compute capability 8.0 and up.
// With g = lane / 4 and t = lane % 4, a lane holds
//   of a 16 x 16 left matrix:  rows g, g + 8, g, g + 8 at columns 2t, 2t + 1 (twice) and 8 more
//   of a 16 x 8 right matrix:  rows 2t, 2t + 1 and 8 more of column g
//   of a 16 x 8 sum:           columns 2t, 2t + 1 of row g, then of row g + 8
// and of float32, of which the unit takes sign, exponent and the first 10 bits of the rest (TF32),
//   of a 16 x 8 left matrix:   rows g, g + 8, g, g + 8 at column t (twice) and t + 4
//   of an 8 x 8 right matrix:  rows t and t + 4 of column g
#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda/launch.h"
#include "shared/convert.h"

#ifndef __CUDACC__
#include "emulation/tensor_core.h"
#endif

namespace adjoint::cuda {

#ifdef __CUDACC__
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define ADJOINT_TENSOR_CORE(...) asm volatile(__VA_ARGS__)
#else
#define ADJOINT_TENSOR_CORE(...) __trap()
#endif

// sum += left right, of S: a half type, or float for TF32
template <class S>
ADJOINT_DEVICE void multiplyAccumulate(float (&sum)[4], const uint32_t (&left)[4], uint32_t right0,
                                       uint32_t right1) {
#define ADJOINT_MMA(shape, type)                                                             \
  ADJOINT_TENSOR_CORE("mma.sync.aligned." shape ".row.col.f32." type "." type                \
                      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "                  \
                      "{%0, %1, %2, %3};\n"                                                  \
                      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])               \
                      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), \
                        "r"(right1))
  if constexpr (std::is_same<S, float>::value) {
    ADJOINT_MMA("m16n8k8", "tf32");
  } else if constexpr (std::is_same<S, BFloat16>::value) {
    ADJOINT_MMA("m16n8k16", "bf16");
  } else {
    ADJOINT_MMA("m16n8k16", "f16");
  }
#undef ADJOINT_MMA
}

// Four 8 x 8 matrices from shared memory: lane i names row i % 8 of matrix i / 8 (16 bytes,
// aligned). A lane gets columns 2t, 2t + 1 of row g of each, or rows 2t, 2t + 1 of column g. Of
// 8 x 4 matrices of float32 it gets column t of row g.
template <bool transposed>
ADJOINT_DEVICE void loadMatrices(uint32_t (&matrices)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (transposed) {
    ADJOINT_TENSOR_CORE("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                        : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                        : "r"(address)
                        : "memory");
  } else {
    ADJOINT_TENSOR_CORE("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                        : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                        : "r"(address)
                        : "memory");
  }
}

// Two numbers rounded to 16 bits, the first in the lower half.
template <class S>
ADJOINT_DEVICE uint32_t packHalves(float first, float second) {
  uint32_t packed = 0;
  if constexpr (std::is_same<S, BFloat16>::value) {
    ADJOINT_TENSOR_CORE("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(second), "f"(first));
  } else {
    ADJOINT_TENSOR_CORE("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(second), "f"(first));
  }
  return packed;
}
#undef ADJOINT_TENSOR_CORE
#else
using emulation::loadMatrices;
using emulation::multiplyAccumulate;
using emulation::packHalves;
#endif

}  // namespace adjoint::cuda
