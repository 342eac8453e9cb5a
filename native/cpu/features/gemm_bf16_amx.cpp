// The bfloat16 product on AMX: a block of c stays in four tile registers, two hold a and two b, so
// four products come on four loads.
#include "cpu/features/gemm_bf16.h"
#include "cpu/features/tiles.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// Tiles 0..3 are c (2 r + s), 4 and 5 rows of a, 6 and 7 columns of b.
template <int R, int S>
ADJOINT_INLINE void step(const uint16_t* a0, int64_t row0, const uint16_t* a1, int64_t row1,
                         const uint16_t* b0, const uint16_t* b1) {
  loadTile<6>(b0, 64);
  loadTile<4>(a0, 2 * row0);
  multiplyTiles<0, 4, 6>();
  if constexpr (S == 2) {
    loadTile<7>(b1, 64);
    multiplyTiles<1, 4, 7>();
  }
  if constexpr (R == 2) {
    loadTile<5>(a1, 2 * row1);
    multiplyTiles<2, 5, 6>();
    if constexpr (S == 2) multiplyTiles<3, 5, 7>();
  }
}

// One plane of a by one of b.
template <int R, int S>
ADJOINT_INLINE void alongDepth(const Bf16Block& g, const Bf16Rows& r0, const Bf16Rows& r1,
                               const uint16_t* b0, int64_t aPlane, int64_t bPlane) {
  const uint16_t* b1 = b0 + g.columnTile;
  b0 += bPlane;
  b1 += bPlane;
  const int64_t end = g.end < g.whole ? g.end : g.whole;
  int64_t s = g.begin;
  for (; s < end; s++) {
    step<R, S>(r0.at + aPlane + s * r0.step, r0.row, r1.at + aPlane + s * r1.step, r1.row,
               b0 + s * kTileElements, b1 + s * kTileElements);
  }
  if (s < g.end) {
    step<R, S>(r0.edge, kTileDepth, r1.edge, kTileDepth, b0 + s * kTileElements,
               b1 + s * kTileElements);
  }
}

template <int R, int S>
ADJOINT_INLINE void start(const Bf16Block& g, const float* sums) {
  constexpr int64_t row = kBlockSide * 4;
  if (g.isFirst) {
    zeroTile<0>();
    if (S == 2) zeroTile<1>();
    if (R == 2) zeroTile<2>();
    if (R == 2 && S == 2) zeroTile<3>();
    return;
  }
  loadTile<0>(sums, row);
  if (S == 2) loadTile<1>(sums + kTileRows, row);
  if (R == 2) loadTile<2>(sums + kTileRows * kBlockSide, row);
  if (R == 2 && S == 2) loadTile<3>(sums + kTileRows * kBlockSide + kTileRows, row);
}

template <int R, int S>
void block(const Bf16Block& g, const Bf16Rows* rows, const uint16_t* b, float* sums) {
  constexpr int64_t row = kBlockSide * 4;
  const Bf16Rows &r0 = rows[0], &r1 = rows[R - 1];
  start<R, S>(g, sums);
  if (g.terms == 3) {  // the smallest first
    alongDepth<R, S>(g, r0, r1, b, g.rowsRest, 0);
    alongDepth<R, S>(g, r0, r1, b, 0, g.columnsRest);
  }
  alongDepth<R, S>(g, r0, r1, b, 0, 0);
  storeTile<0>(sums, row);
  if (S == 2) storeTile<1>(sums + kTileRows, row);
  if (R == 2) storeTile<2>(sums + kTileRows * kBlockSide, row);
  if (R == 2 && S == 2) storeTile<3>(sums + kTileRows * kBlockSide + kTileRows, row);
}

void multiply(const Bf16Block& g) {
  beginTiles();
  forEachBlock(
      g, [&](int64_t rows, int64_t columns, const Bf16Rows* a, const uint16_t* b, float* sums) {
        if (rows > kTileRows) {
          if (columns > kTileRows) return block<2, 2>(g, a, b, sums);
          return block<2, 1>(g, a, b, sums);
        }
        if (columns > kTileRows) return block<1, 2>(g, a, b, sums);
        block<1, 1>(g, a, b, sums);
      });
  endTiles();
}

}  // namespace

const Bf16Multiply multiplyBf16 = {multiply, false};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
