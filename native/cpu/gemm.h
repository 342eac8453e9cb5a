// Matrix products over raw pointers: what matmul and the convolutions are made of.
#pragma once
#include "cpu/kernels/gemm.h"

namespace adjoint::cpu {

// c [m, n] = a [m, k] b [k, n] + bias; strides in elements. bias[i biasRow + j biasColumn], one of
// the strides 0; nullptr for none.
template <class T>
struct Product {
  int64_t m, n, k;
  const T* a;
  int64_t aRow, aK;
  const T* b;
  int64_t bK, bColumn;
  T* c;
  int64_t cRow, cColumn;
  const T* bias = nullptr;
  int64_t biasRow = 0, biasColumn = 0;
};

// The table of the SIMD level chosen at start.
template <class T>
const GemmKernels<T>& gemmKernels();

// Parallel over tiles of c, and serial where it is called from within parallelFor.
template <class T>
void gemm(const Product<T>& product);

// The depth is cut into blocks whose panels of a and b fit the caches; each block's sum is formed
// in registers, so that rounding errors grow with the block and the number of blocks.
struct DepthBlocks {
  explicit DepthBlocks(int64_t k) : k(k), count(k <= kMax ? 1 : (k + kMax - 1) / kMax) {
    size = (k + count - 1) / count;
  }
  int64_t begin(int64_t i) const { return i * size; }
  int64_t end(int64_t i) const { return i + 1 < count ? (i + 1) * size : k; }

  static constexpr int64_t kMax = 320;
  int64_t k, count, size;
};

inline int64_t ceilDivide(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace adjoint::cpu
