// Convolutions by Winograd's short forms (native/cpu/kernels/winograd.h): stride 1, 3 x 3 taps,
// computed in float32; images are float32 or bfloat16. A NaN or an infinity in an image reaches all
// results of the tiles (4 x 4 pixels) that see it, and so do sums beyond the range of float32 at a
// hundredth of it; others are not touched.
#pragma once
#include "cpu/conv2d.h"
#include "cpu/kernels/winograd.h"
#include "cpu/workspace.h"

namespace adjoint::cpu {

// What the direct form costs in multiply-adds at the peak rate of float32: measured for float32,
// half of that rate and a share for packing for bfloat16.
constexpr double kDirectCost = 1.35;        // float32
constexpr double kDirectPairsCost = 0.575;  // bfloat16 in pairs (cpu/conv2d_pairs.h)

// Whether a convolution, or its gradients, can take the short form, and gain by it.
bool gainsByWinograd(const ConvSizes& z, double directCost = kDirectCost);
inline bool takesWinograd(DType images) {
  return computeType(images) == Compute::f32;
}
// What images are read and written as: float32, or bfloat16 as it is.
inline DType winogradForm(DType images) {
  return images == DType::bfloat16 ? images : DType::float32;
}

// Taps (k, c) lie at data + k * outputStride + c * inputStride, 9 in a row; turned: in reverse.
struct WinogradFilters {
  const float* data;
  int64_t outputStride, inputStride;
  bool turned;
};

// y [N, K, P, Q] = x [N, C, H, W] * filters [K, C] + bias [K] (float32; nullptr for none)
void winogradConvolve(const View& y, const View& x, const WinogradFilters& filters,
                      const View* bias, int64_t padH, int64_t padW);

// The gradient of the input, a convolution of stride 1 (isTurnedConvolution); weight [K, C, 3, 3]
// of float32, dense
void winogradInputGradient(const View& dx, const View& dy, const View& weight,
                           const backend::Conv2dShape& shape);

// dw [K, C, 3, 3], dense
void winogradWeightGradient(float* dw, const View& dy, const View& x, int64_t padH, int64_t padW);

// Channels are padded to whole vectors, whose pixels pass through the slabs together.
inline int64_t roundUp(int64_t x, int64_t step) {
  return ceilDivide(x, step) * step;
}

// The tiles of a batch of images, cut into blocks of about `wanted`.
class TileBlocks {
 public:
  TileBlocks(int64_t n, int64_t p, int64_t q, int64_t wanted)
      : n_(n), down_(ceilDivide(p, kWinogradTile)), across_(ceilDivide(q, kWinogradTile)) {
    images_ = evenCut(n, wanted / (down_ * across_));
    rows_ = evenCut(down_, wanted / across_);
    columns_ = evenCut(across_, wanted);
  }

  struct Block {
    int64_t image, images, row, rows, column, columns;  // rows and columns of tiles
    int64_t tiles() const { return images * rows * columns; }
    // The first tile of a row, among those of the block.
    int64_t tile(int64_t i, int64_t r) const { return (i * rows + r) * columns; }
  };
  int64_t count() const {
    return ceilDivide(n_, images_) * ceilDivide(down_, rows_) * ceilDivide(across_, columns_);
  }
  int64_t mostTiles() const { return images_ * rows_ * columns_; }
  Block operator[](int64_t i) const {
    const int64_t across = ceilDivide(across_, columns_), down = ceilDivide(down_, rows_);
    const int64_t column = i % across * columns_, row = i / across % down * rows_;
    const int64_t image = i / across / down * images_;
    return {image,  std::min(images_, n_ - image),       row, std::min(rows_, down_ - row),
            column, std::min(columns_, across_ - column)};
  }

 private:
  static int64_t evenCut(int64_t size, int64_t most) {
    return ceilDivide(size, ceilDivide(size, std::max<int64_t>(1, most)));
  }
  int64_t n_, down_, across_, images_, rows_, columns_;
};

// What the transforms write: 36 matrices [tiles, channels], in panels of so many channels one after
// the other. They lie a line apart, so that the positions of a tile do not all compete for the same
// lines of the cache.
struct TileMatrices {
  TileMatrices(int64_t tiles, int64_t channels, int64_t panel)
      : tiles(tiles), channels(channels), panel(panel), positionStride(tiles * channels + 16) {}
  int64_t size() const { return kWinogradPositions * positionStride; }
  // How far apart the tiles of a channel are, and where one lies.
  int64_t tileStride(int64_t channel) const {
    return std::min(panel, channels - channel / panel * panel);
  }
  int64_t offset(int64_t tile, int64_t channel) const {
    return channel / panel * panel * tiles + tile * tileStride(channel) + channel % panel;
  }
  int64_t tiles, channels, panel, positionStride;
};

// The transform of the pixels of x that tiles see: 4 x 4 of them and `halo` more on the right and
// below, to a row of tiles at a time.
struct TileTransform {
  void (*run)(float* v, int64_t positionStride, int64_t tileStride, const float* slab,
              int64_t slabColumns, int64_t tiles);
  int64_t halo, padH, padW;
};
inline void transformTiles(float* matrices, const TileMatrices& layout,
                           const TileBlocks::Block& block, const View& x,
                           const TileTransform& transform) {
  const WinogradKernels& kernels = winogradTable().f32;
  const int64_t groups = layout.channels / kernels.lanes;
  const SlabSize size{block.rows * kWinogradTile + transform.halo,
                      block.columns * kWinogradTile + transform.halo};
  parallelFor(block.images * groups, 1, [&](int64_t begin, int64_t end) {
    Workspace space((size.rows * size.columns + kernels.lanes) * kernels.lanes * sizeof(float));
    float* slab = space.as<float>();
    for (int64_t i = begin; i < end; i++) {
      const int64_t image = i / groups, channel = i % groups * kernels.lanes;
      const int64_t channels = std::min(kernels.lanes, x.size[1] - channel);
      const int64_t top = block.row * kWinogradTile - transform.padH;
      const int64_t left = block.column * kWinogradTile - transform.padW;
      const auto fill = [&](auto fillSlab, auto tag) {
        using S = typename decltype(tag)::type;
        fillSlab(slab, size, imageOf<S, const S>(x, block.image + image, channel, channels), top,
                 left);
      };
      if (x.dtype == DType::bfloat16) {
        fill(kernels.fillSlabBf16, TypeTag<BFloat16>());
      } else {
        fill(kernels.fillSlab, TypeTag<float>());
      }
      for (int64_t r = 0; r < block.rows; r++) {
        transform.run(matrices + layout.offset(block.tile(image, r), channel),
                      layout.positionStride, layout.tileStride(channel),
                      slab + r * kWinogradTile * size.columns * kernels.lanes, size.columns,
                      block.columns);
      }
    }
  });
}

}  // namespace adjoint::cpu
