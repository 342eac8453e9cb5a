// The products of attention with operands of 16 bits.
#pragma once
#include "cuda/attention_mma.h"

namespace adjoint::cuda {

template <class S>
struct HalfMma {
  using Element = S;
  // Rows of the tiles that a block meets, and scores that are in registers at a time in the
  // backward pass: fewer where sums (of which there are kSums) and operands are wide.
  template <int kWidth>
  static constexpr int kTileRows = kMmaRows;
  template <int kWidth>
  static constexpr int kBackwardRows = kMmaRows;
  template <int kWidth, int kSums>
  static constexpr int kBackwardColumns = kWidth > 64 ? kMmaRows / 2 : kMmaRows;

  // Scores are in units of log2(e), so that exp2 gives the weights.
  static constexpr float kUnit = kLog2E;
  static ADJOINT_DEVICE float exp(float x) { return Math<float>::exp2(x); }
  static ADJOINT_DEVICE float logSumExp(float most, float sum) {
    return (most + Math<float>::log2(sum)) * kLn2;
  }

  struct Left {
    const uint32_t (&rows)[4];
  };
  // A warp's own 16 rows, as left matrices of 16 columns: they stay in registers, and what they
  // were taken from is free again.
  static constexpr bool kRowsStay = false;
  template <int kWidth>
  struct Rows {
    uint32_t pieces[kWidth / 16][4];
    ADJOINT_DEVICE void take(const S* tile, const MmaPlace& at) {
      const S* row = rowsOf<kWidth>(tile, at);
      ADJOINT_UNROLL
      for (int k = 0; k < kWidth / 16; k++) loadMatrices<false>(pieces[k], row + k * 16);
    }
    ADJOINT_DEVICE Left left(int k) const { return {pieces[k]}; }
  };
  // Sums of products, kPieces pieces of 16 x 8
  template <int kPieces>
  struct Products {
    float sums[kPieces][4] = {};
    ADJOINT_DEVICE void add(int n, const Left& left, uint32_t right0, uint32_t right1) {
      multiplyAccumulate<S>(sums[n], left.rows, right0, right1);
    }
    ADJOINT_DEVICE float sum(int n, int i) const { return sums[n][i]; }
  };

  // sum [16, kWidth] += weights [16, kColumns] tile, the weights rounded to S
  template <int kWidth, int kColumns>
  static ADJOINT_DEVICE void addWeighted(MmaSums<kWidth>& sum, const MmaSums<kColumns>& weights,
                                         const S* tile, const MmaPlace& at) {
    const S* row = tile + at.lane % 16 * kMmaStride<S, kWidth> + at.lane / 16 * 8;
    ADJOINT_UNROLL
    for (int k = 0; k < kColumns / 16; k++) {
      const float(&low)[4] = weights[2 * k], (&high)[4] = weights[2 * k + 1];
      const uint32_t left[4] = {packHalves<S>(low[0], low[1]), packHalves<S>(low[2], low[3]),
                                packHalves<S>(high[0], high[1]), packHalves<S>(high[2], high[3])};
      ADJOINT_UNROLL
      for (int n = 0; n < kWidth / 16; n++) {
        uint32_t right[4];
        loadMatrices<true>(right, row + k * 16 * kMmaStride<S, kWidth> + n * 16);
        multiplyAccumulate<S>(sum[2 * n], left, right[0], right[1]);
        multiplyAccumulate<S>(sum[2 * n + 1], left, right[2], right[3]);
      }
    }
  }

  // Rows of y [rows, columns] from `first` on = factor[half] sum, factors of the upper and lower
  // rows
  template <int kWidth>
  static ADJOINT_DEVICE void store(const Heads<S>& y, int batch, int head, int first, int rows,
                                   int columns, const MmaSums<kWidth>& sum,
                                   const float (&factor)[2], const MmaPlace& at) {
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
};

}  // namespace adjoint::cuda
