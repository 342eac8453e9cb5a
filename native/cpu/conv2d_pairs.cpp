#include "cpu/conv2d_pairs.h"

#include <algorithm>
#include <optional>
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
// Pixel (p, q) of an output sees pixel (p strideH + row, q strideW + column) of the input.
struct Tap {
  int64_t row, column, weight;  // weight: where it lies in a filter
};

// Pixels that see the input under the same taps.
struct Output {
  View y;
  std::vector<Tap> taps;
};

// Output k and input c of group g at data + g groupStride + k outputStride + c inputStride + a tap.
struct Filters {
  const uint16_t* data;
  int64_t groupStride, outputStride, inputStride;
};

// Outputs of one number of channels, from one slab of the input.
class Convolution {
 public:
  Convolution(const Conv2dPairsKernels& kernels, std::vector<Output> outputs, const View& x,
              int64_t strideH, int64_t strideW, int64_t groups)
      : kernels_(kernels),
        outputs_(std::move(outputs)),
        x_(x),
        strideH_(strideH),
        strideW_(strideW),
        groups_(groups),
        c_(x.size[1] / groups),
        k_(outputs_[0].y.size[1] / groups),
        pairs_(ceilDivide(c_, 2)),
        blocks_(k_),
        bias_(groups * blocks_.padded() * sizeof(float)) {
    top_ = left_ = INT64_MAX;
    int64_t bottom = INT64_MIN, right = INT64_MIN;
    for (const Output& output : outputs_) {
      rows_ = std::max(rows_, output.y.size[2]);
      columns_ = std::max(columns_, output.y.size[3]);
      for (const Tap& tap : output.taps) {
        top_ = std::min(top_, tap.row);
        left_ = std::min(left_, tap.column);
        bottom = std::max(bottom, tap.row);
        right = std::max(right, tap.column);
      }
    }
    haloH_ = bottom - top_;
    slabColumns_ = (columns_ - 1) * strideW + right - left_ + 1;
    int64_t size = 0;
    for (const Output& output : outputs_) {
      weightsBegin_.push_back(size);
      size += groups * blocks_.padded() * filterSize(output);
      offsets_.emplace_back();
      for (const Tap& tap : output.taps) {
        offsets_.back().push_back(((tap.row - top_) * slabColumns_ + tap.column - left_) * 2 *
                                  pairs_);
      }
    }
    weights_.emplace(size * sizeof(uint16_t));
    const int64_t wanted = std::max<int64_t>(1, kBlockPixels / columns_);
    blockRows_ = ceilDivide(rows_, ceilDivide(rows_, wanted));
  }

  void run(const Filters& filters, const View* bias) {
    packWeights(filters);
    auto* b = bias_.as<float>();
    std::fill_n(b, groups_ * blocks_.padded(), 0.0f);
    for (int64_t i = 0; bias && i < groups_ * k_; i++) {
      b[i / k_ * blocks_.padded() + i % k_] = toFloat(bias->as<BFloat16>()[i * bias->stride[0]]);
    }
    const int64_t rowBlocks = ceilDivide(rows_, blockRows_);
    int64_t filterSizes = 0;
    for (const Output& output : outputs_) filterSizes += filterSize(output);
    const double operations = 2.0 * k_ * filterSizes * blockRows_ * columns_ + 1;
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
        block(image / groups_, image % groups_, p, memory, reinterpret_cast<float*>(memory + slab));
      }
    });
  }

 private:
  static constexpr int64_t kBlockPixels = 512, kPackGrain = 1 << 13;

  // Elements of a packed filter.
  int64_t filterSize(const Output& output) const {
    return static_cast<int64_t>(output.taps.size()) * 2 * pairs_;
  }
  int64_t slabRows(int64_t rows) const { return (rows - 1) * strideH_ + haloH_ + 1; }
  static int64_t rowGroups(int64_t columns) { return ceilDivide(columns, kPixelGroup); }
  int64_t sumsSize() const {
    return blockRows_ * rowGroups(columns_) * kPixelGroup * kBlockFilters;
  }

  // [tap][pair of channels][filter][2] for each block of filters
  void packWeights(const Filters& filters) {
    for (size_t o = 0; o < outputs_.size(); o++) {
      const int64_t grain =
          std::max<int64_t>(1, kPackGrain / (kBlockFilters * filterSize(outputs_[o]) + 1));
      parallelFor(groups_ * blocks_.count(), grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
          packBlock(filters, o, i / blocks_.count(), i % blocks_.count());
        }
      });
    }
  }
  void packBlock(const Filters& filters, size_t o, int64_t g, int64_t b) {
    const int64_t width = blocks_.vectors(b) * kPairLanes, count = blocks_.filters(b);
    const uint16_t* from =
        filters.data + g * filters.groupStride + b * kBlockFilters * filters.outputStride;
    uint16_t* to = weights(o, g, b);
    std::fill_n(to, width * filterSize(outputs_[o]), uint16_t{0});
    for (const Tap& tap : outputs_[o].taps) {
      for (int64_t c = 0; c < c_; c++) {
        const uint16_t* w = from + c * filters.inputStride + tap.weight;
        uint16_t* pair = to + c / 2 * 2 * width + c % 2;
        for (int64_t k = 0; k < count; k++) pair[2 * k] = w[k * filters.outputStride];
      }
      to += pairs_ * 2 * width;
    }
  }
  uint16_t* weights(size_t o, int64_t g, int64_t block) {
    return weights_->as<uint16_t>() + weightsBegin_[o] +
           (g * blocks_.padded() + block * kBlockFilters) * filterSize(outputs_[o]);
  }

  // Rows p.. of the outputs of one image and group.
  void block(int64_t n, int64_t g, int64_t p, uint16_t* slab, float* sums) {
    kernels_.fillSlab(slab, bf16ImageOf(x_, n, g * c_, c_),
                      slabRows(std::min(blockRows_, rows_ - p)), slabColumns_, p * strideH_ + top_,
                      left_);
    for (size_t o = 0; o < outputs_.size(); o++) {
      const int64_t rows = std::min(blockRows_, outputs_[o].y.size[2] - p);
      if (rows > 0) multiply(o, n, g, p, rows, slab, sums);
    }
  }
  void multiply(size_t o, int64_t n, int64_t g, int64_t p, int64_t rows, const uint16_t* slab,
                float* sums) {
    const View& out = outputs_[o].y;
    const std::vector<int64_t>& offset = offsets_[o];
    const int64_t q = out.size[3], inRow = rowGroups(q), pixelStep = strideW_ * 2 * pairs_;
    std::vector<int64_t> group(rows * inRow);
    for (int64_t i = 0; i < static_cast<int64_t>(group.size()); i++) {
      group[i] =
          i / inRow * strideH_ * slabColumns_ * 2 * pairs_ + i % inRow * kPixelGroup * pixelStep;
    }
    for (int64_t b = 0; b < blocks_.count(); b++) {
      const int64_t vectors = blocks_.vectors(b), k = b * kBlockFilters;
      kernels_.multiply(sums, slab, group.data(), group.size(), pixelStep, offset.data(),
                        offset.size(), pairs_, weights(o, g, b), vectors);
      uint16_t* y = out.as<uint16_t>() + n * out.stride[0] + (g * k_ + k) * out.stride[1];
      // Rows of whole groups that lie one after the other are one.
      const int64_t width = inRow * kPixelGroup;
      const bool isFlat = width == q && out.stride[2] == q * out.stride[3];
      for (int64_t row = 0; row < rows; row += isFlat ? rows : 1) {
        kernels_.store(y + (p + row) * out.stride[2], out.stride[1], out.stride[3],
                       sums + row * width * vectors * kPairLanes, vectors, blocks_.filters(b),
                       isFlat ? rows * q : q, bias_.as<float>() + g * blocks_.padded() + k);
      }
    }
  }

  const Conv2dPairsKernels& kernels_;
  const std::vector<Output> outputs_;
  const View& x_;
  const int64_t strideH_, strideW_, groups_, c_, k_, pairs_;
  const FilterBlocks blocks_;
  Workspace bias_;
  std::optional<Workspace> weights_;
  std::vector<int64_t> weightsBegin_;          // of each output
  std::vector<std::vector<int64_t>> offsets_;  // of each output's taps, in the slab
  int64_t rows_ = 0, columns_ = 0;             // of the largest output
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
  Output output{y, {}};
  for (int64_t r = 0; r < z.r; r++) {
    for (int64_t s = 0; s < z.s; s++) {
      output.taps.push_back({r * shape.dilationH - shape.padH, s * shape.dilationW - shape.padW,
                             r * w.stride[2] + s * w.stride[3]});
    }
  }
  Convolution(kernels, {output}, x, shape.strideH, shape.strideW, z.groups)
      .run({w.as<uint16_t>(), z.k * w.stride[0], w.stride[0], w.stride[1]}, bias);
}

// Row h = i strideH + a of dx sees row p of dy under tap r where p strideH = h + padH - r
// dilationH: for each remainder a, a convolution of stride 1 with the taps that divide evenly.
void convolvePairsInput(const Conv2dPairsKernels& kernels, const View& dx, const View& dy,
                        const View& w, const backend::Conv2dShape& shape) {
  const ConvSizes z(dx, w, dy, shape);
  std::vector<Output> outputs;
  for (int64_t a = 0; a < std::min(shape.strideH, z.h); a++) {
    for (int64_t b = 0; b < std::min(shape.strideW, z.w); b++) {
      Output part{dx, {}};
      for (int64_t r = 0; r < z.r; r++) {
        for (int64_t s = 0; s < z.s; s++) {
          const int64_t row = a + shape.padH - r * shape.dilationH;
          const int64_t column = b + shape.padW - s * shape.dilationW;
          if (row % shape.strideH != 0 || column % shape.strideW != 0) continue;
          part.taps.push_back(
              {row / shape.strideH, column / shape.strideW, r * w.stride[2] + s * w.stride[3]});
        }
      }
      View& y = part.y;
      y.data = dx.as<uint16_t>() + a * dx.stride[2] + b * dx.stride[3];
      y.size[2] = ceilDivide(z.h - a, shape.strideH);
      y.size[3] = ceilDivide(z.w - b, shape.strideW);
      y.stride[2] *= shape.strideH;
      y.stride[3] *= shape.strideW;
      if (part.taps.empty()) {
        backend::fill(y, Scalar::of(0.0));
      } else {
        outputs.push_back(std::move(part));
      }
    }
  }
  if (outputs.empty()) return;
  Convolution(kernels, std::move(outputs), dy, 1, 1, z.groups)
      .run({w.as<uint16_t>(), z.k * w.stride[0], w.stride[1], w.stride[0]}, nullptr);
}

}  // namespace adjoint::cpu
