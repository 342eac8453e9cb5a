// What the features' bfloat16 products share: the walk over the blocks of a task.
#pragma once
#include "cpu/kernels/gemm_bf16.h"
#include "shared/host_device.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace adjoint::cpu::ADJOINT_LEVEL {

extern const Bf16Multiply multiplyBf16;

namespace {

// c is written when its sums are ready; by then its lines can be here.
ADJOINT_INLINE void prefetchResult(const Bf16Result& r, int64_t i, int64_t j, int64_t rows,
                                   int64_t columns) {
  const bool isTurned = r.column != 1 && r.row == 1;
  const int64_t lines = isTurned ? columns : rows, stride = isTurned ? r.column : r.row;
  const int64_t bytes = r.isFloat ? 4 : 2;
  const char* c = static_cast<const char*>(r.c) + (i * r.row + j * r.column) * bytes;
  for (int64_t line = 0; line < lines; line++) {
    __builtin_prefetch(c + line * stride * bytes, 1);
    if (r.isFloat) __builtin_prefetch(c + line * stride * bytes + 64, 1);
  }
}

// The whole block, rows of c having unit stride; false where it is another case.
ADJOINT_INLINE bool finishWhole(const Bf16Result& r, const float* sums, int64_t i, int64_t j,
                                int64_t rows, int64_t columns) {
#if defined(__AVX512BF16__)
  if (r.column != 1 || columns != kBlockSide) return false;
  const __m512 zero = _mm512_setzero_ps();
  const bool isRowBias = r.bias && r.biasColumn;
  const __m512 low = isRowBias ? _mm512_loadu_ps(r.bias + j) : zero;
  const __m512 high = isRowBias ? _mm512_loadu_ps(r.bias + j + kTileRows) : zero;
  const bool isColumnBias = r.bias && r.biasRow;
  for (int64_t y = 0; y < rows; y++, sums += kBlockSide) {
    __m512 a = _mm512_add_ps(_mm512_loadu_ps(sums), low);
    __m512 b = _mm512_add_ps(_mm512_loadu_ps(sums + kTileRows), high);
    if (isColumnBias) {
      const __m512 bias = _mm512_set1_ps(r.bias[i + y]);
      a = _mm512_add_ps(a, bias);
      b = _mm512_add_ps(b, bias);
    }
    if (r.rectify) {
      a = _mm512_mask_mov_ps(a, _mm512_cmp_ps_mask(a, zero, _CMP_LE_OQ), zero);
      b = _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask(b, zero, _CMP_LE_OQ), zero);
    }
    const int64_t at = (i + y) * r.row + j;
    if (r.isFloat) {
      float* c = static_cast<float*>(r.c) + at;
      _mm512_storeu_ps(c, a);
      _mm512_storeu_ps(c + kTileRows, b);
    } else {
      uint16_t* c = static_cast<uint16_t*>(r.c) + at;
      _mm512_storeu_si512(c, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
  }
  return true;
#else
  return false;
#endif
}

// Calls compute(rows, columns, tiles of a, tiles of b, sums) for each block of c of up to 32 x 32;
// columns in the outer loop, so that a panel of b stays in the first cache. It adds to sums
// [32][32], or sets them where g.isFirst. A block is finished when the next one has been computed:
// stores of tiles reach loads only through the cache, and by then they are there.
template <class F>
ADJOINT_INLINE void forEachBlock(const Bf16Block& g, const F& compute) {
  alignas(64) float whole[2][kBlockElements];
  const bool keepsSums = !(g.isFirst && g.isLast);
  float* sums = keepsSums ? g.sums : whole[0];
  struct {
    const float* sums;
    int64_t i, j, rows, columns;
  } last = {};
  const auto finishLast = [&] {
    if (!last.sums) return;
    if (finishWhole(*g.result, last.sums, last.i, last.j, last.rows, last.columns)) return;
    g.finish(*g.result, last.sums, last.i, last.j, last.rows, last.columns);
  };
  for (int64_t j = 0; j < g.n; j += kBlockSide) {
    const int64_t columns = g.n - j < kBlockSide ? g.n - j : kBlockSide;
    const uint16_t* b = g.columns + j / kTileRows * g.columnTile;
    for (int64_t i = 0; i < g.m; i += kBlockSide) {
      const int64_t rows = g.m - i < kBlockSide ? g.m - i : kBlockSide;
      if (g.isLast) prefetchResult(*g.result, g.i + i, g.j + j, rows, columns);
      compute(rows, columns, g.rows + i / kTileRows, b, sums);
      if (g.isLast) {
        finishLast();
        last = {sums, g.i + i, g.j + j, rows, columns};
      }
      sums = keepsSums ? sums + kBlockElements : whole[sums == whole[0]];
    }
  }
  finishLast();
}

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
