// The bfloat16 product on AVX512-BF16: vdpbf16ps adds the products of pairs, c += a0 b0 + a1 b1. A
// pair of a goes to all lanes, a vector of b holds the pairs of 16 columns.
#include <immintrin.h>

#include "cpu/features/gemm_bf16.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

constexpr int kRows = 8;  // by two vectors of columns: 16 sums, two of b and one of a in registers

ADJOINT_INLINE __m512i load(const uint16_t* p) {
  return _mm512_loadu_si512(p);
}
ADJOINT_INLINE __m512i pairInAllLanes(const uint16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm512_set1_epi32(pair);
}

// sum [8][S] += eight rows of a tile of a by S tiles of b
template <int S>
ADJOINT_INLINE void step(__m512 (&sum)[kRows][S], const uint16_t* a, int64_t row, int64_t pair,
                         const uint16_t* b0, const uint16_t* b1) {
#pragma GCC unroll 2
  for (int64_t p = 0; p < kTileDepth; p += 2, a += pair) {
    __m512i b[S];
    b[0] = load(b0 + p * kTileRows);
    if constexpr (S == 2) b[1] = load(b1 + p * kTileRows);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      const __m512i x = pairInAllLanes(a + r * row);
#pragma GCC unroll 2
      for (int s = 0; s < S; s++) {
        sum[r][s] = _mm512_dpbf16_ps(sum[r][s], (__m512bh)x, (__m512bh)b[s]);
      }
    }
  }
}

template <int S>
ADJOINT_INLINE void alongDepth(__m512 (&sum)[kRows][S], const Bf16Block& g, const Bf16Rows& r,
                               int64_t firstRow, const uint16_t* b0, int64_t aPlane,
                               int64_t bPlane) {
  const uint16_t* b1 = b0 + g.columnTile;
  b0 += bPlane;
  b1 += bPlane;
  const int64_t end = g.end < g.whole ? g.end : g.whole;
  int64_t s = g.begin;
  for (; s < end; s++) {
    step<S>(sum, r.at + aPlane + firstRow * r.row + s * r.step, r.row, r.pair,
            b0 + s * kTileElements, b1 + s * kTileElements);
  }
  if (s < g.end) {
    step<S>(sum, r.edge + firstRow * kTileDepth, kTileDepth, 2, b0 + s * kTileElements,
            b1 + s * kTileElements);
  }
}

// Eight rows of a block.
template <int S>
void strip(const Bf16Block& g, const Bf16Rows& r, int64_t firstRow, const uint16_t* b,
           float* sums) {
  __m512 sum[kRows][S];
#pragma GCC unroll 8
  for (int y = 0; y < kRows; y++) {
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) {
      sum[y][s] =
          g.isFirst ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + y * kBlockSide + s * kTileRows);
    }
  }
  if (g.terms == 3) {  // the smallest first
    alongDepth<S>(sum, g, r, firstRow, b, g.rowsRest, 0);
    alongDepth<S>(sum, g, r, firstRow, b, 0, g.columnsRest);
  }
  alongDepth<S>(sum, g, r, firstRow, b, 0, 0);
#pragma GCC unroll 8
  for (int y = 0; y < kRows; y++) {
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) {
      _mm512_storeu_ps(sums + y * kBlockSide + s * kTileRows, sum[y][s]);
    }
  }
}

void multiply(const Bf16Block& g) {
  forEachBlock(
      g, [&](int64_t rows, int64_t columns, const Bf16Rows* a, const uint16_t* b, float* sums) {
        for (int64_t i = 0; i < rows; i += kRows) {
          const Bf16Rows& tile = a[i / kTileRows];
          const auto run = columns > kTileRows ? strip<2> : strip<1>;
          run(g, tile, i % kTileRows, b, sums + i * kBlockSide);
        }
      });
}

}  // namespace

const Bf16Multiply multiplyBf16 = {multiply, true};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
