// Moving the operands and results of a bfloat16 product, one table per SIMD level, and what its
// multiplying loops take, which are compiled once per feature (native/cpu/features).
//
// Both operands lie in tiles of 16 x 32 elements, the size of an AMX tile register: 16 rows of a,
// or 16 columns of b, over 32 steps of the depth.
//   rows:  tile[i][k]            (a)
//   pairs: tile[k / 2][i][k % 2] (b; Intel's VNNI order)
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

constexpr int64_t kTileRows = 16, kTileDepth = 32, kTileElements = kTileRows * kTileDepth;
constexpr int64_t kBlockSide = 2 * kTileRows;  // c is computed in blocks of 2 x 2 tiles
constexpr int64_t kBlockElements = kBlockSide * kBlockSide;

// 16 rows of a (stride, kStride) or columns of b, of which `count` exist, over a depth.
struct Bf16Source {
  const void* data;
  bool isFloat;  // float32, rounded to bfloat16 while it is packed
  int64_t stride, kStride;
  int64_t count, depth;
};

// Where a block of sums goes: c [.., ..] of float32 or bfloat16, plus a bias of float32 that can be
// read for whole blocks (strides 0 and 1; nullptr for none). rectify: at least 0.
struct Bf16Result {
  void* c;
  bool isFloat;
  int64_t row, column;
  const float* bias;
  int64_t biasRow, biasColumn;
  bool rectify = false;
};

struct GemmBf16Table {
  // Fills ceil(depth / 32) tiles from `tiles` on, zeros beyond count and depth. With rest != 0 the
  // source is float32 and the bfloat16 of what rounding left of it, x - bfloat16(x), goes to
  // tiles + rest. Returns whether all of the source was finite and stayed so (asked with `rest`
  // alone; true otherwise).
  bool (*packRows)(uint16_t* tiles, int64_t rest, const Bf16Source& source);
  bool (*packPairs)(uint16_t* tiles, int64_t rest, const Bf16Source& source);
  // One whole step of `count` tiles of pairs, tileStride apart, whose elements of a step lie side
  // by side in rows rowStride apart: each cache line of the source is read once.
  void (*packStep)(uint16_t* tiles, int64_t tileStride, const uint16_t* rows, int64_t rowStride,
                   int64_t count);
  // Tiles of pairs of the columns of an image, which lie `offset` apart, over a depth: element (i,
  // k) is base[offset[k] + i] (packShifted), and base[offset[i] + k] for i < count (packRuns).
  void (*packShifted)(uint16_t* tiles, const uint16_t* base, const int64_t* offset, int64_t depth);
  void (*packRuns)(uint16_t* tiles, const uint16_t* base, const int64_t* offset, int64_t count,
                   int64_t depth);
  // c[i + r, j + s] = block[r][s] + bias for r < rows, s < columns; block [32][32]
  void (*finish)(const Bf16Result& result, const float* block, int64_t i, int64_t j, int64_t rows,
                 int64_t columns);
};

// A tile of rows: step s at + s step, rows `row` and pairs of the depth `pair` apart, which is 2
// where the loop wants the order of rows; from step `whole` of the block on at edge, in that order.
struct Bf16Rows {
  const uint16_t* at;
  int64_t row, step;
  const uint16_t* edge;
  int64_t pair = 2;
};

// c [m, n] (+)= a b over steps begin..end of the depth, for one task.
struct Bf16Block {
  int64_t m, n;
  int64_t begin, end, whole;  // in tiles of the depth
  const Bf16Rows* rows;       // of each tile of rows
  const uint16_t* columns;    // step s of tile j at + j columnTile + s kTileElements
  int64_t columnTile;
  // Products of planes, summed: 1: a b; 3: lo hi + hi lo + hi hi, the lower halves lie `rest` on.
  int terms;
  int64_t rowsRest, columnsRest;
  // Sums between blocks of the depth: [ceil(n / 32)][ceil(m / 32)][32][32]
  float* sums;
  bool isFirst, isLast;  // the sums start at 0; they are finished
  const Bf16Result* result;
  int64_t i, j;  // of the task in c
  decltype(GemmBf16Table::finish) finish;
};

struct Bf16Multiply {
  void (*run)(const Bf16Block& block) = nullptr;
  bool readsPairs = false;  // of rows of a in any order; otherwise they lie side by side

  explicit operator bool() const { return run != nullptr; }
  void operator()(const Bf16Block& block) const { run(block); }
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(GemmBf16Table, gemmBf16Table)
