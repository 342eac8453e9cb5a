// The plans that cuDNN makes for the attention of GPT-2, on cards that are not here.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <string>

#include "cards.h"
#include "cuda/attention_graph.h"

namespace adjoint::test {
namespace {

class AttentionPlansFor : public ::testing::TestWithParam<Card> {
 protected:
  void SetUp() override {
    if (!cuda::cudnnLibrary().isLoaded()) GTEST_SKIP() << cuda::cudnnLibrary().reason();
  }
};
INSTANTIATE_TEST_SUITE_P(Cards, AttentionPlansFor, ::testing::Values(kAmpere, kHopper, kBlackwell));

// [B, H, T, D] as it lies in [B, T, H, D].
cuda::AttentionTensor heads(int64_t b, int64_t h, int64_t t, int64_t d) {
  return {nullptr, {b, h, t, d}, {t * h * d, d, h * d, 1}};
}

// Causal attention of GPT-2, 8 x 1024 tokens.
cuda::FusedAttention gpt2(DType dtype, bool isBackward, bool isDeterministic) {
  cuda::FusedAttention a{};
  a.isBackward = isBackward;
  a.dtype = dtype;
  a.q = a.k = a.v = a.y = a.dy = a.dq = a.dk = a.dv = heads(8, 12, 1024, 64);
  a.scale = 0.125f;
  a.isCausal = true;
  a.isDeterministic = isDeterministic;
  return a;
}

struct Mode {
  const char* name;
  bool isBackward, isDeterministic;
};
constexpr Mode kModes[] = {
    {"forward", false, false}, {"backward", true, false}, {"backward, deterministic", true, true}};

TEST_P(AttentionPlansFor, gpt2) {
  constexpr double kMiB = 1 << 20;
  for (DType dtype : {DType::bfloat16, DType::float16}) {
    std::unique_ptr<cuda::CudnnPlan> plans[3];
    for (int i = 0; i < 3; i++) {
      const Mode& mode = kModes[i];
      const auto a = gpt2(dtype, mode.isBackward, mode.isDeterministic);
      std::string reason;
      plans[i] = cuda::planAttention(a, {GetParam().capability, nullptr, GetParam().json()},
                                     int64_t(1) << 30, &reason);
      ASSERT_TRUE(plans[i]) << dtypeName(dtype) << " " << mode.name << ": " << reason;
      const double workspace = static_cast<double>(plans[i]->workspaceBytes) / kMiB;
      std::printf("  %-5s GPT-2     %-8s %-23s %lld plans, taken %s, workspace %.1f MiB\n",
                  GetParam().name, dtypeName(dtype), mode.name,
                  static_cast<long long>(plans[i]->candidates), plans[i]->engine.c_str(),
                  workspace);
      EXPECT_EQ(plans[i]->engine.rfind("eng", 0), 0u) << plans[i]->engine;
      EXPECT_GE(plans[i]->candidates, 1);
      // Nothing; dq in float32, twice on older cards; the scores in half precision.
      EXPECT_LE(workspace, (mode.isDeterministic ? 192
                            : mode.isBackward    ? 48
                                                 : 0) +
                               1)
          << mode.name;
    }
    const auto &atomic = *plans[1], &deterministic = *plans[2];
    EXPECT_LE(deterministic.candidates, atomic.candidates);
    EXPECT_TRUE(atomic.engine != deterministic.engine ||
                atomic.workspaceBytes != deterministic.workspaceBytes);
  }
}

// A plan that adds atomically is never taken for one that must not, nor is a second one made of
// what does not differ.
TEST(AttentionPlanKey, hasWhatAPlanDependsOn) {
  const auto key = [](bool isBackward, bool isDeterministic) {
    return cuda::attentionPlanKey(gpt2(DType::bfloat16, isBackward, isDeterministic));
  };
  EXPECT_NE(key(true, false), key(true, true));
  EXPECT_EQ(key(false, false), key(false, true));
  EXPECT_NE(key(false, true), key(true, true));
  auto other = gpt2(DType::bfloat16, true, true);
  other.dy.data = &other;
  EXPECT_EQ(cuda::attentionPlanKey(other), key(true, true));
  other.dy.stride[0] *= 2;
  EXPECT_NE(cuda::attentionPlanKey(other), key(true, true));
}

}  // namespace
}  // namespace adjoint::test
