// The plans that cuDNN makes for the attention of GPT-2, on cards that are not here.
#include <gtest/gtest.h>

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

TEST_P(AttentionPlansFor, gpt2ForwardAndBackward) {
  for (DType dtype : {DType::bfloat16, DType::float16}) {
    for (bool isBackward : {false, true}) {
      const cuda::AttentionTensor x = heads(8, 12, 1024, 64);
      const cuda::FusedAttention a{isBackward, dtype, x, x,       x,      x,   x,
                                   x,          x,     x, nullptr, 0.125f, true};
      std::string reason;
      const auto plan = cuda::planAttention(a, {GetParam().capability, nullptr, GetParam().json()},
                                            int64_t(1) << 30, &reason);
      ASSERT_TRUE(plan) << dtypeName(dtype) << (isBackward ? " backward: " : ": ") << reason;
      EXPECT_FALSE(plan->engine.empty());
      EXPECT_GE(plan->candidates, 1);
      EXPECT_LE(plan->workspaceBytes, size_t(1) << 30);
    }
  }
}

}  // namespace
}  // namespace adjoint::test
