// What attention does to a block of scores between the matrix products, one table per SIMD level.
// native/cpu/attention.cpp plans the blocks.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

// Products q k^T of some queries with some keys: row i of `columns` at s + i stride, `stride` a
// multiple of a vector. Row i sees its first min(columns, visible + i) keys, none where that is
// negative: `visible` says where the diagonal of a causal mask is.
template <class T>
struct ScoreBlock {
  T* s;
  int64_t stride, rows, columns, visible;
  T scale;
};

// Element (i, j) of a mask lies i row + j column after `data`; bool, or T where it is to be added.
struct MaskBlock {
  const void* data;
  bool isBoolean;
  int64_t row, column;
};

template <class T>
struct AttentionKernels {
  // s = scale s + mask, or -inf where a boolean mask is false
  void (*applyMask)(const ScoreBlock<T>& block, const MaskBlock& mask);
  // One step of the online softmax (Milakov & Gimelshein 2018), for rows whose maximum so far is m,
  // whose sum of exponentials is l and whose weighted sum of values is o [rows, width]:
  //   m' = max(m, scale s), p = exp(scale s - m'), l = exp(m - m') l + sum(p), o = exp(m - m') o
  // s becomes p, 0 where a row sees no key. o is nullptr where nothing has been summed.
  void (*accumulate)(const ScoreBlock<T>& block, T* m, double* l, T* o, int64_t oRow,
                     int64_t width);
  // o = o / l, lse = m + log l; of a row that has seen no key: 0 and infinity.
  void (*finish)(T* o, int64_t oRow, int64_t rows, int64_t width, const T* m, const double* l,
                 T* lse);
  // delta[i] = sum_j dy[i, j] y[i, j]
  void (*rowDots)(T* delta, const T* dy, int64_t dyRow, int64_t dyColumn, const T* y, int64_t yRow,
                  int64_t yColumn, int64_t rows, int64_t width);
  // p = exp(scale s - lse), ds = p (dp - delta) gradScale: s becomes p, dp [rows, columns] with the
  // stride of s becomes ds; both are 0 where a row sees no key.
  void (*backward)(const ScoreBlock<T>& block, T* dp, T gradScale, const T* lse, const T* delta);
};

struct AttentionTable {
  AttentionKernels<float> f32;
  AttentionKernels<double> f64;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(AttentionTable, attentionTable)
