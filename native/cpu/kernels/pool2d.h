// Max pooling of one channel of one image, a plane [h, w] with unit column stride.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

struct PoolWindow {
  int64_t h, w, p, q;
  int64_t kernelH, kernelW, strideH, strideW, padH, padW, dilationH, dilationW;
};

template <class T>
struct Pool2dKernels {
  // y, index [p, q], dense; index is -1 where a window sees nothing but padding, and y the least
  // value there.
  void (*maxPool)(T* y, int32_t* index, const T* x, int64_t xRow, const PoolWindow& window);
  // dx[index] += dy; dx [h, w] dense. False where an index is out of bounds.
  bool (*scatter)(T* dx, const T* dy, const int32_t* index, int64_t plane, int64_t n);
  // y = x[index], 0 for -1
  bool (*gather)(T* y, const T* x, const int32_t* index, int64_t plane, int64_t n);
};

struct Pool2dTable {
  Pool2dKernels<float> f32;
  Pool2dKernels<double> f64;
  Pool2dKernels<int64_t> i64;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(Pool2dTable, pool2dTable)
