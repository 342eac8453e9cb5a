// The gradient of the filters by Winograd's form F(3x3, 4x4).
#include "cpu/pool.h"
#include "cpu/winograd.h"

namespace adjoint::cpu {
namespace {

// For each position: sums [k, c] = sum over tiles of gradients [tiles, k]^T images [tiles, c].
// Tasks have sums of their own, over some blocks of tiles each, which are added up in order.
class WinogradWeightGradient {
 public:
  WinogradWeightGradient(float* dw, const View& dy, const View& x, int64_t padH, int64_t padW)
      : dw_(dw),
        dy_(dy),
        x_(x),
        padH_(padH),
        padW_(padW),
        gemm_(gemmKernels<float>()),
        kernels_(winogradTable().f32),
        c_(roundUp(x.size[1], kernels_.lanes)),
        k_(roundUp(dy.size[1], kernels_.lanes)),
        sumStride_(dy.size[1] * c_ + 16),
        isShared_(sharesTasks()),
        blocks_(x.size[0], dy.size[2], dy.size[3],
                (isShared_ ? kSharedBytes : kBlockBytes) /
                    (kWinogradPositions * (c_ + k_) * int64_t{sizeof(float)})),
        images_(blocks_.mostTiles(), c_, gemm_.columns),
        gradients_(blocks_.mostTiles(), k_, k_),
        taskBlocks_(isShared_ ? blocks_.count() : ceilDivide(blocks_.count(), kTasks)),
        tasks_(ceilDivide(blocks_.count(), taskBlocks_)) {}

  // Tasks run side by side where their sums are small beside the matrices. Else there is one task,
  // which all threads share, each at other positions.
  void run() const {
    Workspace space(tasks_ * sumsSize() * sizeof(float));
    float* sums = space.as<float>();
    const auto tasks = [&](int64_t begin, int64_t end) {
      Workspace matrices((images_.size() + gradients_.size()) * sizeof(float));
      for (int64_t i = begin; i < end; i++) task(i, sums + i * sumsSize(), matrices.as<float>());
    };
    if (isShared_) {
      tasks(0, tasks_);
    } else {
      parallelFor(tasks_, 1, tasks);
    }
    combine(sums);
    transformSums(sums);
  }

 private:
  static constexpr int64_t kTasks = 16, kBlockBytes = 5 << 17, kSharedBytes = 5 << 19;

  // By what sums and matrices take; the factor is measured.
  bool sharesTasks() const {
    constexpr double kFewTiles = 80;
    const double pixels = static_cast<double>(x_.size[0]) * dy_.size[2] * dy_.size[3];
    const double tiles = pixels / (kWinogradTile * kWinogradTile);
    return tiles * (c_ + k_) < kFewTiles * c_ * k_;
  }
  int64_t sumsSize() const { return kWinogradPositions * sumStride_; }

  void task(int64_t i, float* sums, float* images) const {
    float* gradients = images + images_.size();
    const int64_t first = i * taskBlocks_;
    for (int64_t b = first; b < std::min(blocks_.count(), first + taskBlocks_); b++) {
      const TileBlocks::Block block = blocks_[b];
      transformTiles(images, images_, block, x_,
                     {kernels_.transformInput, kWinogradHalo, padH_, padW_});
      transformTiles(gradients, gradients_, block, dy_, {kernels_.transformGradient, 0, 0, 0});
      parallelFor(kWinogradPositions, 1, [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; p++) {
          multiply(block.tiles(), gradients + p * gradients_.positionStride,
                   images + p * images_.positionStride, sums + p * sumStride_, b == first);
        }
      });
    }
  }

  void multiply(int64_t tiles, const float* gradients, const float* images, float* sums,
                bool isFirst) const {
    alignas(64) static const float zeros[64] = {};
    GemmBlock<float> product;
    product.m = dy_.size[1];
    product.n = c_;
    product.k = tiles;
    product.a = gradients;
    product.aRow = 1;
    product.aK = k_;
    product.panelRows = product.aPanel = ceilDivide(product.m, ceilDivide(product.m, gemm_.rows));
    product.b = images;
    product.bRow = gemm_.columns;
    product.bPanel = gemm_.columns * images_.tiles;
    product.bEdge = images + c_ / gemm_.columns * product.bPanel;
    product.c = sums;
    product.cRow = c_;
    product.init = isFirst ? zeros : sums;
    product.initRow = isFirst ? 0 : c_;
    product.initColumn = isFirst ? 0 : 1;
    product.run = kRun;
    gemm_.multiply(product);
  }

  // The sums of all tasks, in their order, where those of the first are.
  void combine(float* sums) const {
    if (tasks_ == 1) return;
    parallelFor(sumsSize(), 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t t = 1; t < tasks_; t++) {
        const float* from = sums + t * sumsSize();
        for (int64_t i = begin; i < end; i++) sums[i] += from[i];
      }
    });
  }

  void transformSums(const float* sums) const {
    const int64_t c = x_.size[1], groups = c_ / kernels_.lanes;
    parallelFor(dy_.size[1] * groups, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t k = i / groups, channel = i % groups * kernels_.lanes;
        kernels_.transformSums(dw_ + (k * c + channel) * 9, sums + k * c_ + channel, sumStride_,
                               std::min(kernels_.lanes, c - channel));
      }
    });
  }

  // Sums over tiles are formed in registers over so many: their errors are amplified.
  static constexpr int64_t kRun = 16;

  float* dw_;
  const View &dy_, &x_;
  const int64_t padH_, padW_;
  const GemmKernels<float>& gemm_;
  const WinogradKernels& kernels_;
  const int64_t c_, k_, sumStride_;
  const bool isShared_;
  const TileBlocks blocks_;
  const TileMatrices images_, gradients_;
  const int64_t taskBlocks_, tasks_;
};

}  // namespace

void winogradWeightGradient(float* dw, const View& dy, const View& x, int64_t padH, int64_t padW) {
  WinogradWeightGradient(dw, dy, x, padH, padW).run();
}

}  // namespace adjoint::cpu
