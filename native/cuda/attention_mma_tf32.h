// The products of attention with operands of float32.
#pragma once
#include "cuda/attention_mma.h"

namespace adjoint::cuda {

// x = high + low (+ at most 2^-21 x), both of 11 bits, as the tensor cores take them. The factor
// makes the cut a rounding: it adds what is half of the last bit on average. cvt.rna.tf32 would
// cost four instructions, and more than one for each product is what these kernels have no time
// for. An infinity and a NaN stay in `high`; the unit does not read the last 13 bits of `low`.
struct Tf32Parts {
  uint32_t high, low;
  explicit ADJOINT_DEVICE Tf32Parts(float x)
      : high(bitCast<uint32_t>(x * 1.00034f) & 0xffffe000u),
        low(bitCast<uint32_t>(x - bitCast<float>(high))) {}
  explicit ADJOINT_DEVICE Tf32Parts(uint32_t x) : Tf32Parts(bitCast<float>(x)) {}
};

// kProducts 3: a b = high high + (low high + high low), which lacks low low, 2^-22 a b at most, has
// the accuracy of float32 (Ootomo & Yokota 2022, "Recovering single precision accuracy from Tensor
// Cores while surpassing the FP32 theoretical peak performance"); kProducts 1: high high alone.
template <int kProducts>
struct Tf32Mma {
  using Element = float;
  template <int kWidth>
  static constexpr int kTileRows = kWidth > 64   ? 16
                                   : kWidth > 32 ? 32
                                                 : kMmaRows;
  template <int kWidth>
  static constexpr int kBackwardRows = kWidth > 64   ? 16
                                       : kWidth > 32 ? 32
                                                     : kMmaRows;
  template <int kWidth, int kSums>
  static constexpr int kBackwardColumns = kWidth* kSums > 64 ? 16 : 32;

  // In units of log2(e) a score would be rounded once more, while it is far from 0.
  static constexpr float kUnit = 1;
  static ADJOINT_DEVICE float exp(float x) { return Math<float>::exp2(x * kLog2E); }
  static ADJOINT_DEVICE float logSumExp(float most, float sum) {
    return most + Math<float>::log(sum);
  }

  struct Left {
    uint32_t high[4], low[4];
    explicit ADJOINT_DEVICE Left(const uint32_t (&rows)[4]) {
      ADJOINT_UNROLL
      for (int i = 0; i < 4; i++) {
        const Tf32Parts parts(rows[i]);
        high[i] = parts.high;
        low[i] = parts.low;
      }
    }
  };
  // A warp's own 16 rows, as left matrices of 8 columns, of which there are twice as many registers
  // as of halves: they stay in shared memory.
  static constexpr bool kRowsStay = true;
  template <int kWidth>
  struct Rows {
    const float* row;
    ADJOINT_DEVICE void take(const float* tile, const MmaPlace& at) {
      row = rowsOf<kWidth>(tile, at);
    }
    ADJOINT_DEVICE Left left(int k) const {
      uint32_t piece[4];
      loadMatrices<false>(piece, row + k * 8);
      return Left(piece);
    }
  };
  // The unit cuts its sums off, so they are kept short, are added to others in float32, and the
  // small ones have an accumulator of their own. Beside an infinity these are NaN, and count for
  // nothing.
  template <int kPieces>
  struct Products {
    float large[kPieces][4] = {}, small[kPieces][4] = {};
    ADJOINT_DEVICE void add(int n, const Left& left, uint32_t right0, uint32_t right1) {
      const Tf32Parts first(right0), second(right1);
      if constexpr (kProducts == 3) {
        multiplyAccumulate<float>(small[n], left.low, first.high, second.high);
        multiplyAccumulate<float>(small[n], left.high, first.low, second.low);
      }
      multiplyAccumulate<float>(large[n], left.high, first.high, second.high);
    }
    ADJOINT_DEVICE float sum(int n, int i) const {
      if constexpr (kProducts == 1) return large[n][i];
      const float all = large[n][i] + small[n][i];
      return all == all ? all : large[n][i];
    }
  };

  // sum [16, kWidth] += weights [16, kColumns] tile. A lane holds weights 2t and 2t + 1 of eight,
  // and the unit wants those of steps t and t + 4: rows of the tile are taken in the same order,
  // which changes no sum. Column g of piece n is the tile's 2 g + n, of each 16: one access of 8
  // bytes serves two pieces, and the 16 lanes that are served at a time lie in different banks, 8 t
  // + 2 g with four values of each.
  template <int kWidth, int kColumns>
  static ADJOINT_DEVICE void addWeighted(MmaSums<kWidth>& sum, const MmaSums<kColumns>& weights,
                                         const float* tile, const MmaPlace& at) {
    struct alignas(8) Pair {
      float value[2];
    };
    constexpr int kStride = kMmaStride<float, kWidth>;
    const float* row = tile + at.lane % 4 * 2 * kStride + at.lane / 4 * 2;
    ADJOINT_UNROLL
    for (int c = 0; c < kWidth / 16; c++) {
      Products<2> products;
      ADJOINT_UNROLL
      for (int k = 0; k < kColumns / 8; k++) {
        const float(&w)[4] = weights[k];
        const Left left({bitCast<uint32_t>(w[0]), bitCast<uint32_t>(w[2]), bitCast<uint32_t>(w[1]),
                         bitCast<uint32_t>(w[3])});
        const auto even = *reinterpret_cast<const Pair*>(row + k * 8 * kStride + c * 16),
                   odd = *reinterpret_cast<const Pair*>(row + (k * 8 + 1) * kStride + c * 16);
        ADJOINT_UNROLL
        for (int n = 0; n < 2; n++) {
          products.add(n, left, bitCast<uint32_t>(even.value[n]), bitCast<uint32_t>(odd.value[n]));
        }
      }
      ADJOINT_UNROLL
      for (int n = 0; n < 2; n++) {
        ADJOINT_UNROLL
        for (int i = 0; i < 4; i++) sum[c * 2 + n][i] += products.sum(n, i);
      }
    }
  }

  // Rows of y [rows, columns] from `first` on = factor[half] sum, factors of the upper and lower
  // rows: a lane has four neighbouring columns of each 16.
  template <int kWidth>
  static ADJOINT_DEVICE void store(const Heads<float>& y, int batch, int head, int first, int rows,
                                   int columns, const MmaSums<kWidth>& sum,
                                   const float (&factor)[2], const MmaPlace& at) {
    float* const data = y.at(batch, head);
    ADJOINT_UNROLL
    for (int half = 0; half < 2; half++) {
      const int row = first + at.row(2 * half);
      if (row >= rows) continue;
      ADJOINT_UNROLL
      for (int c = 0; c < kWidth / 16; c++) {
        const int column = c * 16 + at.lane % 4 * 4;
        float* target = data + row * y.row + column * y.column;
        MmaWide<float> x;
        ADJOINT_UNROLL
        for (int i = 0; i < 4; i++) {
          // A row without keys is 0 even where its sum is not a number.
          x.value[i] = factor[half] == 0 ? 0 : sum[c * 2 + i % 2][2 * half + i / 2] * factor[half];
        }
        if (y.isVector && column + 4 <= columns) {
          *reinterpret_cast<MmaWide<float>*>(target) = x;
        } else {
          ADJOINT_UNROLL
          for (int i = 0; i < 4; i++) {
            if (column + i < columns) target[i * y.column] = x.value[i];
          }
        }
      }
    }
  }
};

}  // namespace adjoint::cuda
