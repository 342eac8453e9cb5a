#include <immintrin.h>

#include "cpu/features/attention_pairs.h"

#define ADJOINT_LEVEL_AVX512 1  // whose vectors this feature computes with
#include "cpu/kernels/gemm_pack.h"

namespace adjoint::cpu::ADJOINT_LEVEL {

extern const AttentionPairsKernels attentionPairsKernels;

namespace {

constexpr int kRows = 8;  // of a tile of sums, by two vectors of columns
constexpr int kVectors = 2;
constexpr int64_t kWidth = kLanes<float>;
constexpr float kLog2e = 1.44269504f;

ADJOINT_INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
ADJOINT_INLINE int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
ADJOINT_INLINE __mmask16 firstLanes(int64_t count) {
  return static_cast<__mmask16>(count >= kWidth ? 0xffff : count <= 0 ? 0 : (1u << count) - 1);
}
ADJOINT_INLINE __m512i loadHalves(const uint16_t* p) {
  return _mm512_loadu_si512(p);
}
ADJOINT_INLINE __mmask32 firstHalves(int64_t count) {
  return count >= 32 ? 0xffffffffu : count <= 0 ? 0 : (1u << count) - 1;
}
ADJOINT_INLINE __m512i pairInAllLanes(const uint16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm512_set1_epi32(pair);
}

// Halves, quarters, pairs and neighbours change places until every lane holds the whole fold.
template <class F>
ADJOINT_INLINE float foldLanes(__m512 x, F f) {
  x = f(x, _mm512_maskz_shuffle_f32x4(0xffff, x, x, 0x4e));
  x = f(x, _mm512_maskz_shuffle_f32x4(0xffff, x, x, 0xb1));
  x = f(x, _mm512_maskz_permute_ps(0xffff, x, 0x4e));
  x = f(x, _mm512_maskz_permute_ps(0xffff, x, 0xb1));
  return _mm512_cvtss_f32(x);
}
ADJOINT_INLINE __m512 largerOf(__m512 a, __m512 b) {
  return _mm512_maskz_max_ps(0xffff, a, b);
}
ADJOINT_INLINE __m512 sumOf(__m512 a, __m512 b) {
  return _mm512_add_ps(a, b);
}

// ---- panels

// Halves of a (even) and b (odd), alternating: 16 pairs from half 16 Half on.
template <int Half>
ADJOINT_INLINE __m512i alternating(__m512i a, __m512i b) {
  alignas(64) static constexpr uint16_t index[32] = {
      16 * Half + 0,  16 * Half + 32, 16 * Half + 1,  16 * Half + 33, 16 * Half + 2,
      16 * Half + 34, 16 * Half + 3,  16 * Half + 35, 16 * Half + 4,  16 * Half + 36,
      16 * Half + 5,  16 * Half + 37, 16 * Half + 6,  16 * Half + 38, 16 * Half + 7,
      16 * Half + 39, 16 * Half + 8,  16 * Half + 40, 16 * Half + 9,  16 * Half + 41,
      16 * Half + 10, 16 * Half + 42, 16 * Half + 11, 16 * Half + 43, 16 * Half + 12,
      16 * Half + 44, 16 * Half + 13, 16 * Half + 45, 16 * Half + 14, 16 * Half + 46,
      16 * Half + 15, 16 * Half + 47};
  return _mm512_permutex2var_epi16(a, loadHalves(index), b);
}

void packRows(uint16_t* b, int64_t bPanel, const uint16_t* rows, int64_t rowStride, int64_t depth,
              int64_t count) {
  for (int64_t k = 0; k < depth; k += 2, rows += 2 * rowStride, b += 2 * kWidth) {
    const bool isPair = k + 1 < depth;
    uint16_t* panel = b;
    for (int64_t j = 0; j < count; j += 2 * kWidth, panel += 2 * bPanel) {
      const __mmask32 halves = firstHalves(count - j);
      const __m512i even = _mm512_maskz_loadu_epi16(halves, rows + j);
      const __m512i odd = _mm512_maskz_loadu_epi16(isPair ? halves : 0, rows + rowStride + j);
      _mm512_storeu_si512(panel, alternating<0>(even, odd));
      if (j + kWidth < count) _mm512_storeu_si512(panel + bPanel, alternating<1>(even, odd));
    }
  }
}

void packTurned(uint16_t* b, int64_t bPanel, const uint16_t* rows, int64_t rowStride, int64_t depth,
                int64_t count) {
  for (int64_t j = 0; j < count; j += kWidth, rows += kWidth * rowStride, b += bPanel) {
    const int64_t existing = smaller(kWidth, count - j);
    for (int64_t k = 0; k < depth; k += 2 * kWidth) {
      const __mmask32 halves = firstHalves(depth - k);
      Vector<float> square[kWidth];
#pragma GCC unroll 16
      for (int64_t i = 0; i < kWidth; i++) {
        square[i] = i < existing
                        ? (Vector<float>)_mm512_maskz_loadu_epi16(halves, rows + i * rowStride + k)
                        : Vector<float>{};
      }
      transposeSquare<kWidth / 2, kWidth>(square);
      const int64_t pairs = smaller(kWidth, (depth - k + 1) / 2);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kWidth; i++) {
        if (i < pairs) _mm512_storeu_ps(b + (k + 2 * i) * kWidth, square[i]);
      }
    }
  }
}

// ---- products

// c [R, 16 V] (+)= a b over `pairs` pairs of the depth. SideBySide: pairs of rows of a are
// neighbours, so one pointer does.
template <int R, int V, bool SideBySide>
void tile(int64_t pairs, const uint16_t* a, int64_t aRow, int64_t aPair, const uint16_t* b,
          int64_t bPanel, float* c, int64_t cRow, bool accumulates) {
  constexpr int groups = (R + 2) / 3;
  __m512 sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      sum[r][v] = accumulates ? _mm512_loadu_ps(c + r * cRow + v * kWidth) : _mm512_setzero_ps();
    }
  }
  const uint16_t* row[groups];
#pragma GCC unroll 8
  for (int g = 0; g < groups; g++) row[g] = a + 3 * g * (SideBySide ? 2 : aRow);
  for (int64_t p = 0; p < pairs; p++, b += 2 * kWidth) {
    __m512i w[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) w[v] = loadHalves(b + v * bPanel);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const __m512i x = pairInAllLanes(SideBySide ? row[0] + 2 * r : row[r / 3] + r % 3 * aRow);
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) {
        sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)x, (__m512bh)w[v]);
      }
    }
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++) row[g] += aPair;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) _mm512_storeu_ps(c + r * cRow + v * kWidth, sum[r][v]);
  }
}

using Tile = void (*)(int64_t, const uint16_t*, int64_t, int64_t, const uint16_t*, int64_t, float*,
                      int64_t, bool);
template <bool SideBySide, int... R>
struct Tiles {
  static constexpr Tile byRows[kVectors][sizeof...(R)] = {{tile<R, 1, SideBySide>...},
                                                          {tile<R, 2, SideBySide>...}};
};
using TilesOfRows = Tiles<false, 1, 2, 3, 4, 5, 6, 7, 8>;
using TilesSideBySide = Tiles<true, 1, 2, 3, 4, 5, 6, 7, 8>;

// Rows in the inner loop, so that panels of b stay in the first cache.
void multiply(const PairsProduct& g) {
  const auto& tiles = g.aRow == 2 ? TilesSideBySide::byRows : TilesOfRows::byRows;
  const int64_t whole = (g.depth + 1) / 2;
  for (int64_t j = 0; j < g.n; j += kVectors * kWidth) {
    for (int64_t i = 0; i < g.m; i += kRows) {
      const int64_t rows = smaller(kRows, g.m - i), last = i + rows - 1;
      const int64_t columns = smaller(g.n, g.columnEnd + last) - j;
      if (columns <= 0) continue;
      const int64_t begin = larger(0, (g.depthBegin + i) / 2);
      const int64_t end = smaller(whole, (g.depthEnd + last + 1) / 2);
      tiles[columns > kWidth][rows - 1](end - begin, g.a + i * g.aRow + begin * g.aPair, g.aRow,
                                        g.aPair, g.b + j / kWidth * g.bPanel + begin * 2 * kWidth,
                                        g.bPanel, g.c + i * g.cRow + j, g.cRow, g.accumulates);
    }
  }
}

// ---- weights

ADJOINT_INLINE int64_t visibleIn(const ScoreBlock<float>& b, int64_t row) {
  return larger(0, smaller(b.columns, b.visible + row));
}
ADJOINT_INLINE __m512 loadFirst(const float* x, __mmask16 lanes) {
  return _mm512_maskz_loadu_ps(lanes, x);
}

// 2^t in those lanes where it is a normal number, 0 in the others. 2^t = 2^n (1 + r q(r)), |r| <=
// 1/2, with a relative error of 3e-6, a thousandth of what rounding to bfloat16 makes.
ADJOINT_INLINE __m512 exp2OrZero(__m512 t, __mmask16 lanes) {
  const __m512 n = _mm512_maskz_roundscale_ps(0xffff, t, 8), r = _mm512_sub_ps(t, n);
  __m512 q = _mm512_set1_ps(0.00958285294f);
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.0559064262f));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.240240991f));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.693124175f));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1));
  const __mmask16 normal = _mm512_mask_cmp_ps_mask(lanes, t, _mm512_set1_ps(-126), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(normal, q, n);
}

ADJOINT_INLINE __m512i rounded(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// The largest of scale s, whatever NaN there may be: it makes the sum of the exponentials NaN.
ADJOINT_INLINE float scaledMaximum(const float* s, int64_t n, float scale) {
  const __m512 factor = _mm512_set1_ps(scale), lowest = _mm512_set1_ps(-__builtin_inff());
  __m512 m[2] = {lowest, lowest};  // the second operand where one is NaN
  int64_t j = 0;
  for (; j + 2 * kWidth <= n; j += 2 * kWidth) {
    m[0] = largerOf(_mm512_mul_ps(_mm512_loadu_ps(s + j), factor), m[0]);
    m[1] = largerOf(_mm512_mul_ps(_mm512_loadu_ps(s + j + kWidth), factor), m[1]);
  }
  for (int64_t h = 0; j < n; j += kWidth, h++) {
    const __mmask16 lanes = firstLanes(n - j);
    m[h] = _mm512_mask_max_ps(m[h], lanes, _mm512_mul_ps(loadFirst(s + j, lanes), factor), m[h]);
  }
  return foldLanes(largerOf(m[0], m[1]), largerOf);
}

// p = bfloat16(2^(factor s - shift)) of n columns, zeros up to `columns`; the sum before rounding
ADJOINT_INLINE float exponentials(uint16_t* p, const float* s, int64_t n, int64_t columns,
                                  float factor, float shift) {
  const __m512 f = _mm512_set1_ps(factor), c = _mm512_set1_ps(shift);
  __m512 even = _mm512_setzero_ps(), odd = even;
  int64_t j = 0;
  for (; j + 2 * kWidth <= n; j += 2 * kWidth) {
    const __m512 x = exp2OrZero(_mm512_fmsub_ps(_mm512_loadu_ps(s + j), f, c), 0xffff);
    const __m512 y = exp2OrZero(_mm512_fmsub_ps(_mm512_loadu_ps(s + j + kWidth), f, c), 0xffff);
    even = _mm512_add_ps(even, x);
    odd = _mm512_add_ps(odd, y);
    _mm512_storeu_si512(p + j, rounded(x, y));
  }
  if (j < n) {
    const __mmask16 low = firstLanes(n - j), high = firstLanes(n - j - kWidth);
    const __m512 x = exp2OrZero(_mm512_fmsub_ps(loadFirst(s + j, low), f, c), low);
    const __m512 y = exp2OrZero(_mm512_fmsub_ps(loadFirst(s + j + kWidth, high), f, c), high);
    even = _mm512_add_ps(even, x);
    odd = _mm512_add_ps(odd, y);
    _mm512_storeu_si512(p + j, rounded(x, y));
    j += 2 * kWidth;
  }
  for (; j < columns; j += 2 * kWidth) _mm512_storeu_si512(p + j, _mm512_setzero_si512());
  return foldLanes(_mm512_add_ps(even, odd), sumOf);
}

ADJOINT_INLINE void scaleRow(float* o, int64_t width, float factor) {
  const __m512 f = _mm512_set1_ps(factor);
  for (int64_t j = 0; j < width; j += kWidth) {
    const __mmask16 lanes = firstLanes(width - j);
    _mm512_mask_storeu_ps(o + j, lanes, _mm512_mul_ps(loadFirst(o + j, lanes), f));
  }
}

void accumulate(const ScoreBlock<float>& b, float* m, double* l, float* o, int64_t oRow,
                int64_t width) {
  for (int64_t i = 0; i < b.rows; i++) {
    const float* s = b.s + i * b.stride;
    auto* p = reinterpret_cast<uint16_t*>(b.s + i * b.stride);
    const int64_t n = visibleIn(b, i);
    const float found = scaledMaximum(s, n, b.scale), most = found > m[i] ? found : m[i];
    // Where all is masked so far, 2^(-inf - 0) is the 0 that 2^(-inf + inf) is not.
    const float shift = most == -__builtin_inff() ? 0 : most;
    const double sum = exponentials(p, s, n, b.columns, b.scale * kLog2e, shift * kLog2e);
    const float rescale = m[i] == most ? 1 : __builtin_exp2f((m[i] - shift) * kLog2e);
    m[i] = most;
    l[i] = static_cast<double>(rescale) * l[i] + sum;
    if (o && rescale != 1) scaleRow(o + i * oRow, width, rescale);
  }
}

void backward(const ScoreBlock<float>& b, const float* dp, float gradScale, const float* lse,
              const float* delta, const GradientBlock& out) {
  const __m512 factor = _mm512_set1_ps(b.scale * kLog2e), grad = _mm512_set1_ps(gradScale);
  for (int64_t i = 0; i < b.rows; i += 2) {
    const int64_t count = smaller(2, b.rows - i),
                  n[2] = {visibleIn(b, i), count == 2 ? visibleIn(b, i + 1) : 0};
    uint16_t *pPairs = out.pPairs + i / 2 * out.pairRow,
             *dsPairs = out.dsPairs + i / 2 * out.pairRow;
    for (int64_t j = 0; j < b.columns; j += 2 * kWidth) {
      __m512i p[2], ds[2];
#pragma GCC unroll 2
      for (int64_t r = 0; r < 2; r++) {
        const int64_t at = (i + (r < count ? r : 0)) * b.stride + j, row = i + (r < count ? r : 0);
        const __m512 shift = _mm512_set1_ps(lse[row] * kLog2e), mean = _mm512_set1_ps(delta[row]);
        __m512 weight[2], slope[2];
#pragma GCC unroll 2
        for (int64_t h = 0; h < 2; h++) {
          const __mmask16 lanes = firstLanes(n[r] - j - h * kWidth);
          const __m512 s = loadFirst(b.s + at + h * kWidth, lanes);
          weight[h] = exp2OrZero(_mm512_fmsub_ps(s, factor, shift), lanes);
          const __m512 d = _mm512_sub_ps(loadFirst(dp + at + h * kWidth, lanes), mean);
          slope[h] = _mm512_maskz_mul_ps(lanes, _mm512_mul_ps(weight[h], d), grad);
        }
        p[r] = rounded(weight[0], weight[1]);
        ds[r] = rounded(slope[0], slope[1]);
        if (r < count) _mm512_storeu_si512(out.ds + row * out.dsRow + j, ds[r]);
      }
      _mm512_storeu_si512(pPairs + 2 * j, alternating<0>(p[0], p[1]));
      _mm512_storeu_si512(pPairs + 2 * j + 2 * kWidth, alternating<1>(p[0], p[1]));
      _mm512_storeu_si512(dsPairs + 2 * j, alternating<0>(ds[0], ds[1]));
      _mm512_storeu_si512(dsPairs + 2 * j + 2 * kWidth, alternating<1>(ds[0], ds[1]));
    }
  }
}

void store(uint16_t* y, int64_t yRow, const float* o, int64_t oRow, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i++, y += yRow, o += oRow) {
    for (int64_t j = 0; j < width; j += 2 * kWidth) {
      const __m512 low = loadFirst(o + j, firstLanes(width - j));
      const __m512 high = loadFirst(o + j + kWidth, firstLanes(width - j - kWidth));
      _mm512_mask_storeu_epi16(y + j, firstHalves(width - j), rounded(low, high));
    }
  }
}

void rowDots(float* delta, const uint16_t* dy, int64_t dyRow, const uint16_t* y, int64_t yRow,
             int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i++, dy += dyRow, y += yRow) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t j = 0; j < width; j += 2 * kWidth) {
      const __mmask32 halves = firstHalves(width - j);
      sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_maskz_loadu_epi16(halves, dy + j),
                             (__m512bh)_mm512_maskz_loadu_epi16(halves, y + j));
    }
    delta[i] = foldLanes(sum, sumOf);
  }
}

}  // namespace

const AttentionPairsKernels attentionPairsKernels = {packRows, packTurned, multiply, accumulate,
                                                     backward, store,      rowDots};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
