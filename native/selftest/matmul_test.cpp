// matmul against a float64 triple loop.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "contract.h"
#include "test_tensor.h"

namespace adjoint {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

double roundoff(DType d) {
  switch (d) {
    case DType::float64:
      return 0x1p-53;
    case DType::float32:
      return 0x1p-24;
    case DType::float16:
      return 0x1p-11;
    case DType::bfloat16:
      return 0x1p-8;
    default:
      return 0;
  }
}

// y [m, n] against sum_k a b + bias, with |error| <= 8 u sum |a b| (half types: and one rounding).
void expectProduct(const TestTensor& y, const TestTensor& a, const TestTensor& b,
                   const TestTensor* bias) {
  const int64_t m = y.size(0), n = y.size(1), k = a.size(1);
  const DType dtype = y.view().dtype;
  const double u = std::min(roundoff(dtype), isFloating(dtype) ? 0x1p-24 : 0.0);
  const std::vector<double> left = a.values(), right = b.values(), got = y.values();
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      double sum = bias ? bias->get(j) : 0, scale = std::abs(sum);
      for (int64_t x = 0; x < k; x++) {
        const double product = left[i * k + x] * right[x * n + j];
        sum += product;
        scale += std::abs(product);
      }
      double error = std::abs(got[i * n + j] - sum);
      if (itemSize(dtype) == 1) error = std::fmod(error, 256);  // sums wrap around
      ASSERT_LE(error, 8 * u * scale + 1.01 * roundoff(dtype) * std::abs(sum))
          << "at " << i << ", " << j << " of " << m << " x " << k << " x " << n;
    }
  }
}

struct Layout {
  std::vector<int> a, b, y;
  int64_t gap;
};
const Layout kLayouts[] = {
    {{0, 1}, {0, 1}, {0, 1}, 0}, {{0, 1}, {1, 0}, {0, 1}, 0}, {{1, 0}, {0, 1}, {0, 1}, 0},
    {{1, 0}, {1, 0}, {0, 1}, 3}, {{0, 1}, {0, 1}, {1, 0}, 1}, {{0, 1}, {1, 0}, {1, 0}, 5},
};

void expectCorrect(DType dtype, int64_t m, int64_t n, int64_t k, const Layout& layout) {
  TestTensor a(dtype, {m, k}, layout.a, layout.gap), b(dtype, {k, n}, layout.b, layout.gap);
  TestTensor y(dtype, {m, n}, layout.y, layout.gap), bias(dtype, {n}, {}, 0);
  a.randomize(1);
  b.randomize(2);
  bias.randomize(3);
  backend::matmul(y.view(), a.view(), b.view(), nullptr);
  expectProduct(y, a, b, nullptr);
  backend::matmul(y.view(), a.view(), b.view(), &bias.view());
  expectProduct(y, a, b, &bias);
}

TEST(Matmul, EverySizeUpToThreeTilesInEveryLayout) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (const Layout& layout : kLayouts) {
      for (int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 14, 15, 16, 17, 29, 45}) {
        for (int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 65}) {
          for (int64_t k : {1, 3, 16, 33}) {
            expectCorrect(DType::float32, m, n, k, layout);
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  });
}

TEST(Matmul, LargerThanEveryBlock) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (const Layout& layout : kLayouts) {
      for (auto [m, n, k] : {std::array<int64_t, 3>{150, 170, 700},
                             {3, 1100, 330},
                             {260, 5, 321},
                             {64, 256, 784},
                             {1, 300, 1000},
                             {300, 1, 1000},
                             {2, 2, 5000},
                             {45, 100, 1024}}) {  // rows whole pages apart
        expectCorrect(DType::float32, m, n, k, layout);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

// a is so large that the product is seen transposed; b, read in place then, has up to as many
// panels of rows passing over it as are worth that, and more.
TEST(Matmul, GradientOfWeightsFromManyRows) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (int64_t n : {150, 230, 440}) {
      expectCorrect(DType::float32, 901, n, 601, {{1, 0}, {0, 1}, {0, 1}, 0});
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(Matmul, EveryDType) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (int d = 0; d < kDTypeCount; d++) {
      const auto dtype = static_cast<DType>(d);
      if (dtype == DType::boolean) continue;  // its products are ors, below
      SCOPED_TRACE(dtypeName(dtype));
      for (const Layout& layout : kLayouts) {
        for (auto [m, n, k] :
             {std::array<int64_t, 3>{1, 1, 1}, {5, 7, 3}, {17, 33, 9}, {20, 40, 330}, {1, 9, 40}}) {
          expectCorrect(dtype, m, n, k, layout);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST(Matmul, IntegersWrapAround) {
  TestTensor a(DType::uint8, {2, 3}), b(DType::uint8, {3, 2}), y(DType::uint8, {2, 2});
  a.fill(200);
  b.fill(3);
  backend::matmul(y.view(), a.view(), b.view(), nullptr);
  for (int64_t i = 0; i < 4; i++) EXPECT_EQ(y.get(i), 1800 % 256);

  TestTensor big(DType::int64, {1, 1}), square(DType::int64, {1, 1});
  *big.view().as<int64_t>() = (int64_t{1} << 62) + 3;
  backend::matmul(square.view(), big.view(), big.view(), nullptr);
  const uint64_t x = (uint64_t{1} << 62) + 3;
  EXPECT_EQ(*square.view().as<uint64_t>(), x * x);
}

TEST(Matmul, BoolIsAnOrOfAnds) {
  TestTensor a(DType::boolean, {2, 2}), b(DType::boolean, {2, 1}), y(DType::boolean, {2, 1});
  a.fill(0);
  a.set(0, 1);
  a.set(1, 1);
  b.fill(1);
  backend::matmul(y.view(), a.view(), b.view(), nullptr);
  EXPECT_EQ(y.get(0), 1);
  EXPECT_EQ(y.get(1), 0);
}

TEST(Matmul, NoDepthGivesTheBias) {
  for (auto dtype : {DType::float32, DType::float64, DType::bfloat16, DType::int32}) {
    TestTensor a(dtype, {5, 0}), b(dtype, {0, 40}), y(dtype, {5, 40}), bias(dtype, {40});
    bias.randomize(1);
    backend::matmul(y.view(), a.view(), b.view(), nullptr);
    for (int64_t i = 0; i < y.numel(); i++) ASSERT_EQ(y.get(i), 0);
    backend::matmul(y.view(), a.view(), b.view(), &bias.view());
    for (int64_t i = 0; i < y.numel(); i++) ASSERT_EQ(y.get(i), bias.get(i % 40));
  }
}

TEST(Matmul, EmptyOutputsAreLeftAlone) {
  for (auto [m, n] : {std::array<int64_t, 2>{0, 3}, {3, 0}, {0, 0}}) {
    TestTensor a(DType::float32, {m, 4}), b(DType::float32, {4, n}), y(DType::float32, {m, n});
    backend::matmul(y.view(), a.view(), b.view(), nullptr);
    EXPECT_TRUE(y.bytes().empty());
  }
}

TEST(Matmul, NaNAndInfinityReachTheirRowAndColumn) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (auto [m, n, k] : {std::array<int64_t, 3>{1, 7, 5}, {20, 37, 40}, {40, 1, 64}}) {
      TestTensor a(DType::float32, {m, k}), b(DType::float32, {k, n}), y(DType::float32, {m, n});
      a.fill(1);
      b.fill(1);
      a.set(k - 1, kNaN);                  // row 0
      if (m > 1) a.set(k, kInf);           // row 1
      if (n > 1) b.set(k * n - 1, -kInf);  // the last column
      backend::matmul(y.view(), a.view(), b.view(), nullptr);
      for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
          const double value = y.at({i, j});
          const bool meetsInf = n > 1 && j == n - 1;
          if (i == 0 || (i == 1 && meetsInf)) {
            ASSERT_TRUE(std::isnan(value)) << i << ", " << j;
          } else if (i == 1) {
            ASSERT_EQ(value, kInf);
          } else {
            ASSERT_EQ(value, meetsInf ? -kInf : static_cast<double>(k));
          }
        }
      }
    }
  });
}

// y [2, 3, m, n] with a and b given as whole batches, or with one matrix for all.
void expectBatched(bool repeatsA, bool repeatsB, int64_t m, DType dtype) {
  const int64_t n = 19, k = 6;
  TestTensor a(dtype, {2, repeatsA ? 1 : 3, m, k}), b(dtype, {repeatsB ? 1 : 2, 3, k, n});
  TestTensor y(dtype, {2, 3, m, n}), bias(dtype, {n});
  a.randomize(1);
  b.randomize(2);
  bias.randomize(3);
  View bView = repeatsB ? b.expanded(0, 2) : b.view();
  if (repeatsB && repeatsA) {  // one matrix for the whole batch
    bView.size[1] = 3;
    bView.stride[1] = 0;
  }
  backend::matmul(y.view(), repeatsA ? a.expanded(1, 3) : a.view(), bView, &bias.view());
  for (int64_t p = 0; p < 2; p++) {
    for (int64_t q = 0; q < 3; q++) {
      for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
          double sum = bias.get(j);
          for (int64_t x = 0; x < k; x++) {
            sum += a.at({p, repeatsA ? 0 : q, i, x}) *
                   b.at({repeatsB ? 0 : p, repeatsA && repeatsB ? 0 : q, x, j});
          }
          ASSERT_NEAR(y.at({p, q, i, j}), sum, 20 * roundoff(dtype));
        }
      }
    }
  }
}

TEST(Matmul, BatchesAndBroadcastBatches) {
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16}) {
    for (int64_t m : {1, 5, 20}) {
      for (bool repeatsA : {false, true}) {
        for (bool repeatsB : {false, true}) expectBatched(repeatsA, repeatsB, m, dtype);
      }
    }
  }
}

TEST(Matmul, SharedWeightsFoldTheBatchIntoRows) {
  TestTensor x(DType::float32, {4, 9, 30}), w(DType::float32, {1, 30, 21}, {0, 2, 1});
  TestTensor y(DType::float32, {4, 9, 21}), rows(DType::float32, {36, 21});
  x.randomize(1);
  w.randomize(2);
  backend::matmul(y.view(), x.view(), w.expanded(0, 4), nullptr);
  View flat = x.view(), wFlat = w.view();
  flat.ndim = wFlat.ndim = 2;
  flat.size[0] = 36;
  flat.size[1] = 30;
  flat.stride[0] = 30;
  flat.stride[1] = 1;
  for (int i = 0; i < 2; i++) {
    wFlat.size[i] = w.view().size[i + 1];
    wFlat.stride[i] = w.view().stride[i + 1];
  }
  backend::matmul(rows.view(), flat, wFlat, nullptr);
  EXPECT_EQ(y.bytes(), rows.bytes());
}

TEST(Matmul, ThreadsDoNotChangeABit) {
  for (auto [m, n, k] : {std::array<int64_t, 3>{200, 300, 400},
                         {64, 256, 784},
                         {1, 900, 700},
                         {700, 3, 900},
                         {33, 2000, 65}}) {
    for (const Layout& layout : kLayouts) {
      TestTensor a(DType::float32, {m, k}, layout.a, layout.gap);
      TestTensor b(DType::float32, {k, n}, layout.b, layout.gap);
      TestTensor one(DType::float32, {m, n}), many(DType::float32, {m, n});
      a.randomize(1);
      b.randomize(2);
      withThreads(1, [&] { backend::matmul(one.view(), a.view(), b.view(), nullptr); });
      for (int threads : {3, 9}) {
        withThreads(threads, [&] { backend::matmul(many.view(), a.view(), b.view(), nullptr); });
        EXPECT_EQ(one.bytes(), many.bytes());
      }
    }
  }
}

// The yardstick is the plain sum of blocks of 256 products, each rounded to float32.
TEST(Matmul, IsAsAccurateAsABlockedDotProduct) {
  const int64_t m = 24, n = 48, k = 4096;
  TestTensor a(DType::float32, {m, k}), b(DType::float32, {k, n}), y(DType::float32, {m, n});
  a.randomize(1);
  b.randomize(2);
  double exactness = 0;
  std::vector<double> exact(m * n);
  const std::vector<double> left = a.values(), right = b.values();
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      float blocked = 0;
      for (int64_t x0 = 0; x0 < k; x0 += 256) {
        float block = 0;
        for (int64_t x = x0; x < x0 + 256; x++) {
          const auto p = static_cast<float>(left[i * k + x]);
          const auto q = static_cast<float>(right[x * n + j]);
          block += p * q;
          sum += static_cast<double>(p) * q;
        }
        blocked += block;
      }
      exact[i * n + j] = sum;
      exactness += (blocked - sum) * (blocked - sum);
    }
  }
  forEachSimdLevel([&, m = m, n = n](const char* level) {
    SCOPED_TRACE(level);
    backend::matmul(y.view(), a.view(), b.view(), nullptr);
    double squares = 0;
    for (int64_t i = 0; i < m * n; i++) squares += std::pow(y.get(i) - exact[i], 2);
    EXPECT_LE(std::sqrt(squares), 1.5 * std::sqrt(exactness));
  });
}

}  // namespace
}  // namespace adjoint
