#include "cpu/conv2d_pairs.h"

#include <algorithm>
#include <vector>

#include "cpu/features.h"
#include "cpu/pool.h"
#include "cpu/workspace.h"
#include "shared/convert.h"

#if defined(ADJOINT_HAS_AVX512)
namespace adjoint::cpu::avx512bf16 {
extern const Conv2dPairsKernels conv2dPairsKernels;
}
#endif

namespace adjoint::cpu {
namespace {

constexpr double kTaskOperations = 4e6;
// Pixel (p, q) of the output sees pixel (p strideH + row, q strideW + column) of the input.
struct Tap {
  int64_t row, column, weight;  // weight: where it lies in a filter
};

// Output k and input c of group g at data + g groupStride + k outputStride + c inputStride + a tap.
struct Filters {
  const uint16_t* data;
  int64_t groupStride, outputStride, inputStride;
};

class Convolution {
 public:
  Convolution(const Conv2dPairsKernels& kernels, const View& y, const View& x,
              const std::vector<Tap>& taps, int64_t strideH, int64_t strideW, int64_t groups)
      : kernels_(kernels),
        y_(y),
        x_(x),
        taps_(taps),
        strideH_(strideH),
        strideW_(strideW),
        groups_(groups),
        c_(x.size[1] / groups),
        k_(y.size[1] / groups),
        pairs_(ceilDivide(c_, 2)),
        blocks_(k_),
        filterStride_(static_cast<int64_t>(taps.size()) * 2 * pairs_),
        weights_(groups * blocks_.padded() * filterStride_ * sizeof(uint16_t)),
        bias_(groups * blocks_.padded() * sizeof(float)) {
    top_ = left_ = INT64_MAX;
    int64_t bottom = INT64_MIN, right = INT64_MIN;
    for (const Tap& tap : taps) {
      top_ = std::min(top_, tap.row);
      left_ = std::min(left_, tap.column);
      bottom = std::max(bottom, tap.row);
      right = std::max(right, tap.column);
    }
    haloH_ = bottom - top_;
    slabColumns_ = (y.size[3] - 1) * strideW + right - left_ + 1;
    for (const Tap& tap : taps) {
      offset_.push_back(((tap.row - top_) * slabColumns_ + tap.column - left_) * 2 * pairs_);
    }
    const int64_t wanted = std::max<int64_t>(1, kBlockPixels / y.size[3]);
    blockRows_ = ceilDivide(y.size[2], ceilDivide(y.size[2], wanted));
  }

  void run(const Filters& filters, const View* bias) {
    packWeights(filters);
    auto* b = bias_.as<float>();
    std::fill_n(b, groups_ * blocks_.padded(), 0.0f);
    for (int64_t i = 0; bias && i < groups_ * k_; i++) {
      b[i / k_ * blocks_.padded() + i % k_] = toFloat(bias->as<BFloat16>()[i * bias->stride[0]]);
    }
    const int64_t rowBlocks = ceilDivide(y_.size[2], blockRows_);
    const double operations = 2.0 * k_ * filterStride_ * blockRows_ * y_.size[3] + 1;
    const auto grain = std::max<int64_t>(1, static_cast<int64_t>(kTaskOperations / operations));
    parallelFor(x_.size[0] * groups_ * rowBlocks, grain, [&](int64_t begin, int64_t end) {
      const int64_t slack = kPixelGroup * strideW_ * 2 * pairs_;
      const int64_t slab =
          (slabRows(blockRows_) * slabColumns_ * 2 * pairs_ + slack + 31) / 32 * 32;
      Workspace space(slab * sizeof(uint16_t) + sumsSize() * sizeof(float));
      auto* memory = space.as<uint16_t>();
      std::fill_n(memory, slab, uint16_t{0});
      for (int64_t i = begin; i < end; i++) {
        const int64_t p = i % rowBlocks * blockRows_, image = i / rowBlocks;
        block(image / groups_, image % groups_, p, std::min(blockRows_, y_.size[2] - p), memory,
              reinterpret_cast<float*>(memory + slab));
      }
    });
  }

 private:
  static constexpr int64_t kBlockPixels = 512, kPackGrain = 1 << 13;

  int64_t slabRows(int64_t rows) const { return (rows - 1) * strideH_ + haloH_ + 1; }
  int64_t rowGroups() const { return ceilDivide(y_.size[3], kPixelGroup); }
  int64_t sumsSize() const { return blockRows_ * rowGroups() * kPixelGroup * kBlockFilters; }

  // [tap][pair of channels][filter][2] for each block of filters
  void packWeights(const Filters& filters) {
    auto* packed = weights_.as<uint16_t>();
    const int64_t grain = std::max<int64_t>(1, kPackGrain / (kBlockFilters * filterStride_ + 1));
    parallelFor(groups_ * blocks_.count(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t g = i / blocks_.count(), b = i % blocks_.count();
        const int64_t width = blocks_.vectors(b) * kPairLanes, count = blocks_.filters(b);
        const uint16_t* from =
            filters.data + g * filters.groupStride + b * kBlockFilters * filters.outputStride;
        uint16_t* to = packed + weightsAt(g, b);
        std::fill_n(to, width * filterStride_, uint16_t{0});
        for (const Tap& tap : taps_) {
          for (int64_t c = 0; c < c_; c++) {
            const uint16_t* w = from + c * filters.inputStride + tap.weight;
            uint16_t* pair = to + c / 2 * 2 * width + c % 2;
            for (int64_t k = 0; k < count; k++) pair[2 * k] = w[k * filters.outputStride];
          }
          to += pairs_ * 2 * width;
        }
      }
    });
  }
  int64_t weightsAt(int64_t g, int64_t block) const {
    return (g * blocks_.padded() + block * kBlockFilters) * filterStride_;
  }

  // Rows p.. of the output of one image and group.
  void block(int64_t n, int64_t g, int64_t p, int64_t rows, uint16_t* slab, float* sums) {
    kernels_.fillSlab(slab, bf16ImageOf(x_, n, g * c_, c_), slabRows(rows), slabColumns_,
                      p * strideH_ + top_, left_);
    const int64_t pixelStep = strideW_ * 2 * pairs_;
    std::vector<int64_t> group(rows * rowGroups());
    for (int64_t i = 0; i < static_cast<int64_t>(group.size()); i++) {
      group[i] = i / rowGroups() * strideH_ * slabColumns_ * 2 * pairs_ +
                 i % rowGroups() * kPixelGroup * pixelStep;
    }
    for (int64_t b = 0; b < blocks_.count(); b++) {
      const int64_t vectors = blocks_.vectors(b), k = b * kBlockFilters;
      kernels_.multiply(sums, slab, group.data(), group.size(), pixelStep, offset_.data(),
                        offset_.size(), pairs_, weights_.as<uint16_t>() + weightsAt(g, b), vectors);
      uint16_t* y = y_.as<uint16_t>() + n * y_.stride[0] + (g * k_ + k) * y_.stride[1];
      // Rows of whole groups that lie one after the other are one.
      const int64_t q = y_.size[3], width = rowGroups() * kPixelGroup;
      const bool isFlat = width == q && y_.stride[2] == q * y_.stride[3];
      for (int64_t row = 0; row < rows; row += isFlat ? rows : 1) {
        kernels_.store(y + (p + row) * y_.stride[2], y_.stride[1], y_.stride[3],
                       sums + row * width * vectors * kPairLanes, vectors, blocks_.filters(b),
                       isFlat ? rows * q : q, bias_.as<float>() + g * blocks_.padded() + k);
      }
    }
  }

  const Conv2dPairsKernels& kernels_;
  const View &y_, &x_;
  const std::vector<Tap>& taps_;
  const int64_t strideH_, strideW_, groups_, c_, k_, pairs_;
  const FilterBlocks blocks_;
  const int64_t filterStride_;  // elements of a packed filter
  Workspace weights_, bias_;
  std::vector<int64_t> offset_;  // of the taps, in the slab
  int64_t top_, left_, haloH_, slabColumns_, blockRows_;
};

}  // namespace

const Conv2dPairsKernels* conv2dPairs() {
#if defined(ADJOINT_HAS_AVX512)
  if (hasFeature(Feature::avx512Bf16) && !hasFeature(Feature::amxBf16)) {
    return &avx512bf16::conv2dPairsKernels;
  }
#endif
  return nullptr;
}

void convolvePairs(const Conv2dPairsKernels& kernels, const View& y, const View& x, const View& w,
                   const View* bias, const backend::Conv2dShape& shape) {
  if (y.numel() == 0) return;
  const ConvSizes z(x, w, y, shape);
  std::vector<Tap> taps;
  for (int64_t r = 0; r < z.r; r++) {
    for (int64_t s = 0; s < z.s; s++) {
      taps.push_back({r * shape.dilationH - shape.padH, s * shape.dilationW - shape.padW,
                      r * w.stride[2] + s * w.stride[3]});
    }
  }
  Convolution(kernels, y, x, taps, shape.strideH, shape.strideW, z.groups)
      .run({w.as<uint16_t>(), z.k * w.stride[0], w.stride[0], w.stride[1]}, bias);
}

// Row h = i strideH + a of dx sees row p of dy under tap r where p strideH = h + padH - r
// dilationH: for each remainder a, a convolution of stride 1 with the taps that divide evenly.
void convolvePairsInput(const Conv2dPairsKernels& kernels, const View& dx, const View& dy,
                        const View& w, const backend::Conv2dShape& shape) {
  const ConvSizes z(dx, w, dy, shape);
  for (int64_t a = 0; a < std::min(shape.strideH, z.h); a++) {
    for (int64_t b = 0; b < std::min(shape.strideW, z.w); b++) {
      std::vector<Tap> taps;
      for (int64_t r = 0; r < z.r; r++) {
        for (int64_t s = 0; s < z.s; s++) {
          const int64_t row = a + shape.padH - r * shape.dilationH;
          const int64_t column = b + shape.padW - s * shape.dilationW;
          if (row % shape.strideH != 0 || column % shape.strideW != 0) continue;
          taps.push_back(
              {row / shape.strideH, column / shape.strideW, r * w.stride[2] + s * w.stride[3]});
        }
      }
      View part = dx;
      part.data = dx.as<uint16_t>() + a * dx.stride[2] + b * dx.stride[3];
      part.size[2] = ceilDivide(z.h - a, shape.strideH);
      part.size[3] = ceilDivide(z.w - b, shape.strideW);
      part.stride[2] *= shape.strideH;
      part.stride[3] *= shape.strideW;
      if (taps.empty()) {
        backend::fill(part, Scalar::of(0.0));
        continue;
      }
      Convolution(kernels, part, dy, taps, 1, 1, z.groups)
          .run({w.as<uint16_t>(), z.k * w.stride[0], w.stride[1], w.stride[0]}, nullptr);
    }
  }
}

}  // namespace adjoint::cpu
