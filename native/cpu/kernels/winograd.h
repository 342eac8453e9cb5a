// The transforms of Winograd's short convolutions (Lavin & Gray 2016), F(4x4, 3x3): a tile of 4 x 4
// outputs is Y = A^T [(G w G^T) . (B^T x B)] A for a tile x of 6 x 6 inputs, so that the sum over
// channels becomes one matrix product for each of the 36 positions. The gradient of the weights is
// F(3x3, 4x4) over the same tiles of x: dw = A^T [sum over tiles of (G dy G^T) . (B^T x B)] A.
//
// The points of interpolation are 0, +-11/16, +-11/8 and infinity: of the symmetric ones, which the
// transforms want, they amplify rounding errors least (cf. Barabasz et al. 2020).
//
// Vectors run across channels. Images pass through slabs [rows, columns, lanes], which hold one
// vector of channels for each pixel.
#pragma once
#include <cstdint>

#include "cpu/kernels/conv2d.h"
#include "shared/convert.h"

namespace adjoint::cpu {

constexpr int64_t kWinogradTile = 4, kWinogradHalo = 2, kWinogradPositions = 36;

struct SlabSize {
  int64_t rows, columns;
};

// Views have `channels` <= lanes. Slabs have room for `lanes` pixels more. Position i of what
// transforms read and write lies at i * positionStride, tile t at t * tileStride.
struct WinogradKernels {
  int64_t lanes;
  // slab[i, j, c] = x[c, top + i, left + j], or 0 outside
  void (*fillSlab)(float* slab, SlabSize size, const ImageView<const float>& x, int64_t top,
                   int64_t left);
  void (*fillSlabBf16)(float* slab, SlabSize size, const ImageView<const BFloat16>& x, int64_t top,
                       int64_t left);
  // y[c, i, j] = slab[i, j, c] + bias[c] for all of y, which is no larger than the slab
  void (*readSlab)(const ImageView<float>& y, const float* slab, int64_t slabColumns,
                   const float* bias);
  void (*readSlabBf16)(const ImageView<BFloat16>& y, const float* slab, int64_t slabColumns,
                       const float* bias);
  // B^T x B for a row of tiles, 4 pixels apart
  void (*transformInput)(float* v, int64_t positionStride, int64_t tileStride, const float* slab,
                         int64_t slabColumns, int64_t tiles);
  // A^T m A for a row of tiles
  void (*transformOutput)(float* slab, int64_t slabColumns, const float* m, int64_t positionStride,
                          int64_t tileStride, int64_t tiles);
  // G w G^T for `count` filters, whose 9 taps lie at w + i * stride; turned: in reverse order
  void (*transformFilters)(float* u, int64_t positionStride, const float* w, int64_t stride,
                           int64_t count, bool turned);
  // G dy G^T without G's denominators, for a row of tiles of 4 x 4 pixels
  void (*transformGradient)(float* v, int64_t positionStride, int64_t tileStride, const float* slab,
                            int64_t slabColumns, int64_t tiles);
  // A^T s A with the denominators, for `count` filters, whose 9 taps go to dw + i * 9
  void (*transformSums)(float* dw, const float* s, int64_t positionStride, int64_t count);
};

struct WinogradTable {
  WinogradKernels f32;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(WinogradTable, winogradTable)
