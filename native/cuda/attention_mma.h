// Tiles of 16-bit matrices in shared memory and their products on tensor cores, as the kernels of
// attention use them. Each of a block's four warps has 16 rows of the block's own sequence; where a
// lane's numbers stand in a 16 x 8 piece of a sum, tensor_core.h says.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda/async_copy.h"
#include "cuda/attention_operands.h"
#include "cuda/tensor_core.h"

namespace adjoint::cuda {

constexpr int kMmaWarps = 4;
constexpr int kMmaThreads = kMmaWarps * kWarp;
constexpr int kMmaRows = 16 * kMmaWarps;  // of a block, and of the tiles it meets
constexpr int kHalves = 8;                // in 16 bytes
// Eight rows that are this far apart lie in different banks.
template <int kWidth>
constexpr int kMmaStride = kWidth + kHalves;

template <class S>
struct alignas(16) WideHalves {
  S value[kHalves];
};

// A warp's 16 rows as left matrices, and sums of as many rows.
template <int kWidth>
using MmaRows = uint32_t[kWidth / 16][4];
template <int kWidth>
using MmaSums = float[kWidth / 8][4];

struct MmaPlace {
  int warp = static_cast<int>(threadIdx.x) / kWarp;
  int lane = static_cast<int>(threadIdx.x) % kWarp;
  // Row and column of element i of a sum's piece n, of the block's rows and the tile's columns.
  ADJOINT_DEVICE int row(int i) const { return warp * 16 + lane / 4 + i / 2 * 8; }
  ADJOINT_DEVICE int column(int n, int i) const { return n * 8 + lane % 4 * 2 + i % 2; }
};

// tile [kMmaRows, kWidth] = the rows of x from `row` on, 0 beyond its ends. The tile is there after
// commitCopies, a wait and a barrier.
template <int kWidth, class S>
ADJOINT_DEVICE void loadMmaTile(S* tile, const TileSource<S>& x, int row) {
  constexpr int kAcross = kWidth / kHalves, kSteps = kMmaRows * kAcross / kMmaThreads;
  constexpr int kRowsAtOnce = kMmaThreads / kAcross;
  const int first = static_cast<int>(threadIdx.x) / kAcross;
  const int c = static_cast<int>(threadIdx.x) % kAcross * kHalves, rest = x.columns - c;
  WideHalves<S>* target = reinterpret_cast<WideHalves<S>*>(tile + first * kMmaStride<kWidth> + c);
  constexpr int kTargetStep = kRowsAtOnce * kMmaStride<kWidth> / kHalves;
  const S* source = x.data + (row + first) * x.row + c * x.column;
  if (x.isWide) {
    ADJOINT_UNROLL
    for (int step = 0; step < kSteps; step++, source += kRowsAtOnce * x.row) {
      const bool isThere = row + first + step * kRowsAtOnce < x.rows && rest > 0;
      copyAsync(target + step * kTargetStep, isThere ? source : x.data, isThere);
    }
    return;
  }
  ADJOINT_ROLLED
  for (int step = 0; step < kSteps; step++, source += kRowsAtOnce * x.row) {
    const bool isInside = row + first + step * kRowsAtOnce < x.rows;
    S* element = target[step * kTargetStep].value;
    ADJOINT_ROLLED
    for (int j = 0; j < kHalves; j++) {
      element[j] = isInside && j < rest ? source[j * x.column] : S{0};
    }
  }
}

// A warp's 16 rows of a tile
template <int kWidth, class S>
ADJOINT_DEVICE void takeRows(MmaRows<kWidth>& rows, const S* tile, const MmaPlace& at) {
  const S* row = tile + (at.warp * 16 + at.lane % 16) * kMmaStride<kWidth> + at.lane / 16 * 8;
  ADJOINT_UNROLL
  for (int k = 0; k < kWidth / 16; k++) loadMatrices<false>(rows[k], row + k * 16);
}

// s [16, kColumns] = rows tile^T, for the first kColumns rows of a tile
template <int kWidth, int kColumns, class S>
ADJOINT_DEVICE void multiplyTile(MmaSums<kColumns>& s, const MmaRows<kWidth>& rows, const S* tile,
                                 const MmaPlace& at) {
  ADJOINT_UNROLL
  for (int n = 0; n < kColumns / 8; n++) {
    ADJOINT_UNROLL
    for (int i = 0; i < 4; i++) s[n][i] = 0;
  }
  // Two pieces of eight columns at a time, each with the lower and the upper half of 16 steps.
  const S* row = tile + (at.lane / 16 * 8 + at.lane % 8) * kMmaStride<kWidth> + at.lane / 8 % 2 * 8;
  ADJOINT_UNROLL
  for (int k = 0; k < kWidth / 16; k++) {
    ADJOINT_UNROLL
    for (int n = 0; n < kColumns / 16; n++) {
      uint32_t right[4];
      loadMatrices<false>(right, row + n * 16 * kMmaStride<kWidth> + k * 16);
      multiplyAccumulate<S>(s[2 * n], rows[k], right[0], right[1]);
      multiplyAccumulate<S>(s[2 * n + 1], rows[k], right[2], right[3]);
    }
  }
}

// sum [16, kWidth] += weights [16, kColumns] tile, the weights rounded to S
template <int kWidth, int kColumns, class S>
ADJOINT_DEVICE void addWeightedTile(MmaSums<kWidth>& sum, const MmaSums<kColumns>& weights,
                                    const S* tile, const MmaPlace& at) {
  const S* row = tile + at.lane % 16 * kMmaStride<kWidth> + at.lane / 16 * 8;
  ADJOINT_UNROLL
  for (int k = 0; k < kColumns / 16; k++) {
    const float(&low)[4] = weights[2 * k], (&high)[4] = weights[2 * k + 1];
    const uint32_t left[4] = {packHalves<S>(low[0], low[1]), packHalves<S>(low[2], low[3]),
                              packHalves<S>(high[0], high[1]), packHalves<S>(high[2], high[3])};
    ADJOINT_UNROLL
    for (int n = 0; n < kWidth / 16; n++) {
      uint32_t right[4];
      loadMatrices<true>(right, row + k * 16 * kMmaStride<kWidth> + n * 16);
      multiplyAccumulate<S>(sum[2 * n], left, right[0], right[1]);
      multiplyAccumulate<S>(sum[2 * n + 1], left, right[2], right[3]);
    }
  }
}

template <int kWidth>
ADJOINT_DEVICE void clear(MmaSums<kWidth>& sum) {
  ADJOINT_UNROLL
  for (int n = 0; n < kWidth / 8; n++) {
    ADJOINT_UNROLL
    for (int i = 0; i < 4; i++) sum[n][i] = 0;
  }
}

// Rows of y [rows, columns] from `first` on = factor[half] sum, factors of the upper and lower rows
template <int kWidth, class S>
ADJOINT_DEVICE void storeMmaSums(const Heads<S>& y, int batch, int head, int first, int rows,
                                 int columns, const MmaSums<kWidth>& sum, const float (&factor)[2],
                                 const MmaPlace& at) {
  S* const data = y.at(batch, head);
  ADJOINT_UNROLL
  for (int half = 0; half < 2; half++) {
    const int row = first + at.row(2 * half);
    if (row >= rows) continue;
    ADJOINT_UNROLL
    for (int n = 0; n < kWidth / 8; n++) {
      const int column = at.column(n, 0);
      // A row without keys is 0 even where its sum is not a number.
      const float x0 = factor[half] == 0 ? 0 : sum[n][2 * half] * factor[half];
      const float x1 = factor[half] == 0 ? 0 : sum[n][2 * half + 1] * factor[half];
      S* target = data + row * y.row + column * y.column;
      if (y.isVector && column + 2 <= columns) {
        *reinterpret_cast<uint32_t*>(target) = packHalves<S>(x0, x1);
      } else {
        if (column < columns) target[0] = convert<S>(x0);
        if (column + 1 < columns) target[y.column] = convert<S>(x1);
      }
    }
  }
}

// Calls f(width, isMasked), both integral_constants, for the widest of a head's matrices; false
// beyond 128.
template <class F>
bool visitMma(const AttentionSizes& size, const AttentionMask& mask, const F& f) {
  const auto withWidth = [&](auto width) {
    if (mask.data) {
      f(width, std::true_type());
    } else {
      f(width, std::false_type());
    }
    return true;
  };
  const int width = size.d > size.e ? size.d : size.e;
  if (width <= 32) return withWidth(std::integral_constant<int, 32>());
  if (width <= 64) return withWidth(std::integral_constant<int, 64>());
  return width <= 128 && withWidth(std::integral_constant<int, 128>());
}

}  // namespace adjoint::cuda
