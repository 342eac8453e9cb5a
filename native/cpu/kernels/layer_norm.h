// The rows of layer norm and RMS norm: `rows` rows of `length` contiguous elements, one after the
// other. `centred` is layer norm; `plain` is RMS norm, which has no mean and no bias (nullptr).
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

template <class T>
struct LayerNormKernels {
  // mean = sum(x) / length; rstd = 1 / sqrt(sum((x - mean)^2) / length + eps);
  // y = (x - mean) rstd weight + bias
  void (*forward)(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, int64_t rows,
                  int64_t length, double eps);
  // xhat = (x - mean) rstd; g = dy weight; dx = rstd (g - (sum(g) + xhat sum(g xhat)) / length),
  // without sum(g) where there is no mean. dweight += dy xhat and dbias += dy, over the rows.
  void (*backward)(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight,
                   const T* mean, const T* rstd, int64_t rows, int64_t length);
};

struct LayerNormTable {
  LayerNormKernels<float> centred32, plain32;
  LayerNormKernels<double> centred64, plain64;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(LayerNormTable, layerNormTable)
