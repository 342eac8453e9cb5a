// The loops of a matrix product, one table per SIMD level. native/cpu/gemm.cpp plans the product.
//
// Packed BLIS-style product (Van Zee & van de Geijn 2015): a micro-kernel keeps a tile of `rows` x
// `columns` of C in registers and runs along the depth; it reads A by broadcast, so A may lie
// anywhere, and B by vectors, so B is packed into panels of `columns` or has unit column stride.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

// `count` runs of `size` elements, `stride` apart.
template <class T>
struct Runs {
  const T* from = nullptr;
  int64_t count = 0, size = 0, stride = 0;
};

// c [m, n] = a [m, k] b [k, n] + init, for one block of the depth.
// a: row i of panel p at a + p aPanel + i aRow, steps of aK; panels of panelRows rows.
// b: panel p at b + p bPanel, steps of bRow; the last panel, where it is narrower than `columns`,
//    at bEdge, padded with zeros to `lanes` or `columns` and with steps of that width.
// init: row i, columns from j at init + i initRow + j initColumn, readable for a whole panel
//    (strides 0 repeat: a bias of the columns, zeros); may be c itself.
// run: sums are formed in registers over so many steps at most, and then added to c: a sum of sums
//    has smaller rounding errors.
// nextA, nextB: what is wanted after this block, all of a and the first panel of b. Each tile asks
//    for its share, and for its share of b's next panel where panels are not packed, so that they
//    come from memory while the products go on.
// rectify: c = max(that, 0), where this is the last block of the depth.
template <class T>
struct GemmBlock {
  int64_t m, n, k;
  const T* a;
  int64_t aPanel, aRow, aK, panelRows;
  const T* b;
  int64_t bPanel, bRow;
  const T* bEdge;
  T* c;
  int64_t cRow;
  const T* init;
  int64_t initRow, initColumn;
  int64_t run = INT64_MAX;
  Runs<T> nextA, nextB;
  bool rectify = false;
};

template <class T>
struct GemmKernels {
  int64_t rows, columns;  // the largest tile
  int64_t lanes;          // elements of a vector
  void (*multiply)(const GemmBlock<T>& block);
  // panel[k * width + i] = source[i * stride + k * kStride], i < count; zeros for i in
  // count..width. count < width is allowed only where width is a multiple of `lanes`.
  void (*pack)(T* panel, int64_t width, const T* source, int64_t stride, int64_t kStride,
               int64_t count, int64_t depth);
  // c[i * cRow + j * cColumn] = block[i * blockRow + j]
  void (*store)(T* c, int64_t cRow, int64_t cColumn, const T* block, int64_t blockRow, int64_t m,
                int64_t n);
  // y[i * yStride] = sum_k a[i * aRow + k] x[k] + bias[i * biasStride]
  void (*dots)(T* y, int64_t yStride, const T* a, int64_t aRow, const T* x, const T* bias,
               int64_t biasStride, int64_t m, int64_t k);
};

// Integers are computed modulo 2^64, where overflow is defined.
struct GemmTable {
  GemmKernels<float> f32;
  GemmKernels<double> f64;
  GemmKernels<uint64_t> i64;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(GemmTable, gemmTable)
