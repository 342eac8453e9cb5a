// Norms and scaling of contiguous elements, for each stored floating-point type.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

struct ClipKernels {
  // What the elements bring to the norm (norm.h), computed in float64.
  double (*magnitude)(const void* x, int64_t n, double p);
  void (*scale)(void* x, int64_t n, double factor);
};

struct ClipTable {
  ClipKernels byDType[4];  // float32, float64, bfloat16, float16
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(ClipTable, clipTable)
