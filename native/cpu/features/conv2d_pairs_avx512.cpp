#include <immintrin.h>

#include "cpu/features/conv2d_pairs.h"

#define ADJOINT_LEVEL_AVX512 1  // whose vectors this feature computes with
#include "cpu/kernels/gemm_pack.h"

namespace adjoint::cpu::ADJOINT_LEVEL {

extern const Conv2dPairsKernels conv2dPairsKernels;

namespace {

using Words = Vector<uint32_t>;  // of pairs

ADJOINT_INLINE __mmask16 firstLanes(int64_t count) {
  return static_cast<__mmask16>(count >= kPairLanes ? 0xffff : (1u << count) - 1);
}
ADJOINT_INLINE Words wordsOf(__m256i x) {
  return (Words)_mm512_maskz_cvtepu16_epi32(0xffff, x);
}
ADJOINT_INLINE __m256i loadHalves(const uint16_t* x, int64_t count) {
  return _mm256_maskz_loadu_epi16(firstLanes(count), x);
}
ADJOINT_INLINE void storeWords(uint16_t* y, Words x, int64_t count) {
  if (count >= kPairLanes) {
    _mm512_storeu_si512(y, (__m512i)x);
  } else {
    _mm512_mask_storeu_epi32(y, firstLanes(count), (__m512i)x);
  }
}
ADJOINT_INLINE void storeWords(uint16_t* y, __m256i x, int64_t count) {
  if (count >= kPairLanes / 2) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), x);
  } else {
    _mm256_mask_storeu_epi32(y, static_cast<__mmask8>((1u << count) - 1), x);
  }
}
// The first `count` <= 32 halves
ADJOINT_INLINE void storeHalves(uint16_t* y, Words x, int64_t count) {
  if (count >= 2 * kPairLanes) {
    _mm512_storeu_si512(y, (__m512i)x);
  } else {
    _mm512_mask_storeu_epi16(y, static_cast<__mmask32>((1u << count) - 1), (__m512i)x);
  }
}
ADJOINT_INLINE Words loadPairs(const uint16_t* x, int64_t halves) {
  const auto mask = static_cast<__mmask32>(halves >= 32 ? 0xffffffffu : (1u << halves) - 1);
  return (Words)_mm512_maskz_loadu_epi16(mask, x);
}
// The low or high half; GCC 12 warns about the undefined operand of the intrinsics.
template <int Half>
ADJOINT_INLINE __m256i halfOf(Words x) {
  typedef int64_t Quads __attribute__((vector_size(kVectorBytes)));
  const Quads q = (Quads)x;
  constexpr int first = Half * 4;
  return (__m256i)__builtin_shufflevector(q, q, first, first + 1, first + 2, first + 3);
}
// The first `count` halves, two elements apart; what lies between them stays.
ADJOINT_INLINE void storeEverySecond(uint16_t* y, Words x, int64_t count) {
  const auto lanes = [&](int64_t from) {
    const int64_t here = count - from;
    return static_cast<__mmask32>(here >= kPairLanes ? 0x55555555u
                                  : here <= 0        ? 0
                                                     : 0x55555555u & ((1u << 2 * here) - 1));
  };
  _mm512_mask_storeu_epi16(y, lanes(0), (__m512i)wordsOf(halfOf<0>(x)));
  _mm512_mask_storeu_epi16(y + 2 * kPairLanes, lanes(kPairLanes), (__m512i)wordsOf(halfOf<1>(x)));
}
ADJOINT_INLINE void clearPairs(uint16_t* y, int64_t count) {
  for (int64_t i = 0; i < count; i += kPairLanes) storeWords(y + 2 * i, Words{}, count - i);
}

// ---- slabs

// Up to 16 pixels of a channel, Step elements apart, in the low halves of the lanes
template <int Step>
ADJOINT_INLINE Words loadPixels(const uint16_t* x, int64_t count) {
  static_assert(Step == 1 || Step == 2, "others are read one by one");
  if constexpr (Step == 1) return wordsOf(loadHalves(x, count));
  return loadPairs(x, 2 * (count < kPairLanes ? count : kPairLanes) - 1) & 0xffff;
}
// Pairs of channels of `count` <= 16 pixels
template <int Step>
ADJOINT_INLINE Words pairsOfChannels(const uint16_t* x, int64_t stride, int64_t channels,
                                     int64_t count) {
  if (channels <= 0) return Words{};
  const Words even = loadPixels<Step>(x, count);
  return channels == 1 ? even : even | loadPixels<Step>(x + stride, count) << 16;
}

// turnPixels for up to 16 channels: a square of words holds two runs of pixels.
template <int Step>
ADJOINT_INLINE void turnFewChannels(uint16_t* pixels, const uint16_t* x, int64_t stride,
                                    int64_t channels, int64_t count) {
  constexpr int64_t half = kPairLanes / 2;
  const int64_t pairs = (channels + 1) / 2;
  for (int64_t j = 0; j < count; j += 2 * kPairLanes) {
    const int64_t low = count - j < kPairLanes ? count - j : kPairLanes, rest = count - j - low;
    const int64_t high = rest < kPairLanes ? rest : kPairLanes;
    Words square[kPairLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kPairLanes; i++) {
      const int64_t channel = i % half * 2, from = j + (i < half ? 0 : kPairLanes);
      const int64_t wanted = i < half ? low : high;
      square[i] = wanted > 0 ? pairsOfChannels<Step>(x + channel * stride + from * Step, stride,
                                                     channels - channel, wanted)
                             : Words{};
    }
    transposeSquare<kPairLanes / 2, kPairLanes>(square);
    uint16_t* to = pixels + 2 * j * pairs;
#pragma GCC unroll 16
    for (int i = 0; i < kPairLanes; i++) {
      if (i < low) storeWords(to + 2 * i * pairs, halfOf<0>(square[i]), pairs);
      if (i < high) storeWords(to + 2 * (i + kPairLanes) * pairs, halfOf<1>(square[i]), pairs);
    }
  }
}

// pixels[j, c] = x[c, j], where the pixels of a channel lie Step elements apart
template <int Step>
ADJOINT_INLINE void turnPixels(uint16_t* pixels, const uint16_t* x, int64_t stride,
                               int64_t channels, int64_t count) {
  const int64_t pairs = (channels + 1) / 2;
  if (pairs == 1) {
    for (int64_t j = 0; j < count; j += kPairLanes) {
      storeWords(pixels + 2 * j, pairsOfChannels<Step>(x + j * Step, stride, channels, count - j),
                 count - j);
    }
    return;
  }
  if (pairs <= kPairLanes / 2) return turnFewChannels<Step>(pixels, x, stride, channels, count);
  for (int64_t j = 0; j < count; j += kPairLanes) {
    const int64_t here = count - j < kPairLanes ? count - j : kPairLanes;
    for (int64_t p = 0; p < pairs; p += kPairLanes) {
      Words square[kPairLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kPairLanes; i++) {
        const int64_t channel = 2 * (p + i);
        square[i] = pairsOfChannels<Step>(x + channel * stride + j * Step, stride,
                                          channels - channel, here);
      }
      transposeSquare<kPairLanes / 2, kPairLanes>(square);
#pragma GCC unroll 16
      for (int i = 0; i < kPairLanes; i++) {
        if (i < here) storeWords(pixels + 2 * ((j + i) * pairs + p), square[i], pairs - p);
      }
    }
  }
}

ADJOINT_INLINE int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

void fillSlab(uint16_t* slab, const Bf16Image& x, int64_t rows, int64_t columns, int64_t top,
              int64_t left) {
  const int64_t pairs = (x.channels + 1) / 2;
  if (pairs == 0) return;
  const int64_t begin = clamp(-left, 0, columns), end = clamp(x.width - left, begin, columns);
  for (int64_t i = 0; i < rows; i++, slab += columns * 2 * pairs) {
    const int64_t row = top + i;
    if (row < 0 || row >= x.height) {
      clearPairs(slab, columns * pairs);
      continue;
    }
    clearPairs(slab, begin * pairs);
    clearPairs(slab + end * 2 * pairs, (columns - end) * pairs);
    uint16_t* to = slab + begin * 2 * pairs;
    const uint16_t* from = x.data + row * x.rowStride + (left + begin) * x.columnStride;
    if (x.columnStride == 1 || x.columnStride == 2) {
      const auto turn = x.columnStride == 1 ? turnPixels<1> : turnPixels<2>;
      turn(to, from, x.channelStride, x.channels, end - begin);
      continue;
    }
    for (int64_t j = begin; j < end; j++, to += 2 * pairs, from += x.columnStride) {
      to[2 * pairs - 1] = 0;
      for (int64_t c = 0; c < x.channels; c++) to[c] = from[c * x.channelStride];
    }
  }
}

// ---- pixels by filters

ADJOINT_INLINE __m512i load(const uint16_t* p) {
  return _mm512_loadu_si512(p);
}
ADJOINT_INLINE __m512i pairInAllLanes(const uint16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm512_set1_epi32(pair);
}

template <int G, int V>
void multiplyGroups(float* sums, const uint16_t* slab, const int64_t* group, int64_t step,
                    const int64_t* tap, int64_t taps, int64_t pairs, const uint16_t* weights) {
  __m512 sum[G][kPixelGroup][V];
#pragma GCC unroll 3
  for (int g = 0; g < G; g++) {
#pragma GCC unroll 4
    for (int i = 0; i < kPixelGroup; i++) {
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) sum[g][i][v] = _mm512_setzero_ps();
    }
  }
  for (int64_t t = 0; t < taps; t++) {
    const uint16_t* at[G];
#pragma GCC unroll 3
    for (int g = 0; g < G; g++) at[g] = slab + group[g] + tap[t];
    for (int64_t c = 0; c < pairs; c++, weights += 2 * kPairLanes * V) {
      __m512i w[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) w[v] = load(weights + 2 * kPairLanes * v);
#pragma GCC unroll 3
      for (int g = 0; g < G; g++) {
#pragma GCC unroll 4
        for (int i = 0; i < kPixelGroup; i++) {
          const __m512i x = pairInAllLanes(at[g] + i * step + 2 * c);
#pragma GCC unroll 2
          for (int v = 0; v < V; v++) {
            sum[g][i][v] = _mm512_dpbf16_ps(sum[g][i][v], (__m512bh)w[v], (__m512bh)x);
          }
        }
      }
    }
  }
#pragma GCC unroll 3
  for (int g = 0; g < G; g++) {
#pragma GCC unroll 4
    for (int i = 0; i < kPixelGroup; i++) {
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) {
        _mm512_storeu_ps(sums + ((g * kPixelGroup + i) * V + v) * kPairLanes, sum[g][i][v]);
      }
    }
  }
}

template <int V>
ADJOINT_INLINE void multiplyVectors(float* sums, const uint16_t* slab, const int64_t* group,
                                    int64_t groups, int64_t step, const int64_t* tap, int64_t taps,
                                    int64_t pairs, const uint16_t* weights) {
  constexpr int64_t most = 3, size = kPixelGroup * V * kPairLanes;
  int64_t g = 0;
  for (; g + most <= groups; g += most) {
    multiplyGroups<most, V>(sums + g * size, slab, group + g, step, tap, taps, pairs, weights);
  }
  if (groups - g == 2) {
    multiplyGroups<2, V>(sums + g * size, slab, group + g, step, tap, taps, pairs, weights);
  } else if (groups - g == 1) {
    multiplyGroups<1, V>(sums + g * size, slab, group + g, step, tap, taps, pairs, weights);
  }
}

void multiply(float* sums, const uint16_t* slab, const int64_t* group, int64_t groups, int64_t step,
              const int64_t* tap, int64_t taps, int64_t pairs, const uint16_t* weights,
              int64_t vectors) {
  const auto run = vectors == 1 ? multiplyVectors<1> : multiplyVectors<2>;
  run(sums, slab, group, groups, step, tap, taps, pairs, weights);
}

ADJOINT_INLINE __m256i rounded(Vector<float> x) {
  return (__m256i)_mm512_cvtneps_pbh((__m512)x);
}

// The bfloat16 of `even` in the low halves of the lanes, of `odd` in the high ones.
ADJOINT_INLINE Words roundedPairs(Vector<float> even, Vector<float> odd) {
  const __m512i sideBySide = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
  const __m512i alternating =
      _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                       21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (Words)_mm512_maskz_permutexvar_epi16(0xffffffffu, alternating, sideBySide);
}

void store(uint16_t* y, int64_t filterStride, int64_t columnStride, const float* sums,
           int64_t vectors, int64_t filters, int64_t pixels, const float* bias) {
  const int64_t row = vectors * kPairLanes;
  for (int64_t k = 0; k < filters; k += kPairLanes) {
    const Vector<float> offset = load(bias + k);
    const int64_t count = filters - k < kPairLanes ? filters - k : kPairLanes;
    if (columnStride != 1 && columnStride != 2) {
      for (int64_t q = 0; q < pixels; q++) {
        uint16_t half[kPairLanes];
        const __m256i x = rounded(load(sums + q * row + k) + offset);
        __builtin_memcpy(half, &x, sizeof half);
        uint16_t* to = y + k * filterStride + q * columnStride;
        for (int64_t i = 0; i < count; i++) to[i * filterStride] = half[i];
      }
      continue;
    }
    for (int64_t q = 0; q < pixels; q += 2 * kPairLanes) {
      Words square[kPairLanes];  // [pair of pixels][filter]
#pragma GCC unroll 16
      for (int i = 0; i < kPairLanes; i++) {
        const float* from = sums + (q + 2 * i) * row + k;
        const bool isWhole = q + 2 * i + 1 < pixels;
        square[i] = isWhole ? roundedPairs(load(from) + offset, load(from + row) + offset)
                    : q + 2 * i < pixels ? roundedPairs(load(from) + offset, Vector<float>{})
                                         : Words{};
      }
      transposeSquare<kPairLanes / 2, kPairLanes>(square);
#pragma GCC unroll 16
      for (int i = 0; i < kPairLanes; i++) {
        if (i >= count) continue;
        uint16_t* to = y + (k + i) * filterStride + q * columnStride;
        columnStride == 1 ? storeHalves(to, square[i], pixels - q)
                          : storeEverySecond(to, square[i], pixels - q);
      }
    }
  }
}

// ---- filters by pixels

// `count` zeros, and up to 31 more. Few as a rule: the first vector stands apart so that the
// compiler makes no call of memset of the loop.
ADJOINT_INLINE void clearHalves(uint16_t* y, int64_t count) {
  constexpr int64_t halves = 2 * kPairLanes;
  if (count <= 0) return;
  storeHalves(y, Words{}, halves);
  for (int64_t i = halves; i < count; i += halves) storeHalves(y + i, Words{}, halves);
}

// What a vector writes beyond a row is written again by the next one: rows ascend.
void fillPlane(uint16_t* plane, const Bf16Image& x, int64_t rows, int64_t columns, int64_t top,
               int64_t left, int64_t rowStep, int64_t columnStep) {
  constexpr int64_t halves = 2 * kPairLanes;
  const int64_t before = left < 0 ? (-left + columnStep - 1) / columnStep : 0;
  const int64_t within = left < x.width ? (x.width - left + columnStep - 1) / columnStep : 0;
  const int64_t begin = clamp(before, 0, columns), end = clamp(within, begin, columns);
  for (int64_t i = 0; i < rows; i++, plane += columns) {
    const int64_t row = top + i * rowStep;
    const bool isInside = row >= 0 && row < x.height;
    clearHalves(plane, isInside ? begin : columns);
    if (!isInside) continue;
    const uint16_t* from =
        x.data + row * x.rowStride + (left + begin * columnStep) * x.columnStride;
    const int64_t step = columnStep * x.columnStride;
    int64_t j = begin;
    if (step == 1) {
      for (; j < end; j += halves, from += halves) {
        storeHalves(plane + j, loadPairs(from, end - j), halves);
      }
    } else if (step == 2) {
      for (; j < end; j += kPairLanes, from += 2 * kPairLanes) {
        const Words pixels = loadPixels<2>(from, end - j);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(plane + j),
                            _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)pixels));
      }
    } else {
      for (; j < end; j++, from += step) plane[j] = *from;
    }
    clearHalves(plane + j, columns - j);
  }
}

void packRow(uint16_t* to, const uint16_t* dy, int64_t filterStride, int64_t columnStride,
             int64_t vectors, int64_t filters, int64_t pixels) {
  const int64_t pairs = (pixels + 1) / 2;
  for (int64_t v = 0; v < vectors; v++, filters -= kPairLanes, dy += kPairLanes * filterStride) {
    for (int64_t p = 0; p < pairs; p += kPairLanes) {
      Words square[kPairLanes];
      const int64_t rest = pixels - 2 * p;
#pragma GCC unroll 16
      for (int i = 0; i < kPairLanes; i++) {
        square[i] = Words{};
        if (i >= filters) continue;
        const uint16_t* from = dy + i * filterStride + 2 * p * columnStride;
        if (columnStride == 1) {
          square[i] = loadPairs(from, rest);
        } else {
          uint16_t row[2 * kPairLanes] = {};
          for (int64_t q = 0; q < rest && q < 2 * kPairLanes; q++) row[q] = from[q * columnStride];
          __builtin_memcpy(&square[i], row, sizeof row);
        }
      }
      transposeSquare<kPairLanes / 2, kPairLanes>(square);
#pragma GCC unroll 16
      for (int i = 0; i < kPairLanes; i++) {
        if (p + i < pairs) {
          storeWords(to + ((p + i) * vectors + v) * 2 * kPairLanes, square[i], kPairLanes);
        }
      }
    }
  }
}

template <int V>
void multiplyOffsets(float* sums, bool isFirst, const uint16_t* slab, const int64_t* offset,
                     int64_t rows, int64_t width, int64_t pairs, const uint16_t* dy) {
  __m512 sum[kPairOffsets][V];
#pragma GCC unroll 12
  for (int i = 0; i < kPairOffsets; i++) {
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      sum[i][v] = isFirst ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + (i * V + v) * kPairLanes);
    }
  }
  const uint16_t* at[kPairOffsets];
#pragma GCC unroll 12
  for (int i = 0; i < kPairOffsets; i++) at[i] = slab + offset[i];
  for (int64_t p = 0; p < rows; p++) {
    const int64_t begin = p * width;
    for (int64_t q = begin; q < begin + 2 * pairs; q += 2, dy += 2 * kPairLanes * V) {
      __m512i w[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) w[v] = load(dy + 2 * kPairLanes * v);
#pragma GCC unroll 12
      for (int i = 0; i < kPairOffsets; i++) {
        const __m512i x = pairInAllLanes(at[i] + q);
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) {
          sum[i][v] = _mm512_dpbf16_ps(sum[i][v], (__m512bh)w[v], (__m512bh)x);
        }
      }
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kPairOffsets; i++) {
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) _mm512_storeu_ps(sums + (i * V + v) * kPairLanes, sum[i][v]);
  }
}

void multiplyGradient(float* sums, bool isFirst, const uint16_t* slab, const int64_t* offset,
                      int64_t rows, int64_t width, int64_t pairs, const uint16_t* dy,
                      int64_t vectors) {
  const auto run = vectors == 1 ? multiplyOffsets<1> : multiplyOffsets<2>;
  run(sums, isFirst, slab, offset, rows, width, pairs, dy);
}

}  // namespace

const Conv2dPairsKernels conv2dPairsKernels = {fillSlab,  multiply, store,
                                               fillPlane, packRow,  multiplyGradient};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
