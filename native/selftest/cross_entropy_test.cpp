// Cross entropy and its gradient against the formula in double precision.
#include "kernel_test.h"

namespace adjoint::test {
namespace {

class Loss : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Loss);

constexpr int64_t kIgnore = -100;

void check(const Tensor& logits, const Tensor& target, double tolerance) {
  const int64_t n = logits.view.size[0], classes = logits.view.size[1];
  const DType wide = logits.view.dtype == DType::float64 ? DType::float64 : DType::float32;
  Tensor loss(wide, {n}), lse(wide, {n}), dy(wide, {n}), dlogits(logits.view.dtype, {n, classes});
  dy.fillRandom(5);
  backend::crossEntropy(loss.view, lse.view, logits.view, target.view, kIgnore);
  backend::crossEntropyBackward(dlogits.view, dy.view, logits.view, lse.view, target.view, kIgnore);
  for (int64_t i = 0; i < n; i++) {
    double maximum = -INFINITY, sum = 0;
    for (int64_t c = 0; c < classes; c++) maximum = std::fmax(maximum, logits.get(i * classes + c));
    for (int64_t c = 0; c < classes; c++) sum += std::exp(logits.get(i * classes + c) - maximum);
    const int64_t t = target.integer(i);
    const double expectedLse = maximum + std::log(sum);
    ASSERT_NEAR(lse.get(i), expectedLse, 1e-6 * (1 + std::fabs(expectedLse)));
    const double expected = t == kIgnore ? 0 : expectedLse - logits.get(i * classes + t);
    ASSERT_NEAR(loss.get(i), expected, 1e-6 * (1 + std::fabs(expected)));
    for (int64_t c = 0; c < classes; c++) {
      const double p = std::exp(logits.get(i * classes + c) - expectedLse) - (c == t ? 1 : 0);
      ASSERT_NEAR(dlogits.get(i * classes + c), t == kIgnore ? 0 : dy.get(i) * p, tolerance);
    }
  }
  ASSERT_TRUE(loss.isIntact() && lse.isIntact() && dlogits.isIntact());

  Tensor mean(wide, {}), rate(wide, {}), again(wide, {n});
  backend::crossEntropyMean(mean.view, rate.view, again.view, logits.view, target.view, kIgnore);
  double sum = 0, count = 0;
  for (int64_t i = 0; i < n; i++) {
    ASSERT_EQ(again.get(i), lse.get(i));
    sum += loss.get(i);
    count += target.integer(i) != kIgnore;
  }
  ASSERT_NEAR(mean.get(0), sum / count, 1e-6 * (1 + sum / count));
  ASSERT_NEAR(rate.get(0), 1 / count, 1e-7);
  ASSERT_TRUE(mean.isIntact() && rate.isIntact() && again.isIntact());
}

TEST_P(Loss, CrossEntropyInEveryDTypeAndLayout) {
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    const double tolerance = dtype == DType::float64   ? 1e-12
                             : dtype == DType::float32 ? 1e-5
                                                       : 0.02;
    for (int64_t classes : {1, 2, 10, 16, 33, 65, 1000}) {
      for (int layout = 0; layout < 3; layout++) {
        Tensor logits(dtype, layout == 1   ? std::vector<int64_t>{classes, 9}
                             : layout == 2 ? std::vector<int64_t>{9, 3 * classes}
                                           : std::vector<int64_t>{9, classes});
        if (layout == 1) logits.transpose(0, 1);
        if (layout == 2) logits.slice(1, 0, 3);
        Tensor target(DType::int64, {9});
        logits.fillRandom(1, -10, 10);
        for (int64_t i = 0; i < 9; i++) {
          target.data<int64_t>()[i] = i == 4 ? kIgnore : i * 7 % classes;
        }
        check(logits, target, tolerance);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(Loss, TargetsAreChecked) {
  Tensor logits(DType::float32, {3, 4}), target(DType::int64, {3}), loss(DType::float32, {3}),
      lse(DType::float32, {3}), d(DType::float32, {3, 4});
  logits.fillRandom(1);
  target.fill([](int64_t) { return 0; });
  for (int64_t bad : {int64_t{-1}, int64_t{4}, INT64_MIN, INT64_MAX}) {
    target.data<int64_t>()[1] = bad;
    EXPECT_THROW(backend::crossEntropy(loss.view, lse.view, logits.view, target.view, kIgnore),
                 Error);
    EXPECT_THROW(backend::crossEntropyBackward(d.view, loss.view, logits.view, lse.view,
                                               target.view, kIgnore),
                 Error);
  }
  Tensor mean(DType::float32, {}), rate(DType::float32, {});
  EXPECT_THROW(
      backend::crossEntropyMean(mean.view, rate.view, lse.view, logits.view, target.view, kIgnore),
      Error);
  target.fill([](int64_t) { return 0; });
  EXPECT_THROW(
      backend::crossEntropyMean(loss.view, rate.view, lse.view, logits.view, target.view, kIgnore),
      Error);
  Tensor wrong(DType::int32, {3});
  EXPECT_THROW(backend::crossEntropy(loss.view, lse.view, logits.view, wrong.view, kIgnore), Error);
  Tensor shorter(DType::int64, {2});
  EXPECT_THROW(backend::crossEntropy(loss.view, lse.view, logits.view, shorter.view, kIgnore),
               Error);
}

TEST_P(Loss, TheMeanOfNoTargetIsNaN) {
  Tensor logits(DType::float32, {2, 3}), target(DType::int64, {2}), lse(DType::float32, {2});
  Tensor mean(DType::float32, {}), rate(DType::float32, {});
  logits.fillRandom(1);
  target.fill([](int64_t) { return kIgnore; });
  backend::crossEntropyMean(mean.view, rate.view, lse.view, logits.view, target.view, kIgnore);
  EXPECT_TRUE(std::isnan(mean.get(0)));
}

TEST_P(Loss, LargeLogitsAndAnyNumberOfThreads) {
  Tensor logits(DType::float32, {1, 3}), target(DType::int64, {1});
  logits.fill([](int64_t i) { return i == 0 ? 1e4 : -1e4; });
  target.fill([](int64_t) { return 1; });
  check(logits, target, 1e-6);
  expectSameForAnyThreads([] {
    Tensor x(DType::float32, {300, 70}), t(DType::int64, {300}), loss(DType::float32, {300}),
        lse(DType::float32, {300});
    x.fillRandom(2);
    t.fill([](int64_t i) { return static_cast<double>(i % 70); });
    backend::crossEntropy(loss.view, lse.view, x.view, t.view, kIgnore);
    return loss;
  });
}

}  // namespace
}  // namespace adjoint::test
