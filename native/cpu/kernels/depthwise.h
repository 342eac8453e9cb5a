// Convolutions of single channels with single filters: too few products for a matrix product, so
// each tap is a vector of the weight times a row of the slab (native/cpu/kernels/conv2d.h).
#pragma once
#include "cpu/kernels/conv2d.h"

namespace adjoint::cpu {

// Tap t of pixel (i, j) lies at slab + offset[t] + i * strideH * slabRow + j * strideW.
template <class T>
struct DepthwiseKernels {
  // y[i, j] = bias + sum over `taps` taps of weight[t] * tap t, for i < rows and j < w.q
  void (*correlate)(T* y, int64_t yRow, int64_t rows, const T* slab, const ConvWindow& w,
                    const int64_t* offset, const T* weight, int64_t taps, T bias);
  // sums[t] += sum over pixels of dy[i, j] * tap t
  void (*correlateSums)(T* sums, const T* dy, int64_t dyRow, int64_t rows, const T* slab,
                        const ConvWindow& w, const int64_t* offset, int64_t taps);
};

struct DepthwiseTable {
  DepthwiseKernels<float> f32;
  DepthwiseKernels<double> f64;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(DepthwiseTable, depthwiseTable)
