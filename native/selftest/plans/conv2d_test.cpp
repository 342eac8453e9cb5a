// The plans that cuDNN makes for convolutions, on cards that are not here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "../conv2d_case.h"
#include "cards.h"
#include "cuda/conv2d_graph.h"

namespace adjoint::test {
namespace {

using cuda::Conv2d;
using cuda::Conv2dOp;

struct Kind {
  DType dtype;
  bool tf32;
  const char* name;
};
const Kind kKinds[] = {{DType::float32, false, "float32"},
                       {DType::float32, true, "float32 as TF32"},
                       {DType::bfloat16, false, "bfloat16"},
                       {DType::float16, false, "float16"},
                       {DType::float64, false, "float64"}};

Case square(int64_t n, int64_t c, int64_t size, int64_t k, int64_t r, int64_t stride = 1,
            int64_t dilation = 1, int64_t groups = 1) {
  const int64_t pad = dilation * (r / 2);
  return {n, c, size, size, k, r, r, {stride, stride, pad, pad, dilation, dilation, groups}};
}

// Batch 32 of 224 x 224.
std::vector<Case> resnet50() {
  std::vector<Case> layers = {square(32, 3, 224, 64, 7, 2)};
  int64_t size = 56, inner = 64, from = 64;
  for (int stage = 0; stage < 4; stage++) {
    const int64_t stride = stage == 0 ? 1 : 2;
    layers.push_back(square(32, from, size, 4 * inner, 1, stride));  // the shortcut
    layers.push_back(square(32, from, size, inner, 1));
    layers.push_back(square(32, inner, size, inner, 3, stride));
    size /= stride;
    layers.push_back(square(32, inner, size, 4 * inner, 1));
    layers.push_back(square(32, 4 * inner, size, inner, 1));
    layers.push_back(square(32, inner, size, inner, 3));
    from = 4 * inner;
    inner *= 2;
  }
  return layers;
}

// Images of 256 x 256 for U-Net (Ronneberger et al. 2015, padded): on each level two convolutions
// down and two up, the first of which takes what comes across too, and between the levels one of
// 2 x 2 with stride 2. That one is transposed, so its x is the larger image: its forward pass is
// backwardInput here, its backward passes are the other two.
std::vector<Case> unet() {
  std::vector<Case> layers = {square(4, 1, 256, 64, 3), square(4, 3, 256, 64, 3),
                              square(4, 64, 256, 64, 3)};
  int64_t size = 128;
  for (int64_t width = 128; width <= 1024; width *= 2) {
    layers.push_back(square(4, width / 2, size, width, 3));
    layers.push_back(square(4, width, size, width, 3));
    layers.push_back({4, width / 2, 2 * size, 2 * size, width, 2, 2, {2, 2, 0, 0, 1, 1, 1}});  // up
    layers.push_back(square(4, width, 2 * size, width / 2, 3));  // what met there
    size /= 2;
  }
  layers.push_back(square(4, 64, 256, 2, 1));  // two classes for each pixel
  layers.push_back(square(4, 64, 256, 1, 1));
  return layers;
}

std::vector<Case> others() {
  return {{64, 1, 28, 28, 32, 3, 3, {1, 1, 0, 0, 1, 1, 1}},  // MNIST: one convolution, LeNet
          {64, 1, 28, 28, 6, 5, 5, {1, 1, 2, 2, 1, 1, 1}},
          {64, 6, 14, 14, 16, 5, 5, {1, 1, 0, 0, 1, 1, 1}},
          square(128, 3, 32, 16, 3),  // ResNet-20
          square(128, 16, 32, 32, 3, 2),
          square(32, 32, 56, 32, 3, 1, 1, 32),  // depthwise
          square(32, 64, 56, 64, 3, 1, 1, 4),
          square(8, 64, 56, 64, 3, 1, 2),
          square(8, 64, 56, 64, 3, 1, 2, 4),
          {3, 5, 17, 23, 7, 3, 2, {2, 3, 1, 0, 1, 2, 1}}};
}

Conv2d describe(const Case& z, Conv2dOp op, const Kind& kind, bool channelsLast) {
  Conv2d c{};
  c.op = op;
  c.dtype = kind.dtype;
  c.tf32 = kind.tf32;
  c.shape = z.shape;
  c.channelsLast = channelsLast;
  const int64_t sizes[3][4] = {
      {z.n, z.c, z.h, z.w}, {z.k, z.c / z.shape.groups, z.r, z.s}, {z.n, z.k, z.p(), z.q()}};
  cuda::Conv2dTensor* tensors[] = {&c.x, &c.w, &c.y};
  const int axes[2][4] = {{0, 1, 2, 3}, {0, 2, 3, 1}};
  for (int t = 0; t < 3; t++) {
    std::copy(sizes[t], sizes[t] + 4, tensors[t]->size);
    int64_t stride = 1;
    for (int i = 3; i >= 0; i--) {
      tensors[t]->stride[axes[channelsLast][i]] = stride;
      stride *= sizes[t][axes[channelsLast][i]];
    }
  }
  return c;
}

// Every way in which the library is asked for one convolution.
std::vector<Conv2d> requests(const Case& z, const Kind& kind) {
  static const float kBias[1] = {};
  std::vector<Conv2d> all;
  for (bool channelsLast : {false, true}) {
    for (Conv2dOp op : {Conv2dOp::forward, Conv2dOp::backwardInput, Conv2dOp::backwardWeight}) {
      all.push_back(describe(z, op, kind, channelsLast));
    }
    for (bool relu : {false, true}) {
      Conv2d fused = describe(z, Conv2dOp::forward, kind, channelsLast);
      fused.bias = kBias;
      fused.relu = relu;
      all.push_back(fused);
    }
  }
  return all;
}

class PlansFor : public ::testing::TestWithParam<Card> {
 protected:
  void SetUp() override {
    if (!cuda::cudnnLibrary().isLoaded()) GTEST_SKIP() << cuda::cudnnLibrary().reason();
  }
  std::unique_ptr<cuda::CudnnPlan> plan(const Conv2d& c, std::string* reason) const {
    cuda::CudnnTarget target{GetParam().capability, nullptr, GetParam().json()};
    return planConv2d(c, target, cuda::workspaceLimit(c), reason);
  }
  void expectPlans(const char* network, const std::vector<Case>& layers) const {
    for (const Kind& kind : kKinds) {
      size_t plans = 0, greatest = 0;
      int64_t fewest = 1000;
      for (const Case& z : layers) {
        for (const Conv2d& c : requests(z, kind)) {
          std::string reason;
          const auto made = plan(c, &reason);
          ASSERT_TRUE(made) << kind.name << (c.channelsLast ? ", channels last" : "")
                            << (c.bias ? ", fused" : "") << ", operation " << static_cast<int>(c.op)
                            << " of " << z << ": " << reason;
          ASSERT_GE(made->candidates, 2) << kind.name << ", " << z;
          ASSERT_FALSE(made->engine.empty());
          plans++;
          greatest = std::max(greatest, made->workspaceBytes);
          fewest = std::min(fewest, made->candidates);
        }
      }
      std::printf(
          "  %-5s %-9s %-15s %3zu plans of %lld candidates and more, workspaces up to %.1f MiB\n",
          GetParam().name, network, kind.name, plans, static_cast<long long>(fewest),
          static_cast<double>(greatest) / (1 << 20));
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Cards, PlansFor, ::testing::Values(kAmpere, kHopper, kBlackwell),
                         [](const auto& card) { return std::string(card.param.name); });

TEST_P(PlansFor, convolutionsOfResNet50) {
  expectPlans("ResNet-50", resnet50());
}
TEST_P(PlansFor, convolutionsOfUNet) {
  expectPlans("U-Net", unet());
}
TEST_P(PlansFor, convolutionsOfOtherNetworks) {
  expectPlans("others", others());
}

// Strides that said something else than we mean would cost copies of the images, as NCHW does for
// tensor cores.
TEST_P(PlansFor, channelsLastIsWhatTensorCoresRead) {
  const Case z = square(32, 64, 56, 64, 3);
  for (DType dtype : {DType::bfloat16, DType::float16}) {
    for (Conv2dOp op : {Conv2dOp::forward, Conv2dOp::backwardInput, Conv2dOp::backwardWeight}) {
      std::string reason;
      const Kind kind{dtype, false, dtypeName(dtype)};
      const auto inOrder = plan(describe(z, op, kind, false), &reason);
      const auto channelsLast = plan(describe(z, op, kind, true), &reason);
      ASSERT_TRUE(inOrder && channelsLast) << reason;
      const size_t images = static_cast<size_t>(2 * z.n * z.c * z.h * z.w) * 2;
      EXPECT_LE(channelsLast->workspaceBytes, size_t(4) << 20);
      EXPECT_GE(inOrder->workspaceBytes, images);
      EXPECT_LE(inOrder->workspaceBytes, images + (size_t(4) << 20));
    }
  }
}

// So convolvesChannelsLast: for tensor cores cuDNN copies the images of a whole network in the
// order of the axes, and next to nothing with the channels last. For TF32 on Ampere it copies in
// either.
TEST_P(PlansFor, channelsLastTakesLessThroughResNet50) {
  for (const Kind& kind : kKinds) {
    if (itemSize(kind.dtype) != 2 && !kind.tf32) continue;
    double bytes[2] = {};  // of workspaces, by channelsLast
    const std::vector<Case> layers = resnet50();
    for (size_t i = 1; i < layers.size(); i++) {  // the first one's images have three channels
      for (Conv2dOp op : {Conv2dOp::forward, Conv2dOp::backwardInput, Conv2dOp::backwardWeight}) {
        for (bool channelsLast : {false, true}) {
          std::string reason;
          const auto made = plan(describe(layers[i], op, kind, channelsLast), &reason);
          ASSERT_TRUE(made) << reason;
          bytes[channelsLast] += static_cast<double>(made->workspaceBytes);
        }
      }
    }
    const bool copiesEither = kind.tf32 && GetParam().capability < 90;
    EXPECT_LT(bytes[1], bytes[0] / (copiesEither ? 1 : 20)) << kind.name;
  }
}

TEST_P(PlansFor, theSameEngineEveryTime) {
  const Case z = square(32, 64, 56, 64, 3);
  for (const Kind& kind : kKinds) {
    for (const Conv2d& c : requests(z, kind)) {
      std::string reason;
      const auto first = plan(c, &reason), second = plan(c, &reason);
      ASSERT_TRUE(first && second);
      EXPECT_EQ(first->engine, second->engine);
    }
  }
}

// What cuDNN can't must come back as a refusal: then our own kernels compute it.
TEST_P(PlansFor, refusals) {
  std::string reason;
  Conv2d mismatched = describe(square(2, 8, 8, 8, 3), Conv2dOp::forward, kKinds[0], false);
  mismatched.x.size[1] = 5;
  EXPECT_FALSE(plan(mismatched, &reason));
  EXPECT_FALSE(reason.empty());
  Conv2d wrong = describe(square(2, 8, 8, 8, 3), Conv2dOp::forward, kKinds[0], false);
  wrong.y.size[2] = 3;
  EXPECT_FALSE(plan(wrong, &reason));
}

// bfloat16 came with Ampere: every such plan is refused, and our own kernels compute it.
class PlansForTuring : public PlansFor {};
INSTANTIATE_TEST_SUITE_P(Cards, PlansForTuring, ::testing::Values(kTuring));

TEST_P(PlansForTuring, refuseBfloat16Alone) {
  size_t made = 0, refused = 0;
  for (const std::vector<Case>& layers : {resnet50(), unet(), others()}) {
    for (const Case& z : layers) {
      for (const Kind& kind : kKinds) {
        for (const Conv2d& c : requests(z, kind)) {
          std::string reason;
          const bool isMade = plan(c, &reason) != nullptr;
          EXPECT_EQ(isMade, kind.dtype != DType::bfloat16)
              << kind.name << (c.channelsLast ? ", channels last" : "") << (c.bias ? ", fused" : "")
              << ", operation " << static_cast<int>(c.op) << " of " << z << ": " << reason;
          EXPECT_EQ(isMade, reason.empty());
          (isMade ? made : refused)++;
        }
      }
    }
  }
  std::printf("  %-5s %zu plans, %zu refusals\n", GetParam().name, made, refused);
}

}  // namespace
}  // namespace adjoint::test
