// Cross entropy, its mean and its gradient against the formula in float64.
#include <string>

#include "device_tensor.h"

namespace adjoint::test {
namespace {

class LossOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(LossOnDevice);

constexpr int64_t kIgnore = -100;

struct Expected {
  Values lse, loss, dlogits;
  double sum = 0, count = 0;
};

Expected reference(const Values& logits, const Values& target, const Values& dy, size_t classes) {
  Expected e;
  for (size_t row = 0; row < target.size(); row++) {
    const double* x = &logits[row * classes];
    double maximum = -INFINITY, sum = 0;
    for (size_t c = 0; c < classes; c++) maximum = std::fmax(maximum, x[c]);
    for (size_t c = 0; c < classes; c++) sum += std::exp(x[c] - maximum);
    e.lse.push_back(maximum + std::log(sum));
    const bool isIgnored = target[row] == static_cast<double>(kIgnore);
    e.loss.push_back(isIgnored ? 0 : e.lse[row] - x[static_cast<size_t>(target[row])]);
    for (size_t c = 0; c < classes; c++) {
      const double p = std::exp(x[c] - e.lse[row]);
      const double hit = static_cast<double>(c) == target[row];
      e.dlogits.push_back(isIgnored ? 0 : dy[row] * (p - hit));
    }
    e.sum += e.loss[row];
    e.count += !isIgnored;
  }
  return e;
}

Values targets(int64_t n, int64_t classes) {
  Values t;
  for (int64_t i = 0; i < n; i++) {
    t.push_back(static_cast<double>(i % 5 == 4 ? kIgnore : i * 7919 % classes));
  }
  return t;
}

// x [n, classes], as `values` are.
void expectCorrect(const DeviceTensor& x, const DeviceTensor& dx, const Values& values) {
  const int64_t n = x.view.size[0], classes = x.view.size[1];
  const DType dtype = x.view.dtype;
  const DType wide = dtype == DType::float64 ? DType::float64 : DType::float32;
  SCOPED_TRACE(std::string(dtypeName(dtype)) + " of " + std::to_string(n) + " x " +
               std::to_string(classes));
  const Values t = targets(n, classes), g = randomValues(n, -2, 2, dtype, 5);
  const DeviceTensor target(DType::int64, {n}, t), dy(wide, {n}, g);
  const DeviceTensor loss = DeviceTensor::empty(dtype, {n}), lse = DeviceTensor::empty(wide, {n});
  backend::crossEntropy(loss, lse, x, target, kIgnore);
  backend::crossEntropyBackward(dx, dy, x, lse, target, kIgnore);
  const Expected e = reference(values, t, g, static_cast<size_t>(classes));
  const double u = epsilonOf(dtype), wideU = epsilonOf(wide);
  expectClose(lse.read(), e.lse, 8 * wideU);
  expectClose(loss.read(), e.loss, u + 8 * wideU);
  expectClose(dx.read(), e.dlogits, 2 * u + 32 * wideU);

  const DeviceTensor mean = DeviceTensor::empty(dtype, {}), rate = DeviceTensor::empty(wide, {});
  const DeviceTensor again = DeviceTensor::empty(wide, {n});
  backend::crossEntropyMean(mean, rate, again, x, target, kIgnore);
  EXPECT_EQ(again.read(), lse.read());
  expectClose(mean.read(), {e.sum / e.count}, u + 16 * wideU);
  expectClose(rate.read(), {1 / e.count}, 2 * wideU);
}

TEST_P(LossOnDevice, everyTypeAndSize) {
  for (DType dtype : kFloats) {
    for (int64_t classes : {1, 2, 10, 16, 33, 65, 1000, 3001}) {
      const int64_t n = classes > 100 ? 6 : 37;
      const Values x = randomValues(n * classes, -10, 10, dtype, 1);
      expectCorrect(DeviceTensor(dtype, {n, classes}, x), DeviceTensor::empty(dtype, {n, classes}),
                    x);
      if (HasFatalFailure()) return;
    }
  }
}

// Rows of an odd vocabulary start at any place; logits and their gradient at different ones.
TEST_P(LossOnDevice, longRowsThatStartAnywhere) {
  for (DType dtype : {DType::float32, DType::bfloat16}) {
    const int64_t n = 3, classes = 20011;
    const Values x = randomValues(n * classes, -10, 10, dtype, 1);
    for (int64_t offset : {0, 1}) {
      const auto elements = static_cast<size_t>(n * (classes + 3) + 1);
      const DeviceTensor logits(dtype, {n, classes}, {classes + 3, 1}, offset, elements);
      backend::copy(logits, DeviceTensor(dtype, {n, classes}, x));
      const DeviceTensor dx(dtype, {n, classes}, {classes + 3, 1}, 0, elements);
      expectCorrect(logits, dx, x);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(LossOnDevice, transposedLogits) {
  for (DType dtype : {DType::float32, DType::float16}) {
    const Values x = randomValues(9 * 20, -10, 10, dtype, 1);
    const DeviceTensor logits = DeviceTensor::empty(dtype, {20, 9}).permuted({1, 0});
    backend::copy(logits, DeviceTensor(dtype, {9, 20}, x));
    expectCorrect(logits, DeviceTensor::empty(dtype, {20, 9}).permuted({1, 0}), x);
  }
}

TEST_P(LossOnDevice, manyRows) {
  const int64_t n = 9001, classes = 3;
  const Values x = randomValues(n * classes, -2, 2);
  expectCorrect(DeviceTensor(DType::float32, {n, classes}, x),
                DeviceTensor::empty(DType::float32, {n, classes}), x);
}

// dy [1] expanded, as the mean's gradient is.
TEST_P(LossOnDevice, oneGradientForAllRows) {
  const Values x = randomValues(40, -2, 2), t = {0, 1, 2, 3};
  const DeviceTensor logits(DType::float32, {4, 10}, x), target(DType::int64, {4}, t);
  const DeviceTensor one(DType::float32, {1}, {0.25}), lse(DType::float32, {4}, Values(4));
  const DeviceTensor loss = DeviceTensor::empty(DType::float32, {4});
  const DeviceTensor dx = DeviceTensor::empty(DType::float32, {4, 10});
  View dy = one;
  dy.size[0] = 4;
  dy.stride[0] = 0;
  backend::crossEntropy(loss, lse, logits, target, kIgnore);
  backend::crossEntropyBackward(dx, dy, logits, lse, target, kIgnore);
  expectClose(dx.read(), reference(x, t, Values(4, 0.25), 10).dlogits, 1e-6);
}

TEST_P(LossOnDevice, badTargetsAreRaisedByTheNextWait) {
  const DeviceTensor logits(DType::float32, {3, 4}, randomValues(12, -1, 1));
  const DeviceTensor loss = DeviceTensor::empty(DType::float32, {3}),
                     dy(DType::float32, {3}, {1, 1, 1});
  const DeviceTensor lse = DeviceTensor::empty(DType::float32, {3});
  const DeviceTensor dx = DeviceTensor::empty(DType::float32, {3, 4});
  const DeviceTensor mean = DeviceTensor::empty(DType::float32, {});
  const DeviceTensor rate = DeviceTensor::empty(DType::float32, {});
  auto message = [] {
    try {
      backend::synchronize();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind, ErrorKind::index);
      return std::string(error.what());
    }
    return std::string();
  };
  for (int64_t bad : {int64_t{-1}, int64_t{4}, int64_t{1} << 40, -(int64_t{1} << 40)}) {
    const DeviceTensor target(DType::int64, {3}, {0, static_cast<double>(bad), 3});
    const std::string rest = ": expected targets in [0, 4), got " + std::to_string(bad) + " at 1";
    backend::crossEntropy(loss, lse, logits, target, kIgnore);
    EXPECT_EQ(message(), "crossEntropy" + rest);
    EXPECT_TRUE(std::isnan(loss.read()[1]) && std::isfinite(loss.read()[2]));
    backend::crossEntropyBackward(dx, dy, logits, lse, target, kIgnore);
    EXPECT_EQ(message(), "crossEntropyBackward" + rest);
    backend::crossEntropyMean(mean, rate, lse, logits, target, kIgnore);
    EXPECT_EQ(message(), "crossEntropyMean" + rest);
    backend::crossEntropy(loss, lse, logits, target, bad);
    EXPECT_EQ(message(), "") << "what is ignored need not be a class";
  }
}

TEST_P(LossOnDevice, argumentsAreChecked) {
  const DeviceTensor logits(DType::float32, {3, 4}, Values(12)),
      target(DType::int64, {3}, {0, 0, 0});
  const DeviceTensor loss = DeviceTensor::empty(DType::float32, {3}), lse = loss;
  const DeviceTensor wrong(DType::int32, {3}, {0, 0, 0}), shorter(DType::int64, {2}, {0, 0});
  EXPECT_THROW(backend::crossEntropyMean(loss, loss, lse, logits, target, kIgnore), Error);
  EXPECT_THROW(backend::crossEntropy(loss, lse, logits, wrong, kIgnore), Error);
  EXPECT_THROW(backend::crossEntropy(loss, lse, logits, shorter, kIgnore), Error);
  EXPECT_THROW(backend::crossEntropy(loss, lse, target, target, kIgnore), Error);
  const DeviceTensor half = DeviceTensor::empty(DType::float16, {3, 4});
  EXPECT_THROW(backend::crossEntropyBackward(half, loss, logits, lse, target, kIgnore), Error);
}

TEST_P(LossOnDevice, ofNothingAndOfNoTarget) {
  const DeviceTensor mean = DeviceTensor::empty(DType::float32, {});
  const DeviceTensor rate = DeviceTensor::empty(DType::float32, {});
  for (int64_t n : {0, 2}) {
    const DeviceTensor logits(DType::float32, {n, 3}, randomValues(n * 3, -1, 1));
    const DeviceTensor target(DType::int64, {n}, Values(size_t(n), double(kIgnore)));
    const DeviceTensor lse = DeviceTensor::empty(DType::float32, {n});
    const DeviceTensor dx = DeviceTensor::empty(DType::float32, {n, 3});
    backend::crossEntropyMean(mean, rate, lse, logits, target, kIgnore);
    backend::crossEntropyBackward(dx, lse, logits, lse, target, kIgnore);
    EXPECT_TRUE(std::isnan(mean.read()[0]));
    EXPECT_EQ(rate.read()[0], INFINITY);
    EXPECT_EQ(dx.read(), Values(size_t(n) * 3, 0));
  }
}

TEST_P(LossOnDevice, extremeLogits) {
  const double inf = INFINITY;
  // Masked classes; one class alone; a NaN; large numbers; nothing to choose from.
  const Values x = {-inf, 1, 2,   -inf, -inf, -inf, 3,    -inf, 0,    NAN,
                    1,    2, 1e4, -1e4, -1e4, 1e4,  -inf, -inf, -inf, -inf};
  const DeviceTensor logits(DType::float32, {5, 4}, x), target(DType::int64, {5}, {1, 2, 0, 1, 0});
  const DeviceTensor loss = DeviceTensor::empty(DType::float32, {5});
  const DeviceTensor lse = DeviceTensor::empty(DType::float32, {5});
  backend::crossEntropy(loss, lse, logits, target, kIgnore);
  const Values got = loss.read();
  EXPECT_NEAR(got[0], std::log(1 + std::exp(1.)), 1e-6);
  EXPECT_EQ(got[1], 0);
  EXPECT_TRUE(std::isnan(got[2]));
  EXPECT_NEAR(got[3], 2e4 + std::log(2), 1e-2);
  EXPECT_TRUE(std::isnan(got[4]));
}

}  // namespace
}  // namespace adjoint::test
