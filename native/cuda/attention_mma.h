// Tiles of matrices in shared memory and their products on tensor cores, as the kernels of
// attention use them. Each of a block's four warps has 16 rows of the block's own sequence; where a
// lane's numbers stand in a 16 x 8 piece of a sum, tensor_core.h says. What depends on the dtype is
// in `Mma`: HalfMma (attention_mma_half.h) or Tf32Mma (attention_mma_tf32.h).
#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda/async_copy.h"
#include "cuda/attention_operands.h"
#include "cuda/tensor_core.h"

namespace adjoint::cuda {

constexpr int kMmaCapability = 80;  // at least
constexpr int kMmaWarps = 4;
constexpr int kMmaThreads = kMmaWarps * kWarp;
constexpr int kMmaRows = 16 * kMmaWarps;  // of a block, and of the tiles it meets
constexpr float kLog2E = 1.44269504f, kLn2 = 0.69314718f;

template <class S>
constexpr int kMmaWide = 16 / static_cast<int>(sizeof(S));
// Eight rows that are this far apart lie in different banks: they begin 16 bytes on, each after the
// other.
template <class S, int kWidth>
constexpr int kMmaStride = kWidth + kMmaWide<S>;

template <class S>
struct alignas(16) MmaWide {
  S value[kMmaWide<S>];
};

// Sums of a warp's 16 rows
template <int kWidth>
using MmaSums = float[kWidth / 8][4];

struct MmaPlace {
  int warp = static_cast<int>(threadIdx.x) / kWarp;
  int lane = static_cast<int>(threadIdx.x) % kWarp;
  // Row and column of element i of a sum's piece n, of the block's rows and the tile's columns.
  ADJOINT_DEVICE int row(int i) const { return warp * 16 + lane / 4 + i / 2 * 8; }
  ADJOINT_DEVICE int column(int n, int i) const { return n * 8 + lane % 4 * 2 + i % 2; }
};

// tile [kRows, kWidth] = the rows of x from `row` on, 0 beyond its ends. The tile is there after
// commitCopies, a wait and a barrier.
template <int kRows, int kWidth, class S>
ADJOINT_DEVICE void loadMmaTile(S* tile, const TileSource<S>& x, int row) {
  constexpr int W = kMmaWide<S>, kAcross = kWidth / W, kSteps = kRows * kAcross / kMmaThreads;
  constexpr int kRowsAtOnce = kMmaThreads / kAcross;
  const int first = static_cast<int>(threadIdx.x) / kAcross;
  const int c = static_cast<int>(threadIdx.x) % kAcross * W, rest = x.columns - c;
  MmaWide<S>* target = reinterpret_cast<MmaWide<S>*>(tile + first * kMmaStride<S, kWidth> + c);
  constexpr int kTargetStep = kRowsAtOnce * kMmaStride<S, kWidth> / W;
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
    for (int j = 0; j < W; j++) {
      element[j] = isInside && j < rest ? source[j * x.column] : S{0};
    }
  }
}

// Where a lane's share of its warp's 16 rows of a tile begins.
template <int kWidth, class S>
ADJOINT_DEVICE const S* rowsOf(const S* tile, const MmaPlace& at) {
  return tile + (at.warp * 16 + at.lane % 16) * kMmaStride<S, kWidth> + at.lane / 16 * kMmaWide<S>;
}

// s [16, kColumns] = rows tile^T, for the first kColumns rows of a tile
template <class Mma, int kWidth, int kColumns, class S>
ADJOINT_DEVICE void multiplyTile(MmaSums<kColumns>& s,
                                 const typename Mma::template Rows<kWidth>& rows, const S* tile,
                                 const MmaPlace& at) {
  constexpr int W = kMmaWide<S>;
  typename Mma::template Products<kColumns / 8> products;
  // Two pieces of eight columns at a time, each with the lower and the upper half of 32 bytes.
  const S* row =
      tile + (at.lane / 16 * 8 + at.lane % 8) * kMmaStride<S, kWidth> + at.lane / 8 % 2 * W;
  ADJOINT_UNROLL
  for (int k = 0; k < kWidth / (2 * W); k++) {
    const typename Mma::Left left = rows.left(k);
    ADJOINT_UNROLL
    for (int n = 0; n < kColumns / 16; n++) {
      uint32_t right[4];
      loadMatrices<false>(right, row + n * 16 * kMmaStride<S, kWidth> + k * 2 * W);
      products.add(2 * n, left, right[0], right[1]);
      products.add(2 * n + 1, left, right[2], right[3]);
    }
  }
  ADJOINT_UNROLL
  for (int n = 0; n < kColumns / 8; n++) {
    ADJOINT_UNROLL
    for (int i = 0; i < 4; i++) s[n][i] = products.sum(n, i);
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
