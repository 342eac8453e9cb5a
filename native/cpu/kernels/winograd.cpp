#include "cpu/kernels/winograd.h"

#include "cpu/kernels/bf16_lanes.h"
#include "cpu/kernels/gemm_pack.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

using Vec = Vector<float>;
constexpr int64_t kWidth = kLanes<float>;

// The points 0, +-a, +-b, infinity; all products below are exact in float.
constexpr float kA = 11.0f / 16, kB = 11.0f / 8;
constexpr float kA2 = kA * kA, kB2 = kB * kB, kA3 = kA2 * kA, kB3 = kB2 * kB;
// The denominators of G: products of the differences of a point and the other finite ones.
constexpr double kOver0 = 1 / (double(kA2) * kB2);
constexpr double kOverA = 1 / (2 * double(kA2) * (double(kA2) - kB2));
constexpr double kOverB = 1 / (2 * double(kB2) * (double(kB2) - kA2));

// ---- the transforms of six, four or three values

// y = B^T x. Row j of B^T: the coefficients of the product of (t - q) over the other finite points
// q; the last one: over all of them.
ADJOINT_INLINE void transform(Vec (&y)[6], const Vec (&x)[6]) {
  const Vec evenA = x[4] - kB2 * x[2], oddA = x[3] - kB2 * x[1];
  const Vec evenB = x[4] - kA2 * x[2], oddB = x[3] - kA2 * x[1];
  y[0] = kA2 * kB2 * x[0] + (x[4] - (kA2 + kB2) * x[2]);
  y[1] = evenA + kA * oddA;
  y[2] = evenA - kA * oddA;
  y[3] = evenB + kB * oddB;
  y[4] = evenB - kB * oddB;
  y[5] = kA2 * kB2 * x[1] + (x[5] - (kA2 + kB2) * x[3]);
}

// y = A^T m. Row i of A^T: the points to the power of i.
ADJOINT_INLINE void transform(Vec (&y)[4], const Vec (&m)[6]) {
  const Vec evenA = m[1] + m[2], oddA = m[1] - m[2];
  const Vec evenB = m[3] + m[4], oddB = m[3] - m[4];
  y[0] = m[0] + (evenA + evenB);
  y[1] = kA * oddA + kB * oddB;
  y[2] = kA2 * evenA + kB2 * evenB;
  y[3] = m[5] + (kA3 * oddA + kB3 * oddB);
}

// y = A^T (m / denominators), for three results
ADJOINT_INLINE void transform(Vec (&y)[3], const Vec (&m)[6]) {
  const Vec evenA = m[1] + m[2], oddA = m[1] - m[2];
  const Vec evenB = m[3] + m[4], oddB = m[3] - m[4];
  y[0] = float(kOver0) * m[0] + (float(kOverA) * evenA + float(kOverB) * evenB);
  y[1] = float(kOverA * kA) * oddA + float(kOverB * kB) * oddB;
  y[2] = m[5] + (float(kOverA * kA2) * evenA + float(kOverB * kB2) * evenB);
}

// y = G w. Row j of G: the powers of the point, over its denominator.
ADJOINT_INLINE void transform(Vec (&y)[6], const Vec (&w)[3]) {
  const Vec evenA = float(kOverA) * w[0] + float(kOverA * kA2) * w[2];
  const Vec evenB = float(kOverB) * w[0] + float(kOverB * kB2) * w[2];
  y[0] = float(kOver0) * w[0];
  y[1] = evenA + float(kOverA * kA) * w[1];
  y[2] = evenA - float(kOverA * kA) * w[1];
  y[3] = evenB + float(kOverB * kB) * w[1];
  y[4] = evenB - float(kOverB * kB) * w[1];
  y[5] = w[2];
}

// y = G x without denominators, for a filter of four values
ADJOINT_INLINE void transform(Vec (&y)[6], const Vec (&x)[4]) {
  const Vec evenA = x[0] + kA2 * x[2], oddA = x[1] + kA2 * x[3];
  const Vec evenB = x[0] + kB2 * x[2], oddB = x[1] + kB2 * x[3];
  y[0] = x[0];
  y[1] = evenA + kA * oddA;
  y[2] = evenA - kA * oddA;
  y[3] = evenB + kB * oddB;
  y[4] = evenB - kB * oddB;
  y[5] = x[3];
}

// y = M x M^T for the transform M from From to To values. Strides are those of i and j.
struct TileView {
  float* data;
  int64_t row, column;
};
struct ConstTileView {
  const float* data;
  int64_t row, column;
};
template <int From, int To>
ADJOINT_INLINE void transformTile(const TileView& y, const ConstTileView& x) {
  Vec columns[From][To];
#pragma GCC unroll 6
  for (int j = 0; j < From; j++) {
    Vec from[From];
#pragma GCC unroll 6
    for (int i = 0; i < From; i++) from[i] = load(x.data + i * x.row + j * x.column);
    transform(columns[j], from);
  }
#pragma GCC unroll 6
  for (int i = 0; i < To; i++) {
    Vec from[From], to[To];
#pragma GCC unroll 6
    for (int j = 0; j < From; j++) from[j] = columns[j][i];
    transform(to, from);
#pragma GCC unroll 6
    for (int j = 0; j < To; j++) storeVector(y.data + i * y.row + j * y.column, to[j]);
  }
}

// ---- slabs

ADJOINT_INLINE void clearPixels(float* y, int64_t count) {
  for (int64_t j = 0; j < count; j++) storeVector(y + j * kWidth, Vec{});
}

// y[j, c] = x[c, j] for j < count; up to a vector of pixels more are written
template <class S>
ADJOINT_INLINE void gatherPixels(float* y, const ImageView<const S>& x, const S* from,
                                 int64_t count) {
  if (x.columnStride == 1) {
    for (int64_t j = 0; j < count; j += kWidth) {
      Vec square[kWidth];
#pragma GCC unroll 16
      for (int c = 0; c < kWidth; c++) {
        square[c] = c < x.channels ? loadFirst(from + c * x.channelStride + j, count - j) : Vec{};
      }
      transposeSquare<kWidth / 2, kWidth>(square);
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; i++) storeVector(y + (j + i) * kWidth, square[i]);
    }
  } else if (x.channelStride == 1) {
    for (int64_t j = 0; j < count; j++) {
      storeVector(y + j * kWidth, loadFirst(from + j * x.columnStride, x.channels));
    }
  } else {
    clearPixels(y, count);
    for (int64_t j = 0; j < count; j++) {
      for (int64_t c = 0; c < x.channels; c++) {
        y[j * kWidth + c] = convert<float>(from[c * x.channelStride + j * x.columnStride]);
      }
    }
  }
}

ADJOINT_INLINE int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

template <class S>
void fillSlab(float* slab, SlabSize size, const ImageView<const S>& x, int64_t top, int64_t left) {
  const int64_t begin = clamp(-left, 0, size.columns);
  const int64_t end = clamp(x.width - left, begin, size.columns);
  for (int64_t i = 0; i < size.rows; i++, slab += size.columns * kWidth) {
    const int64_t row = top + i;
    if (row < 0 || row >= x.height) {
      clearPixels(slab, size.columns);
      continue;
    }
    // In ascending order: what a step writes beyond its pixels the next one writes again.
    clearPixels(slab, begin);
    gatherPixels(slab + begin * kWidth, x,
                 x.data + row * x.rowStride + (left + begin) * x.columnStride, end - begin);
    clearPixels(slab + end * kWidth, size.columns - end);
  }
}

template <class S>
void readSlab(const ImageView<S>& y, const float* slab, int64_t slabColumns, const float* bias) {
  const Vec offset = load(bias);
  for (int64_t row = 0; row < y.height; row++, slab += slabColumns * kWidth) {
    S* to = y.data + row * y.rowStride;
    if (y.columnStride == 1) {
      for (int64_t j = 0; j < y.width; j += kWidth) {
        Vec square[kWidth];
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; i++) square[i] = load(slab + (j + i) * kWidth) + offset;
        transposeSquare<kWidth / 2, kWidth>(square);
#pragma GCC unroll 16
        for (int c = 0; c < kWidth; c++) {
          if (c < y.channels) storeFirst(to + c * y.channelStride + j, square[c], y.width - j);
        }
      }
    } else if (y.channelStride == 1) {
      for (int64_t j = 0; j < y.width; j++) {
        storeFirst(to + j * y.columnStride, load(slab + j * kWidth) + offset, y.channels);
      }
    } else {
      for (int64_t j = 0; j < y.width; j++) {
        for (int64_t c = 0; c < y.channels; c++) {
          to[c * y.channelStride + j * y.columnStride] = convert<S>(slab[j * kWidth + c] + bias[c]);
        }
      }
    }
  }
}

// ---- rows of tiles

void transformInput(float* v, int64_t positionStride, int64_t tileStride, const float* slab,
                    int64_t slabColumns, int64_t tiles) {
  for (int64_t t = 0; t < tiles; t++, v += tileStride, slab += kWinogradTile * kWidth) {
    transformTile<6, 6>({v, 6 * positionStride, positionStride},
                        {slab, slabColumns * kWidth, kWidth});
  }
}

void transformOutput(float* slab, int64_t slabColumns, const float* m, int64_t positionStride,
                     int64_t tileStride, int64_t tiles) {
  for (int64_t t = 0; t < tiles; t++, m += tileStride, slab += kWinogradTile * kWidth) {
    transformTile<6, 4>({slab, slabColumns * kWidth, kWidth},
                        {m, 6 * positionStride, positionStride});
  }
}

void transformGradient(float* v, int64_t positionStride, int64_t tileStride, const float* slab,
                       int64_t slabColumns, int64_t tiles) {
  for (int64_t t = 0; t < tiles; t++, v += tileStride, slab += kWinogradTile * kWidth) {
    transformTile<4, 6>({v, 6 * positionStride, positionStride},
                        {slab, slabColumns * kWidth, kWidth});
  }
}

// ---- filters: lanes are filters, and their taps are transposed by whole squares

constexpr int64_t kTaps = 9, kTapSquares = (kTaps + kWidth - 1) / kWidth;

void transformFilters(float* u, int64_t positionStride, const float* w, int64_t stride,
                      int64_t count, bool turned) {
  alignas(64) float taps[kTapSquares * kWidth * kWidth];
  for (int64_t i = 0; i < kTaps; i += kWidth) {
    Vec square[kWidth];
#pragma GCC unroll 16
    for (int f = 0; f < kWidth; f++) {
      square[f] = f < count ? loadFirst(w + f * stride + i, kTaps - i) : Vec{};
    }
    transposeSquare<kWidth / 2, kWidth>(square);
#pragma GCC unroll 16
    for (int f = 0; f < kWidth; f++) storeVector(taps + (i + f) * kWidth, square[f]);
  }
  const int64_t step = turned ? -kWidth : kWidth;
  transformTile<3, 6>({u, 6 * positionStride, positionStride},
                      {taps + (turned ? (kTaps - 1) * kWidth : 0), 3 * step, step});
}

void transformSums(float* dw, const float* s, int64_t positionStride, int64_t count) {
  alignas(64) float taps[kTapSquares * kWidth * kWidth] = {};
  transformTile<6, 3>({taps, 3 * kWidth, kWidth}, {s, 6 * positionStride, positionStride});
  for (int64_t i = 0; i < kTaps; i += kWidth) {
    Vec square[kWidth];
#pragma GCC unroll 16
    for (int f = 0; f < kWidth; f++) square[f] = load(taps + (i + f) * kWidth);
    transposeSquare<kWidth / 2, kWidth>(square);
#pragma GCC unroll 16
    for (int f = 0; f < kWidth; f++) {
      if (f < count) storeFirst(dw + f * kTaps + i, square[f], kTaps - i);
    }
  }
}

}  // namespace

const WinogradTable winogradTable = {{kWidth, fillSlab<float>, fillSlab<BFloat16>, readSlab<float>,
                                      readSlab<BFloat16>, transformInput, transformOutput,
                                      transformFilters, transformGradient, transformSums}};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
