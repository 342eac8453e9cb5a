// Layer norm, RMS norm and their gradients against float64 loops.
#include <gtest/gtest.h>

#include <cmath>

#include "contract.h"
#include "test_tensor.h"

namespace adjoint {
namespace {

struct Expected {
  std::vector<double> mean, rstd, y, dx, dweight, dbias;
};

// Rows of `length` elements; `weight` and `bias` may be null.
Expected reference(const TestTensor& x, const TestTensor& dy, const TestTensor* weight,
                   const TestTensor* bias, int64_t length, double eps, bool centred) {
  const int64_t n = x.numel(), rows = n / length;
  Expected e{std::vector<double>(rows), std::vector<double>(rows),   std::vector<double>(n),
             std::vector<double>(n),    std::vector<double>(length), std::vector<double>(length)};
  for (int64_t row = 0; row < rows; row++) {
    const int64_t at = row * length;
    double squares = 0, sumG = 0, sumGX = 0;
    for (int64_t i = 0; i < length; i++) e.mean[row] += centred ? x.get(at + i) / length : 0;
    for (int64_t i = 0; i < length; i++) squares += std::pow(x.get(at + i) - e.mean[row], 2);
    e.rstd[row] = 1 / std::sqrt(squares / length + eps);
    const auto xhat = [&](int64_t i) { return (x.get(at + i) - e.mean[row]) * e.rstd[row]; };
    const auto g = [&](int64_t i) { return dy.get(at + i) * (weight ? weight->get(i) : 1); };
    for (int64_t i = 0; i < length; i++) {
      e.y[at + i] = xhat(i) * (weight ? weight->get(i) : 1) + (bias ? bias->get(i) : 0);
      e.dweight[i] += dy.get(at + i) * xhat(i);
      e.dbias[i] += dy.get(at + i);
      sumG += centred ? g(i) : 0;
      sumGX += g(i) * xhat(i);
    }
    for (int64_t i = 0; i < length; i++) {
      e.dx[at + i] = e.rstd[row] * (g(i) - (sumG + xhat(i) * sumGX) / length);
    }
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

struct Case {
  std::vector<int64_t> shape;
  int axes;  // how many of the last are normalised
  DType dtype = DType::float32;
  bool affine = true, centred = true;
  std::vector<int> order = {};
  int64_t gap = 0;
  double shift = 0;
};

void expectCorrect(const Case& c) {
  const auto split = c.shape.end() - c.axes;
  const std::vector<int64_t> outer(c.shape.begin(), split), inner(split, c.shape.end());
  const DType wide = c.dtype == DType::float64 ? DType::float64 : DType::float32;
  TestTensor x(c.dtype, c.shape, c.order, c.gap), dy(c.dtype, c.shape, c.order, c.gap);
  TestTensor y(c.dtype, c.shape), dx(c.dtype, c.shape), weight(c.dtype, inner);
  TestTensor bias(c.dtype, inner), mean(wide, outer), rstd(wide, outer);
  TestTensor dweight(c.dtype, inner), dbias(c.dtype, inner);
  x.randomize(1);
  for (int64_t i = 0; i < x.numel(); i++) x.set(i, x.get(i) + c.shift);
  dy.randomize(2);
  weight.randomize(3);
  bias.randomize(4);
  const double eps = 1e-5;
  const bool biased = c.affine && c.centred;
  const Expected e = reference(x, dy, c.affine ? &weight : nullptr, biased ? &bias : nullptr,
                               dweight.numel(), eps, c.centred);
  backend::layerNorm({y.view(), rstd.view(), x.view(), c.centred ? &mean.view() : nullptr,
                      c.affine ? &weight.view() : nullptr, biased ? &bias.view() : nullptr, eps});
  backend::layerNormBackward({dx.view(), dweight.view(), dy.view(), x.view(), rstd.view(),
                              c.centred ? &dbias.view() : nullptr,
                              c.affine ? &weight.view() : nullptr,
                              c.centred ? &mean.view() : nullptr});
  const double u = c.dtype == DType::float64    ? 1e-13
                   : c.dtype == DType::float32  ? 2e-6
                   : c.dtype == DType::bfloat16 ? 5e-3
                                                : 6e-4;
  const double wideU = wide == DType::float64 ? 1e-13 : 2e-6;
  const double rows = std::sqrt(static_cast<double>(rstd.numel()));
  const double large = 1 + c.shift;
  expectNear(y, e.y, u * large, "y");
  if (c.centred) expectNear(mean, e.mean, wideU, "mean");
  for (int64_t i = 0; i < rstd.numel(); i++) {
    ASSERT_NEAR(rstd.get(i), e.rstd[i], wideU * e.rstd[i] * large);
  }
  const double steepest = *std::max_element(e.rstd.begin(), e.rstd.end());
  expectNear(dx, e.dx, 4 * u * large * std::max(1.0, steepest), "dx");
  expectNear(dweight, e.dweight, u * large * rows, "dweight");
  if (c.centred) expectNear(dbias, e.dbias, u * rows, "dbias");
}

TEST(LayerNorm, EveryShapeLayoutAndType) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
      SCOPED_TRACE(dtypeName(dtype));
      for (bool affine : {false, true}) {
        for (bool centred : {false, true}) {
          SCOPED_TRACE(centred ? "layer norm" : "RMS norm");
          for (const Case& c : std::vector<Case>{{{5, 19}, 1},
                                                 {{19}, 1},
                                                 {{2, 3, 4, 5}, 2},
                                                 {{200, 70}, 1},
                                                 {{3, 5000}, 1},
                                                 {{7, 33}, 1, dtype, true, true, {1, 0}},
                                                 {{7, 3, 11}, 2, dtype, true, true, {2, 0, 1}, 3},
                                                 {{9, 40}, 1, dtype, true, true, {0, 1}, 5}}) {
            Case every = c;
            every.dtype = dtype;
            every.affine = affine;
            every.centred = centred;
            expectCorrect(every);
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  });
}

TEST(LayerNorm, RowsOfEveryLength) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (int64_t n = 2; n <= 70; n++) {
      SCOPED_TRACE(n);
      expectCorrect({{6, n}, 1});
      expectCorrect({{6, n}, 1, DType::float64});
      expectCorrect({{6, n}, 1, DType::float32, true, false});
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

// The mean is subtracted before anything is squared, so that a large one does no harm.
TEST(LayerNorm, ALargeMeanCostsNoAccuracyButItsOwnRounding) {
  forEachSimdLevel([](const char*) {
    expectCorrect({{8, 300}, 1, DType::float32, true, true, {}, 0, 100});
    expectCorrect({{8, 301}, 1, DType::float32, true, true, {}, 0, 100});
  });
}

TEST(LayerNorm, WeightsOfAnotherTypeAndStride) {
  TestTensor x(DType::float32, {4, 9}), y(DType::float32, {4, 9}), rstd(DType::float32, {4});
  TestTensor mean(DType::float32, {4}), weight(DType::float64, {9, 2});
  x.randomize(1);
  weight.randomize(2);
  View column = weight.view();
  column.ndim = 1;
  backend::layerNorm({y.view(), rstd.view(), x.view(), &mean.view(), &column, nullptr, 1e-5});
  for (int64_t i = 0; i < 36; i++) {
    const double xhat = (x.get(i) - mean.get(i / 9)) * rstd.get(i / 9);
    EXPECT_NEAR(y.get(i), xhat * weight.at({i % 9, 0}), 1e-6);
  }
}

TEST(LayerNorm, OfNothing) {
  TestTensor x(DType::float32, {0, 3}), dx(DType::float32, {0, 3}), rstd(DType::float32, {0});
  TestTensor dweight(DType::float32, {3}), dbias(DType::float32, {3});
  backend::layerNorm({dx.view(), rstd.view(), x.view(), &rstd.view(), nullptr, nullptr, 1e-5});
  backend::layerNormBackward({dx.view(), dweight.view(), x.view(), x.view(), rstd.view(),
                              &dbias.view(), nullptr, &rstd.view()});
  EXPECT_EQ(dweight.values(), std::vector<double>(3, 0));
  EXPECT_EQ(dbias.values(), std::vector<double>(3, 0));
  TestTensor empty(DType::float32, {2, 0}), mean(DType::float32, {2}), r(DType::float32, {2});
  backend::layerNorm({empty.view(), r.view(), empty.view(), &mean.view(), nullptr, nullptr, 1e-5});
  EXPECT_TRUE(std::isnan(mean.get(1)) && std::isnan(r.get(1)));
}

TEST(LayerNorm, NaNAndInfinityStayInTheirRow) {
  forEachSimdLevel([](const char*) {
    for (double bad : {double(NAN), double(INFINITY)}) {
      for (bool centred : {false, true}) {
        TestTensor x(DType::float32, {5, 21}), y(DType::float32, {5, 21});
        TestTensor mean(DType::float32, {5}), rstd(DType::float32, {5});
        x.randomize(1);
        x.set(2 * 21 + 20, bad);
        backend::layerNorm({y.view(), rstd.view(), x.view(), centred ? &mean.view() : nullptr,
                            nullptr, nullptr, 1e-5});
        for (int64_t i = 0; i < y.numel(); i++) {
          if (i / 21 != 2) {
            EXPECT_TRUE(std::isfinite(y.get(i)));
          }
        }
        EXPECT_TRUE(std::isnan(y.get(2 * 21 + 20)));
      }
    }
  });
}

TEST(LayerNorm, ThreadsDoNotChangeABit) {
  TestTensor x(DType::float32, {5000, 100}), dy(DType::float32, {5000, 100});
  x.randomize(1);
  dy.randomize(2);
  std::vector<unsigned char> first;
  for (int threads : {1, 3}) {
    TestTensor y(DType::float32, {5000, 100}), dx(DType::float32, {5000, 100});
    TestTensor mean(DType::float32, {5000}), rstd(DType::float32, {5000});
    TestTensor dweight(DType::float32, {100}), dbias(DType::float32, {100});
    withThreads(threads, [&] {
      backend::layerNorm({y.view(), rstd.view(), x.view(), &mean.view(), nullptr, nullptr, 1e-5});
      backend::layerNormBackward({dx.view(), dweight.view(), dy.view(), x.view(), rstd.view(),
                                  &dbias.view(), nullptr, &mean.view()});
    });
    std::vector<unsigned char> all = y.bytes();
    for (const TestTensor* t : {&dx, &dweight, &dbias}) {
      all.insert(all.end(), t->bytes().begin(), t->bytes().end());
    }
    if (threads == 1) first = all;
    EXPECT_EQ(first, all);
  }
}

}  // namespace
}  // namespace adjoint
