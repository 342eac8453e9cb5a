#include "cpu/winograd.h"

#include "cpu/pool.h"

namespace adjoint::cpu {
namespace {

// The transform of the output amplifies the rounding errors of the sums over channels, which are
// small for sums of short sums, and least where both are of about the same length.
int64_t runOf(int64_t depth) {
  return depth <= 64 ? 16 : 32;
}

// Whether transformed filters leave the L2 cache.
bool areLarge(int64_t c, int64_t k) {
  constexpr int64_t kFilters = 1 << 18;
  return kWinogradPositions * c * k > kFilters;
}

class WinogradConvolution {
 public:
  WinogradConvolution(const View& y, const View& x, const WinogradFilters& filters,
                      const View* bias, int64_t padH, int64_t padW)
      : y_(y),
        x_(x),
        filters_(filters),
        padH_(padH),
        padW_(padW),
        gemm_(gemmKernels<float>()),
        kernels_(winogradTable().f32),
        depth_(x.size[1], DepthBlocks::kInL1),
        c_(roundUp(x.size[1], kernels_.lanes)),
        k_(roundUp(y.size[1], kernels_.lanes)),
        filterStride_(x.size[1] * k_ + 16),
        blocks_(x.size[0], y.size[2], y.size[3],
                blockTiles(kWinogradPositions * (c_ + k_) * sizeof(float))),
        images_(blocks_.mostTiles(), c_, c_),
        products_(blocks_.mostTiles(), k_, k_),
        packed_((kWinogradPositions * filterStride_ + k_) * sizeof(float)) {
    packedFilters_ = packed_.as<float>();
    bias_ = packedFilters_ + kWinogradPositions * filterStride_;
    for (int64_t k = 0; k < k_; k++) {
      bias_[k] = bias && k < y.size[1] ? bias->as<float>()[k * bias->stride[0]] : 0;
    }
    packFilters();
  }

  // Blocks run side by side; where they are few, the threads share each.
  void run() {
    constexpr int64_t kFewBlocks = 8;
    const size_t bytes = (images_.size() + products_.size()) * sizeof(float);
    const auto blocks = [&](int64_t begin, int64_t end) {
      Workspace space(bytes);
      for (int64_t i = begin; i < end; i++) convolve(blocks_[i], space.as<float>());
    };
    if (blocks_.count() < kFewBlocks) return blocks(0, blocks_.count());
    parallelFor(blocks_.count(), 1, blocks);
  }

 private:
  static constexpr int64_t kBlockBytes = 5 << 17, kLargeBlockBytes = 5 << 18;

  // The matrices of a block stay in the L2 cache, beside the filters if those are small; large
  // filters, which come from farther away, had better serve more tiles.
  int64_t blockTiles(int64_t tileBytes) const {
    return (areLarge(x_.size[1], k_) ? kLargeBlockBytes : kBlockBytes) / tileBytes;
  }

  // Panels of b of the products: for each position the depth's blocks one after the other, and
  // within them panels of columns.
  void packFilters() {
    const int64_t depth = x_.size[1], groups = k_ / kernels_.lanes;
    parallelFor(groups * depth, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t k = i / depth * kernels_.lanes, c = i % depth;
        const int64_t first = c / depth_.size * depth_.size;
        const int64_t size = std::min(depth_.size, depth - first);
        const int64_t panel = k / gemm_.columns * gemm_.columns;
        const int64_t width = std::min(gemm_.columns, k_ - panel);
        kernels_.transformFilters(
            packedFilters_ + first * k_ + panel * size + (c - first) * width + k - panel,
            filterStride_, filters_.data + k * filters_.outputStride + c * filters_.inputStride,
            filters_.outputStride, std::min(kernels_.lanes, y_.size[1] - k), filters_.turned);
      }
    });
  }

  void convolve(const TileBlocks::Block& block, float* images) const {
    float* products = images + images_.size();
    transformTiles(images, images_, block, x_,
                   {kernels_.transformInput, kWinogradHalo, padH_, padW_});
    parallelFor(kWinogradPositions, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        multiply(block.tiles(), images + i * images_.positionStride,
                 packedFilters_ + i * filterStride_, products + i * products_.positionStride);
      }
    });
    writeOutput(block, products);
  }

  // products [tiles, k] = images [tiles, c] filters [c, k]
  void multiply(int64_t tiles, const float* images, const float* filters, float* products) const {
    alignas(64) static const float zeros[64] = {};
    GemmBlock<float> product;
    product.m = tiles;
    product.n = k_;
    product.panelRows = ceilDivide(tiles, ceilDivide(tiles, gemm_.rows));
    product.aRow = c_;
    product.aK = 1;
    product.aPanel = product.panelRows * c_;
    product.bRow = gemm_.columns;
    product.c = products;
    product.cRow = k_;
    product.run = runOf(x_.size[1]);
    for (int64_t d = 0; d < depth_.count; d++) {
      product.k = depth_.end(d) - depth_.begin(d);
      product.a = images + depth_.begin(d);
      product.b = filters + depth_.begin(d) * k_;
      product.bPanel = gemm_.columns * product.k;
      product.bEdge = product.b + k_ / gemm_.columns * product.bPanel;
      product.init = d == 0 ? zeros : products;
      product.initRow = d == 0 ? 0 : k_;
      product.initColumn = d == 0 ? 0 : 1;
      gemm_.multiply(product);
    }
  }

  void writeOutput(const TileBlocks::Block& block, const float* products) const {
    const int64_t groups = k_ / kernels_.lanes;
    const int64_t rows = block.rows * kWinogradTile, columns = block.columns * kWinogradTile;
    parallelFor(block.images * groups, 1, [&](int64_t begin, int64_t end) {
      Workspace space((rows * columns + kernels_.lanes) * kernels_.lanes * sizeof(float));
      float* slab = space.as<float>();
      for (int64_t i = begin; i < end; i++) {
        const int64_t image = i / groups, channel = i % groups * kernels_.lanes;
        for (int64_t r = 0; r < block.rows; r++) {
          kernels_.transformOutput(slab + r * kWinogradTile * columns * kernels_.lanes, columns,
                                   products + products_.offset(block.tile(image, r), channel),
                                   products_.positionStride, k_, block.columns);
        }
        if (y_.dtype == DType::bfloat16) {
          kernels_.readSlabBf16(outputOf<BFloat16>(block, image, channel), slab, columns,
                                bias_ + channel);
        } else {
          kernels_.readSlab(outputOf<float>(block, image, channel), slab, columns, bias_ + channel);
        }
      }
    });
  }

  // What a block's tiles of an image cover of y.
  template <class S>
  ImageView<S> outputOf(const TileBlocks::Block& block, int64_t image, int64_t channel) const {
    ImageView<S> y = imageOf<S>(y_, block.image + image, channel,
                                std::min(kernels_.lanes, y_.size[1] - channel));
    const int64_t row = block.row * kWinogradTile, column = block.column * kWinogradTile;
    y.data += row * y.rowStride + column * y.columnStride;
    y.height = std::min(block.rows * kWinogradTile, y.height - row);
    y.width = std::min(block.columns * kWinogradTile, y.width - column);
    return y;
  }

  const View &y_, &x_;
  const WinogradFilters& filters_;
  const int64_t padH_, padW_;
  const GemmKernels<float>& gemm_;
  const WinogradKernels& kernels_;
  const DepthBlocks depth_;
  const int64_t c_, k_, filterStride_;
  const TileBlocks blocks_;
  const TileMatrices images_, products_;
  Workspace packed_;
  float *packedFilters_, *bias_;
};

}  // namespace

bool gainsByWinograd(const ConvSizes& z, double directCost) {
  const backend::Conv2dShape& s = z.shape;
  if (z.r != 3 || z.s != 3 || s.strideH != 1 || s.strideW != 1 || s.dilationH != 1 ||
      s.dilationW != 1 || s.groups != 1) {
    return false;
  }
  // What both forms cost, in multiply-adds at the peak rate: measured with AVX-512.
  constexpr double kProduct = 1.2, kTransform = 22;
  const int64_t lanes = winogradTable().f32.lanes;
  const double c = z.c, k = z.k, padC = roundUp(z.c, lanes), padK = roundUp(z.k, lanes);
  const double perFilter = areLarge(z.c, z.k) ? 60 : 12;
  const double tiles = z.n * ceilDivide(z.p, kWinogradTile) * ceilDivide(z.q, kWinogradTile);
  const double direct = directCost * 9 * z.n * z.p * z.q * c * k;
  const double transforms = kTransform * tiles * (padC + padK) + perFilter * c * padK;
  return kWinogradPositions * (kProduct * tiles * c * padK + transforms) < direct;
}

void winogradConvolve(const View& y, const View& x, const WinogradFilters& filters,
                      const View* bias, int64_t padH, int64_t padW) {
  WinogradConvolution(y, x, filters, bias, padH, padW).run();
}

void winogradInputGradient(const View& dx, const View& dy, const View& weight,
                           const backend::Conv2dShape& shape) {
  const WinogradFilters filters{weight.as<float>(), weight.stride[1], weight.stride[0], true};
  winogradConvolve(dx, dy, filters, nullptr, weight.size[2] - 1 - shape.padH,
                   weight.size[3] - 1 - shape.padW);
}

}  // namespace adjoint::cpu
