// The loops of bfloat16 convolutions on AVX512-BF16 (native/cpu/conv2d_pairs.h says how they work
// together). vdpbf16ps adds the products of a pair, so both operands come in pairs: of channels
// where a pixel is multiplied with filters, of neighbouring pixels where gradients are.
#pragma once
#include <cstdint>

namespace adjoint::cpu {

constexpr int64_t kPairLanes = 16;    // filters in a vector
constexpr int64_t kPairVectors = 2;   // of filters that are computed together, at most
constexpr int64_t kPixelGroup = 4;    // neighbouring pixels of a row of the output
constexpr int64_t kPairOffsets = 12;  // rows of the columns whose sums are formed together

// One image; strides in elements.
struct Bf16Image {
  const uint16_t* data;
  int64_t channels, height, width;
  int64_t channelStride, rowStride, columnStride;
};

struct Conv2dPairsKernels {
  // slab[i, j, c] = x[c, top + i, left + j], or 0 outside; channels are padded with a zero to an
  // even number.
  void (*fillSlab)(uint16_t* slab, const Bf16Image& x, int64_t rows, int64_t columns, int64_t top,
                   int64_t left);
  // sums[g, i, filter] = sum over taps t and pairs c of the products of
  // slab[group[g] + i pixelStep + tap[t] + 2 c] and weights[t, c, filter], for kPixelGroup pixels i
  // of each group and `vectors` vectors of filters
  void (*multiply)(float* sums, const uint16_t* slab, const int64_t* group, int64_t groups,
                   int64_t pixelStep, const int64_t* tap, int64_t taps, int64_t pairs,
                   const uint16_t* weights, int64_t vectors);
  // y[k, q] = sums[q, k] + bias[k] for q < pixels, k < filters; rows of sums have `vectors` vectors
  void (*store)(uint16_t* y, int64_t filterStride, int64_t columnStride, const float* sums,
                int64_t vectors, int64_t filters, int64_t pixels, const float* bias);
  // plane[i, j] = x[top + i rowStep, left + j columnStep] of the first channel, or 0 outside; up to
  // 31 elements more are written
  void (*fillPlane)(uint16_t* plane, const Bf16Image& x, int64_t rows, int64_t columns, int64_t top,
                    int64_t left, int64_t rowStep, int64_t columnStep);
  // A row of dy: pairs[q / 2, k, q % 2] = dy[k, q] for q < pixels, k < filters; zeros beyond
  void (*packRow)(uint16_t* pairs, const uint16_t* dy, int64_t filterStride, int64_t columnStride,
                  int64_t vectors, int64_t filters, int64_t pixels);
  // sums[i, filter] (+)= sum over rows p and pairs of pixels q of the products of
  // slab[offset[i] + p width + 2 q] and dy[p, q, filter], for kPairOffsets rows i
  void (*multiplyGradient)(float* sums, bool isFirst, const uint16_t* slab, const int64_t* offset,
                           int64_t rows, int64_t width, int64_t pairs, const uint16_t* dy,
                           int64_t vectors);
};

}  // namespace adjoint::cpu
