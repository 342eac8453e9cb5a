// Softmax, its logarithm and cross entropy over contiguous values of the type of computation, along
// a row or down the columns of a tile. Outputs may be inputs.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

constexpr int64_t kSoftmaxColumns = 256;  // columns at once, at most

// in[0] is x for the forward kernels; in[0] is dy and in[1] is y for the backward ones.
struct SoftmaxKernel {
  void (*row)(void* out, const void* const* in, int64_t n);
  // Element (r, j) of a tensor lies r * its stride + j after its start.
  void (*columns)(void* out, const void* const* in, int64_t rows, int64_t outStride,
                  const int64_t* inStride, int64_t n);
};

// Indexed by Compute::f32, f64.
struct SoftmaxTable {
  SoftmaxKernel forward[2], forwardLog[2], backward[2], backwardLog[2];
  // The maximum of x[0..n) and the logarithm of the sum of e^(x - maximum).
  void (*logSumExp[2])(const void* x, int64_t n, double* maximum, double* logSum);
  // y[i] = scale * e^(x[i] - lse)
  void (*scaledExp[2])(void* y, const void* x, int64_t n, double lse, double scale);
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(SoftmaxTable, softmaxTable)
