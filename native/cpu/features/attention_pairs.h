// The loops of bfloat16 attention on AVX512-BF16 (native/cpu/attention_pairs.h says how they work
// together). vdpbf16ps adds the products of a pair, so both operands of a product come in pairs of
// the depth: those of a go to all lanes, a vector of b holds the pairs of 16 columns.
#pragma once
#include <cstdint>

#include "cpu/kernels/attention.h"

namespace adjoint::cpu {

constexpr int64_t kPanelColumns = 16;
// Columns that a row of scores has room for is a multiple of this.
constexpr int64_t kWeightColumns = 32;
constexpr int64_t kUnbounded = int64_t{1} << 40;

// c [m, n] (+)= a b. Pair p of row i of a at a + i aRow + p aPair; b in panels of 16 columns,
// element (k, j) of one at b + k / 2 * 32 + 2 j + k % 2; the last pair of an odd depth holds zeros.
// Whole vectors of c are written. Where a is a triangle only a part of c or of the depth is wanted:
// row i has columns below columnEnd + i, and takes the depths from depthBegin + i, which is even
// for i = 0, up to depthEnd + i; more of either may be computed.
struct PairsProduct {
  int64_t m, n, depth;
  const uint16_t* a;
  int64_t aRow, aPair;
  const uint16_t* b;
  int64_t bPanel;
  float* c;
  int64_t cRow;
  bool accumulates;
  int64_t columnEnd = kUnbounded, depthBegin = -kUnbounded, depthEnd = kUnbounded;
};

// Where gradients of a block go: p and ds as pairs of rows, pair i of column j at i pairRow + 2 j,
// and ds by rows.
struct GradientBlock {
  uint16_t *pPairs, *dsPairs;
  int64_t pairRow;
  uint16_t* ds;
  int64_t dsRow;
};

struct AttentionPairsKernels {
  // Panels of b from rows of memory, bPanel apart: b[k, j] = rows[k rowStride + j] of `count`
  // columns (packRows), b[k, j] = rows[j rowStride + k] (packTurned). Zeros fill the last panel and
  // the last pair.
  void (*packRows)(uint16_t* b, int64_t bPanel, const uint16_t* rows, int64_t rowStride,
                   int64_t depth, int64_t count);
  void (*packTurned)(uint16_t* b, int64_t bPanel, const uint16_t* rows, int64_t rowStride,
                     int64_t depth, int64_t count);
  void (*multiply)(const PairsProduct& product);
  // AttentionKernels::accumulate, whose p takes the place of s as bfloat16: row i at the same
  // address, whole multiples of kWeightColumns of them.
  void (*accumulate)(const ScoreBlock<float>& block, float* m, double* l, float* o, int64_t oRow,
                     int64_t width);
  // AttentionKernels::backward; p and ds are rounded to `out`, where a last row alone is paired
  // with zeros, in whole multiples of kWeightColumns.
  void (*backward)(const ScoreBlock<float>& block, const float* dp, float gradScale,
                   const float* lse, const float* delta, const GradientBlock& out);
  // y[i, j] = bfloat16(o[i, j])
  void (*store)(uint16_t* y, int64_t yRow, const float* o, int64_t oRow, int64_t rows,
                int64_t width);
  // delta[i] = sum_j dy[i, j] y[i, j]
  void (*rowDots)(float* delta, const uint16_t* dy, int64_t dyRow, const uint16_t* y, int64_t yRow,
                  int64_t rows, int64_t width);
};

}  // namespace adjoint::cpu
