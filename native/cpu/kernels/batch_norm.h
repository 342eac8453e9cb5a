// The passes of batch normalisation over the elements of channels, in two layouts.
//   planes: one channel; `rows` rows of `length` contiguous elements (an image's plane each)
//   columns: `length` neighbouring channels, at most kBatchNormColumns; a row holds one element of
//   each (channels last, or [N, C])
// Sums are formed in vectors of T over blocks of rows, and over the blocks in float64. The numbers
// of a channel are arrays: one element for planes, one per channel for columns. Elements are stored
// as S: T itself, or bfloat16 where T is float.
#pragma once
#include <cstdint>

#include "cpu/simd.h"
#include "shared/convert.h"

namespace adjoint::cpu {

constexpr int64_t kBatchNormColumns = 64;

// `step` elements from row to row.
template <class T>
struct ChannelRows {
  T* data;
  int64_t rows, step, length;
};

// Per channel: what y = scale (x - mean) + bias is made of. A null bias where there is no
// rectification: gradients then do not ask for y.
template <class T>
struct BatchNormAffine {
  const T *mean, *scale, *bias;
};

template <class T, class S = T>
struct BatchNormKernels {
  // sum x
  void (*sum)(double* sum, const ChannelRows<const S>& x);
  // sum (x - mean)^2
  void (*squares)(double* sum, const ChannelRows<const S>& x, const T* mean);
  // y = scale (x - mean) + bias, rectified or not
  void (*normalize)(const ChannelRows<S>& y, const ChannelRows<const S>& x,
                    const BatchNormAffine<T>& affine, bool relu);
  // g = dy, or 0 where affine has a bias and y <= 0. sumG = sum g; sumGX = sum g (x - mean)
  void (*gradientSums)(double* sumG, double* sumGX, const ChannelRows<const S>& dy,
                       const ChannelRows<const S>& x, const BatchNormAffine<T>& affine);
  // dx = scale (g - offset - slope (x - mean))
  void (*gradient)(const ChannelRows<S>& dx, const ChannelRows<const S>& dy,
                   const ChannelRows<const S>& x, const BatchNormAffine<T>& affine, const T* offset,
                   const T* slope);
};

struct BatchNormTable {
  BatchNormKernels<float> planes32, columns32;
  BatchNormKernels<double> planes64, columns64;
  BatchNormKernels<float, BFloat16> planesBf16, columnsBf16;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(BatchNormTable, batchNormTable)
