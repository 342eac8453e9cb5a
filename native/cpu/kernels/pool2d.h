// Max pooling of one channel of one image, a plane [h, w] with unit column stride.
#pragma once
#include <cstdint>

#include "cpu/simd.h"
#include "shared/host_device.h"

namespace adjoint::cpu {

struct PoolWindow {
  int64_t h, w, p, q;
  int64_t kernelH, kernelW, strideH, strideW, padH, padW, dilationH, dilationW;

  // The part of the padded plane that the windows see.
  ADJOINT_INLINE int64_t slabRows() const {
    return (p - 1) * strideH + (kernelH - 1) * dilationH + 1;
  }
  ADJOINT_INLINE int64_t slabColumns() const {
    return (q - 1) * strideW + (kernelW - 1) * dilationW + 1;
  }
  // 2 x 2 windows side by side.
  ADJOINT_INLINE bool isPairs() const {
    return kernelH == 2 && kernelW == 2 && strideH == 2 && strideW == 2 && padH == 0 && padW == 0 &&
           dilationH == 1 && dilationW == 1;
  }
};

template <class T>
struct Pool2dKernels {
  // y, index [p, q], dense; index is -1 where a window sees nothing but padding, and y the least
  // value there. slab has room for slabRows() x slabColumns() elements, and for kPoolSlack windows
  // more; pairs need none.
  void (*maxPool)(T* y, int32_t* index, const T* x, int64_t xRow, const PoolWindow& window,
                  T* slab);
  // dx[index] += dy; dx [h, w] dense. False where an index is out of bounds.
  bool (*scatter)(T* dx, const T* dy, const int32_t* index, int64_t plane, int64_t n);
  // y = x[index], 0 for -1
  bool (*gather)(T* y, const T* x, const int32_t* index, int64_t plane, int64_t n);
};

constexpr int64_t kPoolSlack = 16;

struct Pool2dTable {
  Pool2dKernels<float> f32;
  Pool2dKernels<double> f64;
  Pool2dKernels<int64_t> i64;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(Pool2dTable, pool2dTable)
