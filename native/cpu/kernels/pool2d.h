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
  ADJOINT_INLINE int64_t taps() const { return kernelH * kernelW; }
  // 2 x 2 windows side by side.
  ADJOINT_INLINE bool isPairs() const {
    return kernelH == 2 && kernelW == 2 && strideH == 2 && strideW == 2 && padH == 0 && padW == 0 &&
           dilationH == 1 && dilationW == 1;
  }
};

// Where a tap of a window lies, from the window's first one on.
struct PoolTap {
  int64_t down, right;
};

// Taps are stored as Tap, uint8_t or int32_t; y, tap, dy [p, q] and dx [h, w] are dense.
template <class T, class Tap>
struct Pool2dKernels {
  // tap: the first of a window's greatest. Where a window sees nothing but padding, y is the least
  // value, and tap one outside the plane. slab has room for slabRows() x slabColumns() elements,
  // and for kPoolSlack windows more; pairs need none.
  void (*maxPool)(T* y, Tap* tap, const T* x, int64_t xRow, const PoolWindow& window, T* slab);
  // dx = the sum of dy at the taps inside the plane. False where one is no tap of the window.
  bool (*scatter)(T* dx, const T* dy, const Tap* tap, const PoolWindow& window,
                  const PoolTap* taps);
  // y = x at the taps, 0 outside the plane
  bool (*gather)(T* y, const T* x, const Tap* tap, const PoolWindow& window, const PoolTap* taps);
};

constexpr int64_t kPoolSlack = 16;

template <class T>
struct Pool2dKernelsByTap {
  Pool2dKernels<T, uint8_t> u8;
  Pool2dKernels<T, int32_t> i32;
};

struct Pool2dTable {
  Pool2dKernelsByTap<float> f32;
  Pool2dKernelsByTap<double> f64;
  Pool2dKernelsByTap<int64_t> i64;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(Pool2dTable, pool2dTable)
