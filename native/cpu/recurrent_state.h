// Products of a recurrent layer's weights with its state, step after step: the weights are packed
// once, each chunk of rows of the batch multiplies them on its own.
#pragma once
#include <algorithm>

#include "cpu/features.h"
#include "cpu/gemm_bf16.h"
#include "cpu/kernels/recurrent.h"
#include "cpu/packed_operand.h"
#include "shared/view.h"

namespace adjoint::cpu {

// forward: sums [rows, gates x units] = h [rows, units] w^T; backward: sums [rows, units] = d
// [rows, gates x units] w
enum class Pass { forward, backward };

// w [gates x units, units] of T, and products in T.
template <class T, class S>
class StateWeights {
 public:
  StateWeights(const View& w, int64_t gates, Pass pass)
      : units_(w.size[1]),
        width_(pass == Pass::forward ? gates * units_ : units_),
        packed_(pass == Pass::forward ? units_ : gates * units_, width_, w.as<T>(),
                w.stride[pass == Pass::forward ? 1 : 0], w.stride[pass == Pass::forward ? 0 : 1]) {}

  // Rows that one thread takes through the sequence: few, so that all threads have some, but more
  // where the weights are read from beyond the second cache at each step.
  int64_t chunkRows(int64_t rows) const {
    constexpr double kInL2 = 1 << 20;
    const bool isNear = packed_.bytes() <= kInL2;
    const int64_t most = std::clamp<int64_t>(ceilDivide(rows, isNear ? 8 : 4), 8, isNear ? 28 : 56);
    return rows == 0 ? 1 : ceilDivide(rows, ceilDivide(rows, most));
  }

  // The products of one chunk.
  class Chunk {
   public:
    Chunk(const StateWeights& weights, int64_t rows)
        : w_(weights), rows_(rows), sums_(rows * w_.width_ * sizeof(T)) {}
    StateRows<S> state() { return {}; }  // rows are read where they are
    void load(const S*) {}
    StateSums<T> multiply(const S* a, int64_t aRow) {
      static const T zeros[64] = {};
      T* sums = sums_.template as<T>();
      w_.packed_.multiply(rows_, a, aRow, sums, w_.width_, zeros, 0, 0);
      return {sums, w_.units_, kSumsBlock, w_.width_};
    }

   private:
    const StateWeights& w_;
    int64_t rows_;
    Workspace sums_;
  };

 private:
  int64_t units_, width_;
  PackedOperand<T> packed_;
};

// w of bfloat16, and products of bfloat16 with sums in float32. Gates are padded to whole blocks of
// the product.
template <>
class StateWeights<float, BFloat16> {
 public:
  StateWeights(const View& w, int64_t gates, Pass pass)
      : units_(w.size[1]),
        blocks_(ceilDivide(units_, kBlockSide)),
        columnBlocks_(pass == Pass::forward ? gates * blocks_ : blocks_),
        depth_(pass == Pass::forward ? blocks_ : gates * blocks_),
        space_(columnBlocks_ * 2 * depth_ * kTileElements * sizeof(uint16_t)),
        tiles_(space_.as<uint16_t>()),
        multiply_(bf16Multiply()) {
    const int64_t unitTiles = 2 * blocks_;
    parallelFor(gates * unitTiles, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t gate = i / unitTiles, tile = i % unitTiles;
        if (pass == Pass::forward) {
          packTile(tile, {w.stride[0], w.stride[1]}, w.as<uint16_t>() + gate * units_ * w.stride[0],
                   tiles_ + i * depth_ * kTileElements);
        } else {
          packTile(tile, {w.stride[1], w.stride[0]}, w.as<uint16_t>() + gate * units_ * w.stride[0],
                   tiles_ + (tile * depth_ + gate * blocks_) * kTileElements);
        }
      }
    });
  }

  // As many rows as are multiplied together, so that all threads have some; more where the batch
  // is large.
  int64_t chunkRows(int64_t rows) const {
    const int64_t together = hasFeature(Feature::amxBf16) ? kTileRows : kTileRows / 2;
    const int64_t most = std::clamp<int64_t>(ceilDivide(rows, 4), together, kBlockSide);
    return rows == 0 ? 1 : ceilDivide(rows, ceilDivide(rows, most));
  }

  class Chunk {
   public:
    Chunk(const StateWeights& weights, int64_t rows)
        : w_(weights),
          rows_(rows),
          width_(w_.depth_ * kTileDepth),
          space_(kBlockSide * width_ * sizeof(uint16_t)),
          sums_(w_.columnBlocks_ * kBlockElements * sizeof(float)) {
      uint16_t* state = space_.as<uint16_t>();
      std::fill_n(state, kBlockSide * width_, uint16_t(0));
      tiles_[0] = {state, width_, kTileDepth, nullptr};
      tiles_[1] = {state + kTileRows * width_, width_, kTileDepth, nullptr};
    }
    Chunk(const Chunk&) = delete;
    Chunk& operator=(const Chunk&) = delete;

    StateRows<BFloat16> state() { return {space_.as<BFloat16>(), width_, w_.blocks_ * kTileDepth}; }
    // h before the first step, [rows, units]
    void load(const BFloat16* h) {
      for (int64_t row = 0; row < rows_; row++) {
        std::copy_n(h + row * w_.units_, w_.units_, space_.as<BFloat16>() + row * width_);
      }
    }
    // Of what lies in state().
    StateSums<float> multiply(const BFloat16*, int64_t) {
      Bf16Block g{};
      g.m = rows_;
      g.n = w_.columnBlocks_ * kBlockSide;
      g.end = g.whole = w_.depth_;
      g.rows = tiles_;
      g.columns = w_.tiles_;
      g.columnTile = w_.depth_ * kTileElements;
      g.terms = 1;
      g.sums = sums_.as<float>();
      g.isFirst = true;
      w_.multiply_(g);
      return {g.sums, w_.blocks_ * kBlockElements, kBlockElements, kBlockSide};
    }

   private:
    const StateWeights& w_;
    int64_t rows_, width_;
    Workspace space_, sums_;
    Bf16Rows tiles_[2];
  };

 private:
  static_assert(kSumsBlock == kBlockSide && kTileDepth == kBlockSide, "one padding of the units");

  struct Strides {
    int64_t column, depth;
  };
  // 16 columns of one gate over its units.
  void packTile(int64_t tile, Strides strides, const uint16_t* w, uint16_t* to) const {
    const int64_t count = std::min(kTileRows, units_ - tile * kTileRows);
    if (count <= 0) {
      std::fill_n(to, blocks_ * kTileElements, uint16_t(0));
      return;
    }
    gemmBf16Table().packPairs(to, 0,
                              {w + tile * kTileRows * strides.column, false, strides.column,
                               strides.depth, count, units_});
  }

  int64_t units_, blocks_;        // blocks of 32 units
  int64_t columnBlocks_, depth_;  // in blocks, in tiles
  Workspace space_;
  uint16_t* tiles_;
  Bf16Multiply multiply_;
};

}  // namespace adjoint::cpu
