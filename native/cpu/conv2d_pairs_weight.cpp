// The gradient of the filters on AVX512-BF16: dw [k, depth] = sum over images and pixels of
// dy [k, pixels] columns^T [pixels, depth], in pairs of neighbouring pixels.
#include <algorithm>
#include <vector>

#include "cpu/conv2d_bf16_slab.h"
#include "cpu/conv2d_pairs.h"
#include "cpu/pool.h"
#include "cpu/workspace.h"

namespace adjoint::cpu {
namespace {

class WeightGradient {
 public:
  WeightGradient(const Conv2dPairsKernels& kernels, float* dw, const View& dy, const View& x,
                 const ConvSizes& z)
      : kernels_(kernels),
        dw_(dw),
        dy_(dy),
        x_(x),
        z_(z),
        blocks_(z.k),
        blockRows_(z.blockRows(kBlockPixels)),
        slab_(z, blockRows_),
        pairs_(ceilDivide(z.q, 2)),
        chunks_(ceilDivide(z.depth, kPairOffsets)),
        offset_(slab_.offset(), slab_.offset() + z.depth) {
    offset_.resize(chunks_ * kPairOffsets, offset_[0]);  // whose sums nobody reads
    const double bytes = sizeof(float) * static_cast<double>(sumsSize() * z.groups);
    const int64_t most =
        std::min<int64_t>(kMostParts, 1 + static_cast<int64_t>(kPartBytes / bytes));
    partImages_ = ceilDivide(z.n, std::min(most, z.n));
    parts_ = ceilDivide(z.n, partImages_);
  }

  void run() const {
    const int64_t count = z_.groups * sumsSize();
    Workspace space(parts_ * count * sizeof(float));
    auto* sums = space.as<float>();
    parallelFor(parts_ * z_.groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t part = i / z_.groups, g = i % z_.groups;
        task(sums + part * count + g * sumsSize(), part * partImages_, g);
      }
    });
    // The parts are added in the order of the images.
    parallelFor(parts_ > 1 ? count : 0, 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t t = 1; t < parts_; t++) {
        const float* from = sums + t * count;
        for (int64_t i = begin; i < end; i++) sums[i] += from[i];
      }
    });
    writeSums(sums);
  }

 private:
  static constexpr int64_t kBlockPixels = 512, kMostParts = 16;
  static constexpr double kPartBytes = 16e6;

  // [offset][filter] for each block of filters
  int64_t sumsSize() const { return blocks_.padded() * chunks_ * kPairOffsets; }

  void task(float* sums, int64_t image, int64_t g) const {
    const int64_t rowSize = pairs_ * 2 * blocks_.padded();
    Workspace space((slab_.size() + blockRows_ * rowSize) * sizeof(uint16_t));
    auto* slab = space.as<uint16_t>();
    uint16_t* packed = slab + slab_.size();
    std::fill_n(slab, slab_.size(), uint16_t{0});
    bool isFirst = true;
    for (int64_t n = image; n < std::min(z_.n, image + partImages_); n++) {
      for (int64_t p = 0; p < z_.p; p += blockRows_) {
        const int64_t rows = std::min(blockRows_, z_.p - p);
        fillSlab(slab, n, g, p);
        packRows(packed, n, g, p, rows);
        for (int64_t b = 0; b < blocks_.count(); b++) {
          const int64_t first = b * kBlockFilters, vectors = blocks_.vectors(b);
          for (int64_t i = 0; i < chunks_; i++) {
            kernels_.multiplyGradient(
                sums + first * chunks_ * kPairOffsets + i * kPairOffsets * vectors * kPairLanes,
                isFirst, slab, offset_.data() + i * kPairOffsets, rows, slab_.width(), pairs_,
                packed + first * blockRows_ * pairs_ * 2, vectors);
          }
        }
        isFirst = false;
      }
    }
  }

  void fillSlab(uint16_t* slab, int64_t n, int64_t g, int64_t p) const {
    Bf16Image from = bf16ImageOf(x_, n, g * z_.c, 1);
    slab_.forEachPlane(slab, x_, n, g, p,
                       [&](uint16_t* plane, const uint16_t* image, int64_t top, int64_t left) {
                         from.data = image;
                         kernels_.fillPlane(plane, from, slab_.height(), slab_.width(), top, left,
                                            z_.shape.strideH, z_.shape.strideW);
                       });
  }

  void packRows(uint16_t* packed, int64_t n, int64_t g, int64_t p, int64_t rows) const {
    for (int64_t b = 0; b < blocks_.count(); b++) {
      const int64_t first = b * kBlockFilters, vectors = blocks_.vectors(b);
      const uint16_t* dy =
          dy_.as<uint16_t>() + n * dy_.stride[0] + (g * z_.k + first) * dy_.stride[1];
      // Rows of whole pairs that lie one after the other are one.
      const bool isFlat = z_.q % 2 == 0 && dy_.stride[2] == z_.q * dy_.stride[3];
      for (int64_t row = 0; row < rows; row += isFlat ? rows : 1) {
        kernels_.packRow(packed + (first * blockRows_ + row * vectors * kPairLanes) * pairs_ * 2,
                         dy + (p + row) * dy_.stride[2], dy_.stride[1], dy_.stride[3], vectors,
                         blocks_.filters(b), isFlat ? rows * z_.q : z_.q);
      }
    }
  }

  void writeSums(const float* sums) const {
    const int64_t grain = std::max<int64_t>(1, (1 << 13) / (z_.depth + 1));
    parallelFor(z_.groups * z_.k, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t k = i % z_.k, b = k / kBlockFilters;
        const int64_t width = blocks_.vectors(b) * kPairLanes;
        const float* from = sums + i / z_.k * sumsSize() +
                            b * kBlockFilters * chunks_ * kPairOffsets + k % kBlockFilters;
        for (int64_t d = 0; d < z_.depth; d++) dw_[i * z_.depth + d] = from[d * width];
      }
    });
  }

  const Conv2dPairsKernels& kernels_;
  float* dw_;
  const View &dy_, &x_;
  const ConvSizes& z_;
  const FilterBlocks blocks_;
  const int64_t blockRows_;
  const Bf16Slab slab_;
  const int64_t pairs_, chunks_;  // pairs of pixels in a row of dy; of offsets
  std::vector<int64_t> offset_;
  int64_t partImages_, parts_;
};

}  // namespace

void convolvePairsWeight(const Conv2dPairsKernels& kernels, const View& dw, const View& dy,
                         const View& x, const backend::Conv2dShape& shape) {
  const ConvSizes sizes(x, dw, dy, shape);
  WeightGradient(kernels, dw.as<float>(), dy, x, sizes).run();
}

}  // namespace adjoint::cpu
