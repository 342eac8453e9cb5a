#include "cpu/kernels/gemm_bf16.h"

#include "cpu/kernels/bf16_lanes.h"
#include "cpu/kernels/gemm_pack.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

constexpr int64_t kLanes32 = kLanes<float>;
// -1 where the exponent is all ones
ADJOINT_INLINE Words notFinite(Words x) {
  return (Words)((x & 0x7f800000u) == 0x7f800000u);
}

// y = bfloat16(x), and where Rest yRest = bfloat16(x - y).
template <bool Rest>
ADJOINT_INLINE Words roundVector(uint16_t* y, uint16_t* yRest, Vector<float> x) {
  const Words upper = roundToUpperHalf(x);
  storeUpperHalves(y, upper);
  if constexpr (!Rest) return Words{};
  storeUpperHalves(yRest, roundToUpperHalf(x - (Vector<float>)upper));
  return notFinite(upper);
}

// n <= 32 elements; the rest of the row are zeros.
template <bool Rest>
ADJOINT_INLINE Words roundRow(uint16_t* y, uint16_t* yRest, const float* x, int64_t n) {
  Words bad = {};
  int64_t i = 0;
  for (; i + kLanes32 <= n; i += kLanes32) {
    bad |= roundVector<Rest>(y + i, Rest ? yRest + i : nullptr, load(x + i));
  }
  for (; i < kTileDepth; i += kLanes32) {
    const int64_t count = n - i < 0 ? 0 : n - i < kLanes32 ? n - i : kLanes32;
    bad |= roundVector<Rest>(y + i, Rest ? yRest + i : nullptr, loadPartial(x + i, count));
  }
  return bad;
}

ADJOINT_INLINE void copyRow(uint16_t* y, const uint16_t* x, int64_t n) {
  if (n == kTileDepth) {
    __builtin_memcpy(y, x, kTileDepth * 2);
    return;
  }
  for (int64_t i = 0; i < kTileDepth; i++) y[i] = i < n ? x[i] : 0;
}

// Words of the even row's elements (low) and the odd row's (high): rows as two times 16 elements.
ADJOINT_INLINE void interleaveRows(uint16_t* y, const uint16_t* even, const uint16_t* odd) {
  for (int64_t i = 0; i < kTileRows; i += kLanes32) {
    const Words w = wordsOf(even + i) | wordsOf(odd + i) << 16;
    __builtin_memcpy(y + 2 * i, &w, sizeof w);
  }
}

// The other order of a tile: its words, pairs of the depth, are transposed.
ADJOINT_INLINE void transposeTile(uint16_t* y, const uint16_t* x) {
  float* to = reinterpret_cast<float*>(y);
  const float* from = reinterpret_cast<const float*>(x);
  for (int64_t i = 0; i < kTileRows; i += kLanes32) {
    for (int64_t j = 0; j < kTileRows; j += kLanes32) {
      transposeLanes(to + j * kTileRows + i, kTileRows, from + i * kTileRows + j, kTileRows,
                     kLanes32, to + kTileElements);
    }
  }
}

ADJOINT_INLINE void clear(uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = 0;
}

// The tile from step k of the depth on, in the order of rows.
template <bool Rest>
ADJOINT_INLINE Words tileOfRows(uint16_t* y, uint16_t* yRest, const Bf16Source& s, int64_t k) {
  const int64_t n = s.depth - k < kTileDepth ? s.depth - k : kTileDepth;
  Words bad = {};
  for (int64_t i = 0; i < s.count; i++) {
    const int64_t at = i * s.stride + k * s.kStride;
    uint16_t* row = y + i * kTileDepth;
    uint16_t* rowRest = Rest ? yRest + i * kTileDepth : nullptr;
    if (s.isFloat) {
      const float* x = static_cast<const float*>(s.data) + at;
      float gathered[kTileDepth];
      if (s.kStride != 1) {
        for (int64_t d = 0; d < n; d++) gathered[d] = x[d * s.kStride];
        x = gathered;
      }
      bad |= roundRow<Rest>(row, rowRest, x, n);
    } else {
      const uint16_t* x = static_cast<const uint16_t*>(s.data) + at;
      uint16_t gathered[kTileDepth];
      if (s.kStride != 1) {
        for (int64_t d = 0; d < n; d++) gathered[d] = x[d * s.kStride];
        x = gathered;
      }
      copyRow(row, x, n);
    }
  }
  const int64_t missing = (kTileRows - s.count) * kTileDepth;
  clear(y + s.count * kTileDepth, missing);
  if (Rest) clear(yRest + s.count * kTileDepth, missing);
  return bad;
}

// The same in the order of pairs, where the 16 elements of a step lie side by side.
template <bool Rest>
ADJOINT_INLINE Words tileOfPairs(uint16_t* y, uint16_t* yRest, const Bf16Source& s, int64_t k) {
  Words bad = {};
  for (int64_t p = 0; p < kTileDepth; p += 2) {
    alignas(64) uint16_t half[2][kTileDepth], rest[2][kTileDepth];
    const uint16_t* row[2] = {half[0], half[1]};
    for (int64_t d = 0; d < 2; d++) {
      const bool exists = k + p + d < s.depth;
      const int64_t at = (k + p + d) * s.kStride;
      if (!exists) {
        clear(half[d], kTileRows);
        if (Rest) clear(rest[d], kTileRows);
      } else if (s.isFloat) {
        const float* x = static_cast<const float*>(s.data) + at;
        for (int64_t i = 0; i < kTileRows; i += kLanes32) {
          const int64_t left = s.count - i < 0 ? 0 : s.count - i;
          bad |= roundVector<Rest>(half[d] + i, rest[d] + i,
                                   left >= kLanes32 ? load(x + i) : loadPartial(x + i, left));
        }
      } else {
        const uint16_t* x = static_cast<const uint16_t*>(s.data) + at;
        if (s.count == kTileRows) {
          row[d] = x;
        } else {
          for (int64_t i = 0; i < kTileRows; i++) half[d][i] = i < s.count ? x[i] : 0;
        }
      }
    }
    interleaveRows(y + p * kTileRows, row[0], row[1]);
    if (Rest) interleaveRows(yRest + p * kTileRows, rest[0], rest[1]);
  }
  return bad;
}

template <bool Pairs, bool Rest>
ADJOINT_INLINE bool packTiles(uint16_t* y, int64_t restAt, const Bf16Source& s) {
  const bool comesInPairs = s.stride == 1 && s.kStride != 1;
  Words bad = {};
  for (int64_t k = 0; k < s.depth; k += kTileDepth, y += kTileElements) {
    uint16_t* rest = Rest ? y + restAt : nullptr;
    alignas(64) uint16_t turned[kTileElements], turnedRest[Rest ? kTileElements : 1];
    const bool turns = comesInPairs != Pairs;
    uint16_t* to = turns ? turned : y;
    uint16_t* toRest = turns ? turnedRest : rest;
    bad |= comesInPairs ? tileOfPairs<Rest>(to, toRest, s, k) : tileOfRows<Rest>(to, toRest, s, k);
    if (turns) {
      transposeTile(y, turned);
      if (Rest) transposeTile(rest, turnedRest);
    }
  }
  uint32_t any = 0;
  for (int64_t i = 0; i < kLanes32; i++) any |= bad[i];
  return any == 0;
}

template <bool Pairs>
bool pack(uint16_t* tiles, int64_t rest, const Bf16Source& source) {
  return rest ? packTiles<Pairs, true>(tiles, rest, source)
              : packTiles<Pairs, false>(tiles, 0, source);
}

void packStep(uint16_t* tiles, int64_t tileStride, const uint16_t* rows, int64_t rowStride,
              int64_t count) {
  constexpr int64_t kAhead = 4 * kTileRows;
  for (int64_t t = 0; t < count; t += 2) {
    uint16_t* y = tiles + t * tileStride;
    for (int64_t k = 0; k < kTileDepth; k += 2) {
      const uint16_t *even = rows + k * rowStride + t * kTileRows, *odd = even + rowStride;
      __builtin_prefetch(even + kAhead);
      __builtin_prefetch(odd + kAhead);
      interleaveRows(y + k * kTileRows, even, odd);
      if (t + 1 == count) continue;
      interleaveRows(y + tileStride + k * kTileRows, even + kTileRows, odd + kTileRows);
    }
  }
}

void packShifted(uint16_t* tiles, const uint16_t* base, const int64_t* offset, int64_t depth) {
  alignas(64) static const uint16_t zeros[kTileRows] = {};
  const int64_t padded = (depth + kTileDepth - 1) / kTileDepth * kTileDepth;
  for (int64_t k = 0; k < padded; k += 2, tiles += 2 * kTileRows) {
    interleaveRows(tiles, k < depth ? base + offset[k] : zeros,
                   k + 1 < depth ? base + offset[k + 1] : zeros);
  }
}

void packRuns(uint16_t* tiles, const uint16_t* base, const int64_t* offset, int64_t count,
              int64_t depth) {
  alignas(64) uint16_t rows[kTileElements] = {};
  for (int64_t k = 0; k < depth; k += kTileDepth, tiles += kTileElements) {
    const int64_t n = depth - k < kTileDepth ? depth - k : kTileDepth;
    for (int64_t i = 0; i < count; i++) copyRow(rows + i * kTileDepth, base + offset[i] + k, n);
    transposeTile(tiles, rows);
  }
}

ADJOINT_INLINE void storeResult(void* c, bool isFloat, int64_t at, Vector<float> x, int64_t count) {
  if (isFloat) {
    float* y = static_cast<float*>(c) + at;
    if (count == kLanes32) return storeVector(y, x);
    return storePartial(y, x, count);
  }
  uint16_t* y = static_cast<uint16_t*>(c) + at;
  const Words upper = roundToUpperHalf(x);
  if (count == kLanes32) return storeUpperHalves(y, upper);
  for (int64_t i = 0; i < count; i++) y[i] = static_cast<uint16_t>(upper[i] >> 16);
}

void finish(const Bf16Result& result, const float* block, int64_t i, int64_t j, int64_t rows,
            int64_t columns) {
  Bf16Result r = result;
  alignas(64) float turned[kBlockElements];
  if (r.column != 1 && r.row == 1) {
    for (int64_t y = 0; y < kBlockSide; y += kLanes32) {
      for (int64_t x = 0; x < kBlockSide; x += kLanes32) {
        transposeLanes(turned + x * kBlockSide + y, kBlockSide, block + y * kBlockSide + x,
                       kBlockSide, kLanes32, turned + kBlockElements);
      }
    }
    block = turned;
    r.row = result.column;
    r.column = 1;
    r.biasRow = result.biasColumn;
    r.biasColumn = result.biasRow;
    int64_t t = i;
    i = j;
    j = t;
    t = rows;
    rows = columns;
    columns = t;
  }
  for (int64_t y = 0; y < rows; y++) {
    const float* bias = r.bias ? r.bias + (i + y) * r.biasRow + j * r.biasColumn : nullptr;
    const int64_t at = (i + y) * r.row + j * r.column;
    for (int64_t x = 0; x < columns; x += kLanes32) {
      const int64_t count = columns - x < kLanes32 ? columns - x : kLanes32;
      Vector<float> sum = load(block + y * kBlockSide + x);
      if (bias) sum += r.biasColumn ? load(bias + x) : splat(*bias);
      if (r.rectify) sum = sum <= 0 ? Vector<float>{} : sum;
      if (r.column == 1) {
        storeResult(r.c, r.isFloat, at + x, sum, count);
      } else {
        for (int64_t e = 0; e < count; e++) {
          const int64_t place = at + (x + e) * r.column;
          if (r.isFloat) {
            static_cast<float*>(r.c)[place] = sum[e];
          } else {
            static_cast<uint16_t*>(r.c)[place] = toBFloat16(sum[e]).bits;
          }
        }
      }
    }
  }
}

}  // namespace

const GemmBf16Table gemmBf16Table = {pack<false>, pack<true>, packStep,
                                     packShifted, packRuns,   finish};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
