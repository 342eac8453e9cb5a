// Batch normalisation, with rectification and without, and its gradient against float64 loops.
#include <gtest/gtest.h>

#include <cmath>

#include "contract.h"
#include "test_tensor.h"

namespace adjoint {
namespace {

struct Expected {
  std::vector<double> mean, variance, y, dx, dweight, dbias;
};

int64_t channelOf(const TestTensor& x, int64_t i) {
  int64_t inner = 1;
  for (int d = 2; d < x.view().ndim; d++) inner *= x.size(d);
  return i / inner % x.size(1);
}

// With relu, the gradient passes where y is above 0 as float64 has it.
Expected reference(const TestTensor& x, const TestTensor& dy, const TestTensor* weight,
                   const TestTensor* bias, double eps, bool relu) {
  const int64_t c = x.size(1), n = x.numel();
  const double count = static_cast<double>(n) / c;
  Expected e{std::vector<double>(c), std::vector<double>(c), std::vector<double>(n),
             std::vector<double>(n), std::vector<double>(c), std::vector<double>(c)};
  for (int64_t i = 0; i < n; i++) e.mean[channelOf(x, i)] += x.get(i) / count;
  for (int64_t i = 0; i < n; i++) {
    const int64_t k = channelOf(x, i);
    e.variance[k] += std::pow(x.get(i) - e.mean[k], 2) / count;
  }
  const auto xhat = [&](int64_t i) {
    const int64_t k = channelOf(x, i);
    return (x.get(i) - e.mean[k]) / std::sqrt(e.variance[k] + eps);
  };
  std::vector<double> g(n);
  for (int64_t i = 0; i < n; i++) {
    const int64_t k = channelOf(x, i);
    e.y[i] = xhat(i) * (weight ? weight->get(k) : 1) + (bias ? bias->get(k) : 0);
    if (relu && e.y[i] <= 0) {
      e.y[i] = 0;
      continue;
    }
    g[i] = dy.get(i);
    e.dweight[k] += g[i] * xhat(i);
    e.dbias[k] += g[i];
  }
  for (int64_t i = 0; i < n; i++) {
    const int64_t k = channelOf(x, i);
    e.dx[i] = (weight ? weight->get(k) : 1) / std::sqrt(e.variance[k] + eps) *
              (g[i] - (e.dbias[k] + xhat(i) * e.dweight[k]) / count);
  }
  return e;
}

void expectNear(const TestTensor& got, const std::vector<double>& expected, double tolerance,
                const char* what) {
  for (int64_t i = 0; i < got.numel(); i++) {
    ASSERT_NEAR(got.get(i), expected[i], tolerance * (1 + std::abs(expected[i])))
        << what << " at " << i;
  }
}

void expectCorrect(const std::vector<int64_t>& shape, DType dtype, const std::vector<int>& order,
                   bool affine, int64_t gap = 0, double shift = 0, bool relu = false) {
  const int64_t c = shape[1];
  const DType wide = dtype == DType::float64 ? DType::float64 : DType::float32;
  TestTensor x(dtype, shape, order, gap), dy(dtype, shape, order), y(dtype, shape, order);
  TestTensor dx(dtype, shape, order), weight(dtype, {c}), bias(dtype, {c});
  TestTensor mean(wide, {c}), rstd(wide, {c}), runningMean(wide, {c}), runningVar(wide, {c});
  TestTensor dweight(dtype, {c}), dbias(dtype, {c});
  x.randomize(1);
  for (int64_t i = 0; i < x.numel(); i++) x.set(i, x.get(i) + shift);
  dy.randomize(2);
  weight.randomize(3);
  bias.randomize(4);
  runningMean.fill(2);
  runningVar.fill(3);
  const double eps = 1e-5, momentum = 0.1;
  const Expected e =
      reference(x, dy, affine ? &weight : nullptr, affine ? &bias : nullptr, eps, relu);
  const View* w = affine ? &weight.view() : nullptr;
  backend::batchNorm({y.view(), mean.view(), rstd.view(), x.view(), w,
                      affine ? &bias.view() : nullptr, &runningMean.view(), &runningVar.view(),
                      momentum, eps, relu});
  backend::batchNormBackward({dx.view(), dweight.view(), dbias.view(), dy.view(), x.view(), w,
                              affine ? &bias.view() : nullptr, mean.view(), rstd.view(), relu});
  const double u = dtype == DType::float64    ? 1e-13
                   : dtype == DType::float32  ? 2e-6
                   : dtype == DType::bfloat16 ? 5e-3
                                              : 6e-4;
  const double wideU = wide == DType::float64 ? 1e-13 : 2e-6;
  const double count = static_cast<double>(x.numel()) / c;
  expectNear(y, e.y, u * (1 + shift), "y");
  expectNear(mean, e.mean, wideU, "mean");
  expectNear(dx, e.dx, 4 * u * (1 + shift), "dx");
  expectNear(dweight, e.dweight, u * (1 + shift) * std::sqrt(count), "dweight");
  expectNear(dbias, e.dbias, u * std::sqrt(count), "dbias");
  for (int64_t k = 0; k < c; k++) {
    const double r = 1 / std::sqrt(e.variance[k] + eps);
    ASSERT_NEAR(rstd.get(k), r, wideU * r * (1 + shift));
    ASSERT_NEAR(runningMean.get(k), 0.9 * 2 + 0.1 * e.mean[k], 2 * wideU * (1 + shift));
    ASSERT_NEAR(runningVar.get(k), 0.9 * 3 + 0.1 * e.variance[k] * count / (count - 1), 4 * wideU);
  }
}

TEST(BatchNorm, EveryLayoutShapeAndType) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
      SCOPED_TRACE(dtypeName(dtype));
      for (int mode = 0; mode < 8; mode++) {
        const bool affine = mode & 1, relu = mode & 2;
        const int64_t gap = mode & 4 ? 3 : 0;
        expectCorrect({5, 3, 7, 9}, dtype, {0, 1, 2, 3}, affine, gap, 0, relu);
        expectCorrect({5, 70, 3, 2}, dtype, {0, 2, 3, 1}, affine, gap, 0, relu);
        expectCorrect({33, 70}, dtype, {0, 1}, affine, gap, 0, relu);
        expectCorrect({33, 5}, dtype, {1, 0}, affine, gap, 0, relu);
        expectCorrect({4, 2, 19}, dtype, {0, 1, 2}, affine, gap, 0, relu);
        expectCorrect({4, 1, 3, 3}, dtype, {3, 0, 2, 1}, affine, gap, 0, relu);
        expectCorrect({2, 2, 3, 2, 5}, dtype, {0, 1, 2, 3, 4}, affine, gap, 0, relu);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

TEST(BatchNorm, PlanesOfEveryLength) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (int64_t n = 1; n <= 70; n++) {
      for (DType dtype : {DType::float32, DType::bfloat16}) {
        expectCorrect({3, 2, n}, dtype, {0, 1, 2}, true, 0, 0, n % 2 == 0);
      }
      if (testing::Test::HasFatalFailure()) return;
    }
    expectCorrect({3, 2, 5000}, DType::float32, {0, 1, 2}, true);
  });
}

// Large enough to be cut by images, by pixels, by both, and by rows of columns.
TEST(BatchNorm, InSeveralParts) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (DType dtype : {DType::float32, DType::float64, DType::bfloat16}) {
      expectCorrect({9, 3, 61, 61}, dtype, {0, 1, 2, 3}, true, 0, 0, true);
      expectCorrect({1, 2, 263, 251}, dtype, {0, 1, 2, 3}, true);
      expectCorrect({3, 5, 97, 91}, dtype, {0, 1, 2, 3}, true, 0, 0, true);
      expectCorrect({1700, 70}, dtype, {0, 1}, true);
    }
  });
}

// Images that differ in brightness: the parts' means are far from the mean of all.
TEST(BatchNorm, PartsWithMeansOfTheirOwn) {
  for (const auto& order : {std::vector<int>{0, 1, 2}, {0, 2, 1}}) {
    TestTensor x(DType::float32, {32, 2, 5000}, order), y(DType::float32, {32, 2, 5000}, order);
    TestTensor mean(DType::float32, {2}), rstd(DType::float32, {2});
    x.randomize(1);
    for (int64_t i = 0; i < x.numel(); i++) x.set(i, x.get(i) + 10 * (i / 10000));
    backend::batchNorm({y.view(), mean.view(), rstd.view(), x.view(), nullptr, nullptr, nullptr,
                        nullptr, 0.1, 1e-5, false});
    const Expected e = reference(x, x, nullptr, nullptr, 1e-5, false);
    for (int64_t k = 0; k < 2; k++) {
      EXPECT_NEAR(mean.get(k), e.mean[k], 2e-7 * e.mean[k]);
      EXPECT_NEAR(rstd.get(k), 1 / std::sqrt(e.variance[k] + 1e-5), 2e-7 * rstd.get(k));
    }
  }
}

// The mean is subtracted before anything is squared, so that a large one does no harm.
TEST(BatchNorm, ALargeMeanCostsNoAccuracyButItsOwnRounding) {
  expectCorrect({8, 3, 11, 11}, DType::float32, {0, 1, 2, 3}, true, 0, 100);
  expectCorrect({500, 3}, DType::float32, {0, 1}, true, 0, 100);
}

TEST(BatchNorm, WithoutRunningStatistics) {
  TestTensor x(DType::float32, {4, 3}), y(DType::float32, {4, 3});
  TestTensor mean(DType::float32, {3}), rstd(DType::float32, {3});
  x.randomize(1);
  backend::batchNorm({y.view(), mean.view(), rstd.view(), x.view(), nullptr, nullptr, nullptr,
                      nullptr, 0.1, 1e-5, false});
  for (int64_t k = 0; k < 3; k++) {
    double sum = 0;
    for (int64_t i = 0; i < 4; i++) sum += y.at({i, k});
    EXPECT_NEAR(sum, 0, 1e-5);
  }
}

TEST(BatchNorm, NaNStaysInItsChannel) {
  for (const auto& order : {std::vector<int>{0, 1, 2}, {0, 2, 1}}) {
    TestTensor x(DType::float32, {2, 3, 20}, order), y(DType::float32, {2, 3, 20}, order);
    TestTensor mean(DType::float32, {3}), rstd(DType::float32, {3});
    x.randomize(1);
    x.set(25, NAN);
    for (bool relu : {false, true}) {
      backend::batchNorm({y.view(), mean.view(), rstd.view(), x.view(), nullptr, nullptr, nullptr,
                          nullptr, 0.1, 1e-5, relu});
      for (int64_t i = 0; i < x.numel(); i++) {
        EXPECT_EQ(std::isnan(y.get(i)), channelOf(x, i) == 1);
      }
    }
  }
}

TEST(BatchNorm, ThreadsDoNotChangeABit) {
  for (const auto& order : {std::vector<int>{0, 1, 2}, {0, 2, 1}}) {
    TestTensor x(DType::float32, {8, 130, 333}, order), dy(DType::float32, {8, 130, 333}, order);
    x.randomize(1);
    dy.randomize(2);
    std::vector<unsigned char> first;
    for (int threads : {1, 3}) {
      TestTensor y(DType::float32, {8, 130, 333}, order), dx(DType::float32, {8, 130, 333}, order);
      TestTensor mean(DType::float32, {130}), rstd(DType::float32, {130});
      TestTensor dweight(DType::float32, {130}), dbias(DType::float32, {130});
      withThreads(threads, [&] {
        backend::batchNorm({y.view(), mean.view(), rstd.view(), x.view(), nullptr, nullptr, nullptr,
                            nullptr, 0.1, 1e-5, true});
        backend::batchNormBackward({dx.view(), dweight.view(), dbias.view(), dy.view(), x.view(),
                                    nullptr, nullptr, mean.view(), rstd.view(), true});
      });
      std::vector<unsigned char> all = y.bytes();
      all.insert(all.end(), dx.bytes().begin(), dx.bytes().end());
      all.insert(all.end(), dweight.bytes().begin(), dweight.bytes().end());
      if (threads == 1) first = all;
      EXPECT_EQ(first, all);
    }
  }
}

}  // namespace
}  // namespace adjoint
