// What the features' bfloat16 products share: the walk over the blocks of a task.
#pragma once
#include "cpu/kernels/gemm_bf16.h"
#include "shared/host_device.h"

namespace adjoint::cpu::ADJOINT_LEVEL {

extern const Bf16Multiply multiplyBf16;

namespace {

// Calls compute(rows, columns, tiles of a, tiles of b, sums) for each block of c of up to 32 x 32;
// columns in the outer loop, so that a panel of b stays in the first cache. It adds to sums
// [32][32], or sets them where g.isFirst.
template <class F>
ADJOINT_INLINE void forEachBlock(const Bf16Block& g, const F& compute) {
  alignas(64) float whole[kBlockElements];
  float* sums = g.isFirst && g.isLast ? whole : g.sums;
  for (int64_t j = 0; j < g.n; j += kBlockSide) {
    const int64_t columns = g.n - j < kBlockSide ? g.n - j : kBlockSide;
    const uint16_t* b = g.columns + j / kTileRows * g.columnTile;
    for (int64_t i = 0; i < g.m; i += kBlockSide) {
      const int64_t rows = g.m - i < kBlockSide ? g.m - i : kBlockSide;
      compute(rows, columns, g.rows + i / kTileRows, b, sums);
      if (g.isLast) g.finish(*g.result, sums, g.i + i, g.j + j, rows, columns);
      if (sums != whole) sums += kBlockElements;
    }
  }
}

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
