// Matrix products over raw pointers: what matmul and the convolutions are made of.
#pragma once
#include "cpu/kernels/gemm.h"
#include "cpu/pool.h"

namespace adjoint::cpu {

// c [m, n] = a [m, k] b [k, n] + bias; strides in elements. bias[i biasRow + j biasColumn], one of
// the strides 0; nullptr for none. rectify: c = max(that, 0).
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
  bool rectify = false;
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
  DepthBlocks(int64_t k, int64_t most) : k(k), count(k <= most ? 1 : (k + most - 1) / most) {
    size = (k + count - 1) / count;
  }
  int64_t begin(int64_t i) const { return i * size; }
  int64_t end(int64_t i) const { return i + 1 < count ? (i + 1) * size : k; }

  // A panel of b of so many steps fits the L1 cache; panels that come from the L2 cache had better
  // be longer, since c is read and written once a block.
  static constexpr int64_t kInL1 = 256, kInL2 = 384;
  int64_t k, count, size;
};

inline int64_t ceilDivide(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// A number of elements that keeps what follows them on a cache line's boundary: panels of b are
// read in whole vectors.
inline int64_t lineAligned(int64_t elements) {
  return ceilDivide(elements, 16) * 16;
}

// Calls product(i) for i < count products of so many operations: small ones side by side, each on
// one thread; large ones one after the other, each on all threads.
template <class F>
void forEachProduct(int64_t count, double operations, const F& product) {
  constexpr double kSmallProduct = 8e6, kTaskOperations = 1e6;
  const auto products = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) product(i);
  };
  if (operations >= kSmallProduct) return products(0, count);
  const double grain = kTaskOperations / (operations + 1);
  parallelFor(count, grain > 1 ? static_cast<int64_t>(grain) : 1, products);
}

}  // namespace adjoint::cpu
