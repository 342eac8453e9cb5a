// The rate of tdpbf16ps: four tiles of sums, which cover its latency, of two operands by two.
#include "cpu/features/probe.h"
#include "cpu/features/tiles.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

constexpr int kRows = 16, kDepth = 32;  // of a tile of 16 x 32 bfloat16, or 16 x 16 float32

float multiplyAdds(int64_t steps) {
  alignas(64) uint16_t operands[4 * kRows * kDepth];
  fillOperands(operands);
  beginTiles();
  zeroTile<0>();
  zeroTile<1>();
  zeroTile<2>();
  zeroTile<3>();
  loadTile<4>(operands, 2 * kDepth);
  loadTile<5>(operands + kRows * kDepth, 2 * kDepth);
  loadTile<6>(operands + 2 * kRows * kDepth, 2 * kDepth);
  loadTile<7>(operands + 3 * kRows * kDepth, 2 * kDepth);
  for (int64_t s = 0; s < steps; s++) {
    multiplyTiles<0, 4, 6>();
    multiplyTiles<1, 4, 7>();
    multiplyTiles<2, 5, 6>();
    multiplyTiles<3, 5, 7>();
  }
  alignas(64) float sums[4][kRows * kRows];
  storeTile<0>(sums[0], 4 * kRows);
  storeTile<1>(sums[1], 4 * kRows);
  storeTile<2>(sums[2], 4 * kRows);
  storeTile<3>(sums[3], 4 * kRows);
  endTiles();
  float total = 0;
  for (int t = 0; t < 4; t++) {
    for (int i = 0; i < kRows * kRows; i++) total += sums[t][i];
  }
  return total;
}

}  // namespace

const ProbeTable probeTable = {multiplyAdds, 2.0 * 4 * kRows* kRows* kDepth};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
