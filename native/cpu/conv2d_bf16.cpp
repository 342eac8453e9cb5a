#include "cpu/conv2d_bf16.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/compute_view.h"
#include "cpu/conv2d_bf16_slab.h"
#include "cpu/conv2d_pairs.h"
#include "cpu/gemm_bf16.h"
#include "cpu/winograd.h"

namespace adjoint::cpu {
namespace {

constexpr double kTaskOperations = 4e6;
constexpr int64_t kTileBytes = 1 << 19;  // of one operand's tiles in the second cache

// Tiles of rows, all packed: tile i at data + i steps kTileElements.
std::vector<Bf16Rows> packedRows(const uint16_t* data, int64_t rows, int64_t steps) {
  std::vector<Bf16Rows> tiles(ceilDivide(rows, kTileRows));
  for (size_t i = 0; i < tiles.size(); i++) {
    tiles[i] = {data + i * steps * kTileElements, kTileDepth, kTileElements, nullptr};
  }
  return tiles;
}

// Rows of the output so that their columns make about so many bytes of tiles.
int64_t rowsOfBlock(const ConvSizes& z) {
  const int64_t pixels = kTileBytes / (2 * z.depth + 1);
  return z.blockRows(std::clamp<int64_t>(pixels, 2 * kBlockSide, 16 * kBlockSide));
}

class Convolution {
 public:
  Convolution(const View& y, const View& x, const View& w, const View* bias, const ConvSizes& z,
              Bf16Multiply multiply)
      : y_(y),
        x_(x),
        z_(z),
        multiply_(multiply),
        table_(gemmBf16Table()),
        steps_(ceilDivide(z.depth, kTileDepth)),
        rowTiles_(ceilDivide(z.k, kTileRows)),
        blockRows_(rowsOfBlock(z)),
        slab_(z, blockRows_),
        weights_(z.groups * rowTiles_ * steps_ * kTileElements * sizeof(uint16_t)),
        bias_(bias ? z.groups * paddedRows() * sizeof(float) : 0) {
    packWeights(w);
    if (bias) readBias(*bias);
  }

  void run() {
    const int64_t blocks = ceilDivide(z_.p, blockRows_);
    const double operations = 2.0 * z_.k * z_.depth * blockRows_ * slab_.width() + 1;
    const auto grain = std::max<int64_t>(1, static_cast<int64_t>(kTaskOperations / operations));
    parallelFor(z_.n * z_.groups * blocks, grain, [&](int64_t begin, int64_t end) {
      const int64_t pixels = blockPixels(blockRows_), tiles = pixels * steps_ * kTileDepth;
      Workspace space((slab_.size() + tiles + z_.k * pixels) * sizeof(uint16_t));
      auto* memory = space.as<uint16_t>();
      for (int64_t i = begin; i < end; i++) {
        const int64_t p = i % blocks * blockRows_, image = i / blocks;
        block(image / z_.groups, image % z_.groups, p, std::min(blockRows_, z_.p - p), memory,
              memory + tiles, memory + tiles + z_.k * pixels);
      }
    });
  }

 private:
  int64_t paddedRows() const { return roundUpTo(z_.k, kBlockSide); }
  int64_t blockPixels(int64_t rows) const { return roundUpTo(rows * slab_.width(), kBlockSide); }
  uint16_t* weights(int64_t g) {
    return weights_.as<uint16_t>() + g * rowTiles_ * steps_ * kTileElements;
  }

  void packWeights(const View& w) {
    parallelFor(z_.groups * rowTiles_, std::max<int64_t>(1, 64 / (steps_ + 1)),
                [&](int64_t begin, int64_t end) {
                  for (int64_t i = begin; i < end; i++) {
                    const int64_t g = i / rowTiles_, row = i % rowTiles_ * kTileRows;
                    const Bf16Source source = {w.as<uint16_t>() + (g * z_.k + row) * z_.depth,
                                               false,
                                               z_.depth,
                                               1,
                                               std::min(kTileRows, z_.k - row),
                                               z_.depth};
                    table_.packRows(weights(g) + row * steps_ * kTileDepth, 0, source);
                  }
                });
  }
  void readBias(const View& bias) {
    auto* to = bias_.as<float>();
    std::fill_n(to, z_.groups * paddedRows(), 0.0f);
    for (int64_t i = 0; i < z_.groups * z_.k; i++) {
      to[i / z_.k * paddedRows() + i % z_.k] = toFloat(bias.as<BFloat16>()[i * bias.stride[0]]);
    }
    hasBias_ = true;
  }

  void block(int64_t n, int64_t g, int64_t p, int64_t rows, uint16_t* tiles, uint16_t* result,
             uint16_t* slab) {
    slab_.fill(slab, x_, n, g, p);
    const int64_t pixels = rows * slab_.width(), stride = blockPixels(rows);
    for (int64_t j = 0; j < pixels; j += kTileRows) {
      table_.packShifted(tiles + j * steps_ * kTileDepth, slab + j, slab_.offset(), z_.depth);
    }
    const float* bias = hasBias_ ? bias_.as<float>() + g * paddedRows() : nullptr;
    const Bf16Result target = {result, false, stride, 1, bias, 1, 0};
    const std::vector<Bf16Rows> weightTiles = packedRows(weights(g), z_.k, steps_);
    // So many rows of the weights that they stay in the second cache over all pixels.
    const int64_t chunk =
        std::max<int64_t>(1, kTileBytes / (2 * kBlockSide * steps_ * kTileDepth + 1)) * kBlockSide;
    for (int64_t i = 0; i < z_.k; i += chunk) {
      Bf16Block b{};
      b.m = std::min(chunk, z_.k - i);
      b.n = pixels;
      b.end = b.whole = steps_;
      b.rows = weightTiles.data() + i / kTileRows;
      b.columns = tiles;
      b.columnTile = steps_ * kTileElements;
      b.terms = 1;
      b.isFirst = b.isLast = true;
      b.result = &target;
      b.i = i;
      b.finish = table_.finish;
      multiply_(b);
    }
    for (int64_t k = 0; k < z_.k; k++) {
      for (int64_t row = 0; row < rows; row++) {
        uint16_t* to = y_.as<uint16_t>() + n * y_.stride[0] + (g * z_.k + k) * y_.stride[1] +
                       (p + row) * y_.stride[2];
        copyPixels(to, y_.stride[3], result + k * stride + row * slab_.width(), z_.q);
      }
    }
  }
  static void copyPixels(uint16_t* to, int64_t stride, const uint16_t* from, int64_t n) {
    if (stride == 1) {
      std::memcpy(to, from, n * sizeof(uint16_t));
    } else {
      for (int64_t q = 0; q < n; q++) to[q * stride] = from[q];
    }
  }

  const View &y_, &x_;
  const ConvSizes& z_;
  Bf16Multiply multiply_;
  const GemmBf16Table& table_;
  const int64_t steps_, rowTiles_, blockRows_;
  const Bf16Slab slab_;
  Workspace weights_, bias_;
  bool hasBias_ = false;
};

// dw [k, depth] = sum over images of dy [k, pixels] columns^T [pixels, depth]
class WeightGradient {
 public:
  WeightGradient(float* dw, const View& dy, const View& x, const ConvSizes& z,
                 Bf16Multiply multiply)
      : dw_(dw),
        dy_(dy),
        x_(x),
        z_(z),
        multiply_(multiply),
        table_(gemmBf16Table()),
        blockRows_(z.blockRows(kBlockPixels)),
        slab_(z, blockRows_),
        pixels_(roundUpTo(blockRows_ * slab_.width(), kTileDepth)) {
    const double bytes = 4.0 * z.groups * z.k * z.depth;
    const int64_t most =
        std::min<int64_t>(kMostParts, 1 + static_cast<int64_t>(kPartBytes / bytes));
    partImages_ = ceilDivide(z.n, std::min(most, z.n));
    parts_ = ceilDivide(z.n, partImages_);
  }

  void run() {
    const int64_t count = z_.groups * z_.k * z_.depth;
    Workspace partials(parts_ > 1 ? parts_ * count * sizeof(float) : 0);
    float* sums = parts_ > 1 ? partials.as<float>() : dw_;
    parallelFor(parts_ * z_.groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t part = i / z_.groups, g = i % z_.groups;
        task(sums + part * count + g * z_.k * z_.depth, part * partImages_, g);
      }
    });
    if (parts_ == 1) return;
    // The parts are added in the order of the images.
    parallelFor(count, 1 << 14, [&](int64_t begin, int64_t end) {
      std::copy(sums + begin, sums + end, dw_ + begin);
      for (int64_t t = 1; t < parts_; t++) {
        for (int64_t i = begin; i < end; i++) dw_[i] += sums[t * count + i];
      }
    });
  }

 private:
  static constexpr int64_t kBlockPixels = 512, kMostParts = 16;
  static constexpr double kPartBytes = 32e6;

  void task(float* dw, int64_t image, int64_t g) const {
    const int64_t steps = pixels_ / kTileDepth, blocks = ceilDivide(z_.p, blockRows_);
    const int64_t rowTiles = ceilDivide(z_.k, kTileRows),
                  tapTiles = ceilDivide(z_.depth, kTileRows);
    const int64_t sumBlocks = ceilDivide(z_.k, kBlockSide) * ceilDivide(z_.depth, kBlockSide);
    // Small images go into one product together: its sums are fetched and put back once.
    const int64_t count = std::min(z_.n - image, partImages_) * blocks;
    const int64_t together = std::min(count, std::max<int64_t>(1, kBlockPixels / pixels_));
    const int64_t stride = together * pixels_;
    Workspace space((slab_.size() + (rowTiles + tapTiles) * kTileRows * stride) * sizeof(uint16_t));
    Workspace sums(sumBlocks * kBlockElements * sizeof(float));
    auto* tiles = space.as<uint16_t>();
    uint16_t* rows = tiles + tapTiles * kTileRows * stride;
    uint16_t* slab = rows + rowTiles * kTileRows * stride;
    std::vector<Bf16Rows> dyTiles(rowTiles);
    for (int64_t i = 0; i < rowTiles; i++) {
      dyTiles[i] = {rows + i * kTileRows * stride, stride, kTileDepth, nullptr};
    }
    const Bf16Result target = {dw, true, z_.depth, 1, nullptr, 0, 0};
    Bf16Block b{};
    b.m = z_.k;
    b.n = z_.depth;
    b.rows = dyTiles.data();
    b.columns = tiles;
    b.columnTile = together * steps * kTileElements;
    b.terms = 1;
    b.sums = sums.as<float>();
    b.result = &target;
    b.finish = table_.finish;
    for (int64_t first = 0; first < count; first += together) {
      const int64_t last = std::min(count, first + together);
      std::fill_n(rows, rowTiles * kTileRows * stride, uint16_t{0});
      for (int64_t i = first; i < last; i++) {
        const int64_t n = image + i / blocks, p = i % blocks * blockRows_, at = i - first;
        slab_.fill(slab, x_, n, g, p);
        readRows(rows + at * pixels_, stride, n, g, p);
        for (int64_t t = 0; t < tapTiles; t++) {
          const int64_t tap = t * kTileRows;
          table_.packRuns(tiles + (t * together + at) * steps * kTileElements, slab,
                          slab_.offset() + tap, std::min(kTileRows, z_.depth - tap), pixels_);
        }
      }
      b.end = b.whole = (last - first) * steps;
      b.isFirst = first == 0;
      b.isLast = last == count;
      multiply_(b);
    }
  }

  // dy as rows of the slab's length: zeros where the product must drop what it sees.
  void readRows(uint16_t* rows, int64_t stride, int64_t n, int64_t g, int64_t p) const {
    const int64_t count = std::min(blockRows_, z_.p - p);
    for (int64_t k = 0; k < z_.k; k++) {
      for (int64_t row = 0; row < count; row++) {
        const uint16_t* from = dy_.as<uint16_t>() + n * dy_.stride[0] +
                               (g * z_.k + k) * dy_.stride[1] + (p + row) * dy_.stride[2];
        uint16_t* to = rows + k * stride + row * slab_.width();
        if (dy_.stride[3] == 1) {
          std::memcpy(to, from, z_.q * sizeof(uint16_t));
        } else {
          for (int64_t q = 0; q < z_.q; q++) to[q] = from[q * dy_.stride[3]];
        }
      }
    }
  }

  float* dw_;
  const View &dy_, &x_;
  const ConvSizes& z_;
  Bf16Multiply multiply_;
  const GemmBf16Table& table_;
  const int64_t blockRows_;
  const Bf16Slab slab_;
  const int64_t pixels_;
  int64_t partImages_, parts_;
};

// Filters of one pixel see every strideH-th row and strideW-th column alone: those are an image of
// their own, and the stride is 1.
bool isSparse(const View& w, const backend::Conv2dShape& s) {
  return w.size[2] == 1 && w.size[3] == 1 && s.padH == 0 && s.padW == 0 &&
         (s.strideH > 1 || s.strideW > 1);
}
View seenPixels(const View& x, const View& y, const backend::Conv2dShape& s) {
  View seen = x;
  for (int axis : {2, 3}) {
    seen.size[axis] = y.size[axis];
    seen.stride[axis] *= axis == 2 ? s.strideH : s.strideW;
  }
  return seen;
}
backend::Conv2dShape withoutStride(const backend::Conv2dShape& s) {
  return {1, 1, 0, 0, 1, 1, s.groups};
}

}  // namespace

void convolveTiles(const View& y, const View& x, const View& w, const View* bias,
                   const backend::Conv2dShape& shape, Bf16Multiply multiply) {
  if (y.numel() == 0) return;
  const ComputeInput dense(w, Layout::dense, DType::bfloat16);
  const ConvSizes sizes(x, dense.view(), y, shape);
  Convolution(y, x, dense.view(), bias, sizes, multiply).run();
}

bool convolveTilesInput(const View& dx, const View& dy, const View& w,
                        const backend::Conv2dShape& forward, Bf16Multiply multiply) {
  const ConvSizes z(dx, w, dy, forward);
  backend::Conv2dShape shape = forward;
  shape.padH = (z.r - 1) * shape.dilationH - shape.padH;
  shape.padW = (z.s - 1) * shape.dilationW - shape.padW;
  if (shape.strideH != 1 || shape.strideW != 1 || shape.padH < 0 || shape.padW < 0) return false;
  // The taps in reverse, inputs and outputs exchanged: [groups c, k, r, s].
  Workspace space(z.groups * z.k * z.depth * sizeof(uint16_t));
  auto* turned = space.as<uint16_t>();
  uint16_t* to = turned;
  for (int64_t i = 0; i < z.groups * z.c; i++) {
    for (int64_t k = 0; k < z.k; k++) {
      const uint16_t* from =
          w.as<uint16_t>() + (i / z.c * z.k + k) * w.stride[0] + i % z.c * w.stride[1];
      for (int64_t r = z.r - 1; r >= 0; r--) {
        for (int64_t s = z.s - 1; s >= 0; s--) *to++ = from[r * w.stride[2] + s * w.stride[3]];
      }
    }
  }
  View weights = w;
  weights.data = turned;
  weights.size[0] = z.groups * z.c;
  weights.size[1] = z.k;
  const int64_t strides[] = {z.k * z.r * z.s, z.r * z.s, z.s, 1};
  std::copy_n(strides, 4, weights.stride);
  convolveTiles(dx, dy, weights, nullptr, shape, multiply);
  return true;
}

void convolveTilesWeight(const View& dw, const View& dy, const View& x,
                         const backend::Conv2dShape& shape, Bf16Multiply multiply) {
  const ConvSizes sizes(x, dw, dy, shape);
  WeightGradient(dw.as<float>(), dy, x, sizes, multiply).run();
}

bool hasBf16Convolution(DType images, const View& w, const backend::Conv2dShape& shape) {
  constexpr int64_t kFewChannels = 8;
  const bool fillsTiles = shape.groups == 1 || w.size[1] >= kFewChannels;
  return images == DType::bfloat16 && fillsTiles && bf16Multiply();
}

void convolveBf16(const View& y, const View& x, const View& w, const View* bias,
                  const backend::Conv2dShape& shape) {
  if (isSparse(w, shape)) {
    return convolveBf16(y, seenPixels(x, y, shape), w, bias, withoutStride(shape));
  }
  if (const auto* pairs = conv2dPairs()) {
    if (!gainsByWinograd(ConvSizes(x, w, y, shape), kDirectPairsCost)) {
      return convolvePairs(*pairs, y, x, w, bias, shape);
    }
    const ComputeInput weight(w, Layout::dense), computeBias(bias ? *bias : View{});
    const WinogradFilters filters{weight.view().as<float>(), weight.view().stride[0],
                                  weight.view().stride[1], false};
    return winogradConvolve(y, x, filters, bias ? &computeBias.view() : nullptr, shape.padH,
                            shape.padW);
  }
  convolveTiles(y, x, w, bias, shape, bf16Multiply());
}

bool convolveBf16Input(const View& dx, const View& dy, const View& w,
                       const backend::Conv2dShape& shape) {
  if (isSparse(w, shape)) {
    backend::fill(dx, Scalar::of(0.0));
    return convolveBf16Input(seenPixels(dx, dy, shape), dy, w, withoutStride(shape));
  }
  if (const auto* pairs = conv2dPairs()) {
    const ConvSizes z(dx, w, dy, shape);
    if (isTurnedConvolution(z) && gainsByWinograd(z, kDirectPairsCost)) {
      winogradInputGradient(dx, dy, ComputeInput(w, Layout::dense).view(), shape);
    } else {
      convolvePairsInput(*pairs, dx, dy, w, shape);
    }
    return true;
  }
  return convolveTilesInput(dx, dy, w, shape, bf16Multiply());
}

void convolveBf16Weight(const View& dw, const View& dy, const View& x,
                        const backend::Conv2dShape& shape) {
  if (isSparse(dw, shape)) {
    return convolveBf16Weight(dw, dy, seenPixels(x, dy, shape), withoutStride(shape));
  }
  ComputeOutput sums(dw, Layout::dense, DType::float32);
  if (const auto* pairs = conv2dPairs()) {
    if (gainsByWinograd(ConvSizes(x, dw, dy, shape), kDirectPairsCost)) {
      winogradWeightGradient(sums.view().as<float>(), dy, x, shape.padH, shape.padW);
    } else {
      convolvePairsWeight(*pairs, sums.view(), dy, x, shape);
    }
  } else {
    convolveTilesWeight(sums.view(), dy, x, shape, bf16Multiply());
  }
  sums.finish();
}

}  // namespace adjoint::cpu
