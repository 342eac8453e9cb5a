// Norms of many gradients and clipping to them, against the formula in float64.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "contract.h"
#include "test_tensor.h"

namespace adjoint {
namespace {

constexpr DType kFloats[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};

double tolerance(DType d) {
  return d == DType::float64    ? 1e-13
         : d == DType::float32  ? 2e-7
         : d == DType::bfloat16 ? 4e-3
                                : 5e-4;
}

// Gradients larger than a block of work, tiny ones, an empty one.
struct Gradients {
  explicit Gradients(DType dtype) {
    for (int64_t n : {1, 17, 0, 9000, 33, 64, 40001}) {
      tensors.push_back(std::make_unique<TestTensor>(dtype, std::vector<int64_t>{n}));
      tensors.back()->randomize(static_cast<unsigned>(n));
      views.push_back(tensors.back()->view());
      before.push_back(tensors.back()->values());
    }
  }
  double norm(double p) const {
    double sum = 0;
    for (const auto& values : before) {
      for (double x : values) {
        sum = std::isinf(p) ? std::max(sum, std::abs(x)) : sum + std::pow(std::abs(x), p);
      }
    }
    return std::isinf(p) ? sum : std::pow(sum, 1 / p);
  }
  std::vector<std::unique_ptr<TestTensor>> tensors;
  std::vector<View> views;
  std::vector<std::vector<double>> before;
};

TEST(Clip, ToTheNormOfAll) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (DType dtype : kFloats) {
      for (double p : {2.0, 1.0, 3.0, HUGE_VAL}) {
        SCOPED_TRACE(std::string(dtypeName(dtype)) + ", p " + std::to_string(p));
        Gradients g(dtype);
        TestTensor norm(dtype, {});
        backend::totalNorm(norm.view(), g.views, p);
        EXPECT_NEAR(norm.get(0), g.norm(p), tolerance(dtype) * g.norm(p));
        TestTensor given(DType::float32, {});
        given.fill(8);
        backend::clipToNorm(g.views, given.view(), 9);
        for (size_t i = 0; i < g.views.size(); i++) {
          EXPECT_EQ(g.tensors[i]->values(), g.before[i]);
        }
        backend::clipToNorm(g.views, given.view(), 2);
        const double factor = 2 / (8 + 1e-6);
        for (size_t i = 0; i < g.views.size(); i++) {
          for (int64_t j = 0; j < g.tensors[i]->numel(); j++) {
            const double want = g.before[i][static_cast<size_t>(j)] * factor;
            EXPECT_NEAR(g.tensors[i]->get(j), want, tolerance(dtype) * (std::abs(want) + 1e-3));
          }
        }
      }
    }
  });
}

TEST(Clip, PassesOnWhatIsNoNumber) {
  for (DType dtype : kFloats) {
    for (double p : {2.0, 1.0, 3.0, HUGE_VAL}) {
      for (double odd : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
        Gradients g(dtype);
        g.tensors[3]->set(8999, odd);
        TestTensor norm(dtype, {});
        backend::totalNorm(norm.view(), g.views, p);
        EXPECT_EQ(std::isnan(norm.get(0)), std::isnan(odd));
        EXPECT_FALSE(std::isfinite(norm.get(0)));
        // x / inf is 0, inf / inf and all of NaN are NaN.
        backend::clipToNorm(g.views, norm.view(), 1);
        EXPECT_TRUE(std::isnan(g.tensors[3]->get(8999)));
        EXPECT_EQ(std::isnan(g.tensors[0]->get(0)), std::isnan(odd));
        if (!std::isnan(odd)) {
          EXPECT_EQ(g.tensors[0]->get(0), 0);
        }
      }
    }
  }
}

// The sum of many small squares keeps its digits.
TEST(Clip, SumsInFloat64) {
  TestTensor x(DType::float32, {1000003}), norm(DType::float32, {});
  x.fill(0.1f);
  backend::totalNorm(norm.view(), {x.view()}, 2);
  EXPECT_NEAR(norm.get(0), double(0.1f) * std::sqrt(1000003.0), 1e-5);
}

TEST(Clip, NoGradientsAndIntegers) {
  TestTensor norm(DType::float32, {}), integers(DType::int32, {4});
  norm.fill(3);
  backend::totalNorm(norm.view(), {}, 2);
  EXPECT_EQ(norm.get(0), 0);
  EXPECT_NO_THROW(backend::clipToNorm({}, norm.view(), 1));
  EXPECT_THROW(backend::clipToNorm({integers.view()}, norm.view(), 1), Error);
}

}  // namespace
}  // namespace adjoint
