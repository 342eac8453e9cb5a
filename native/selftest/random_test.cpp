// Philox and what is made of it: known answers, streams that depend on places alone, distributions.
#include <algorithm>

#include "kernel_test.h"
#include "shared/philox.h"

namespace adjoint::test {
namespace {

class Random : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Random);

using backend::RandomState;

// The known-answer vectors that Salmon et al. publish with the generator.
TEST(Philox, KnownAnswers) {
  const Philox4 zero = philox(0, 0);
  EXPECT_EQ(zero.lane[0], 0x6627e8d5u);
  EXPECT_EQ(zero.lane[1], 0xe169c58du);
  EXPECT_EQ(zero.lane[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.lane[3], 0x9b00dbd8u);
}

TEST(Philox, IntegerBelowIsTheHighProduct) {
  EXPECT_EQ(integerBelow(uint32_t{0xffffffff}, 10), 9u);
  EXPECT_EQ(integerBelow(uint32_t{0x80000000}, 10), 5u);
  EXPECT_EQ(integerBelow(uint32_t{0xffffffff}, uint64_t{1} << 32), 0xffffffffu);
  std::mt19937_64 generator(1);
  for (int i = 0; i < 1000; i++) {
    const uint64_t a = generator(), b = generator();
    const auto product = static_cast<unsigned __int128>(a) * b;
    ASSERT_EQ(integerBelow(a, b), static_cast<uint64_t>(product >> 64));
  }
}

double uniformAt(DType dtype, RandomState state, int64_t i) {
  const int64_t per = dtype == DType::float64 ? 2 : 4;
  const Philox4 r = philox(state.seed, state.offset + static_cast<uint64_t>(i / per));
  if (per == 4) return uniformOf(r.lane[i % 4]);
  return uniformOf(joinLanes(r.lane[i % 2 * 2], r.lane[i % 2 * 2 + 1]));
}

TEST_P(Random, ElementsDependOnTheirPlaceAlone) {
  const RandomState state{0x123456789abcdefu, (uint64_t{1} << 33) + 5};
  for (DType dtype : {DType::float32, DType::float64}) {
    for (int64_t n : {0, 1, 2, 3, 4, 5, 31, 513, 3001}) {
      Tensor y(dtype, {n});
      backend::random(RandomOp::uniform, y.view, 0, 1, state);
      for (int64_t i = 0; i < n; i++) ASSERT_EQ(y.get(i), uniformAt(dtype, state, i));
      ASSERT_TRUE(y.isIntact());
    }
    // rows that end in the middle of a counter, and a transposed tensor: row-major all the same
    Tensor rows(dtype, {5, 14}), turned(dtype, {7, 5});
    rows.slice(1, 0, 2);
    turned.transpose(0, 1);
    for (Tensor* t : {&rows, &turned}) {
      backend::random(RandomOp::uniform, t->view, 0, 1, state);
      for (int64_t i = 0; i < 35; i++) ASSERT_EQ(t->get(i), uniformAt(dtype, state, i));
    }
  }
}

TEST_P(Random, UniformStaysBelowItsEnd) {
  const struct { double a, b; } ranges[] = {{0, 1}, {-1, 1}, {5, 5.0000005}, {-3, 0}, {100, 101}};
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    for (const auto& range : ranges) {
      Tensor y(dtype, {20000});
      backend::random(RandomOp::uniform, y.view, range.a, range.b, {1, 0});
      for (int64_t i = 0; i < y.numel(); i++) {
        ASSERT_GE(y.get(i), range.a);
        ASSERT_LT(y.get(i), range.b) << dtypeName(dtype);
      }
    }
  }
}

struct Moments {
  double mean = 0, variance = 0, skewness = 0, kurtosis = 0;
  explicit Moments(const Tensor& y) {
    const auto n = static_cast<double>(y.numel());
    for (int64_t i = 0; i < y.numel(); i++) mean += y.get(i) / n;
    for (int64_t i = 0; i < y.numel(); i++) {
      const double d = y.get(i) - mean;
      variance += d * d / n;
      skewness += d * d * d / n;
      kurtosis += d * d * d * d / n;
    }
  }
};

TEST_P(Random, Distributions) {
  for (DType dtype : {DType::float32, DType::float64}) {
    Tensor y(dtype, {400001});
    backend::random(RandomOp::uniform, y.view, 2, 4, {3, 9});
    const Moments uniform(y);
    EXPECT_NEAR(uniform.mean, 3, 0.005);
    EXPECT_NEAR(uniform.variance, 4.0 / 12, 0.003);
    backend::random(RandomOp::normal, y.view, 1, 2, {4, 9});
    const Moments normal(y);
    EXPECT_NEAR(normal.mean, 1, 0.02);
    EXPECT_NEAR(normal.variance, 4, 0.05);
    EXPECT_NEAR(normal.skewness, 0, 0.2);
    EXPECT_NEAR(normal.kurtosis, 48, 2);
    backend::random(RandomOp::bernoulli, y.view, 0.3, 0, {5, 9});
    const Moments coin(y);
    EXPECT_NEAR(coin.mean, 0.3, 0.005);
    EXPECT_NEAR(coin.variance, 0.21, 0.003);
  }
}

TEST_P(Random, NormalIsBoxAndMuller) {
  const RandomState state{77, 3};
  for (DType dtype : {DType::float32, DType::float64}) {
    for (int64_t n : {1, 2, 7, 600}) {
      Tensor y(dtype, {n});
      backend::random(RandomOp::normal, y.view, 0, 1, state);
      for (int64_t i = 0; i < n; i++) {
        double z[2];
        normalPair(uniformAt(dtype, state, i & ~1), uniformAt(dtype, state, i | 1), z[0], z[1]);
        ASSERT_NEAR(y.get(i), z[i & 1], dtype == DType::float32 ? 4e-6 : 1e-14);
      }
      ASSERT_TRUE(y.isIntact());
    }
  }
}

TEST_P(Random, BernoulliAtItsEnds) {
  Tensor y(DType::boolean, {5000});
  backend::random(RandomOp::bernoulli, y.view, 0, 0, {1, 1});
  for (int64_t i = 0; i < y.numel(); i++) ASSERT_EQ(y.get(i), 0);
  backend::random(RandomOp::bernoulli, y.view, 1, 0, {1, 1});
  for (int64_t i = 0; i < y.numel(); i++) ASSERT_EQ(y.get(i), 1);
}

TEST_P(Random, Integers) {
  for (DType dtype : {DType::int64, DType::int32, DType::uint8, DType::float32}) {
    Tensor y(dtype, {7001});
    backend::random(RandomOp::randint, y.view, 3, 10, {8, 0});
    int64_t seen[10] = {};
    for (int64_t i = 0; i < y.numel(); i++) {
      ASSERT_TRUE(y.get(i) >= 3 && y.get(i) < 10);
      seen[y.integer(i)]++;
    }
    for (int v = 3; v < 10; v++) EXPECT_NEAR(static_cast<double>(seen[v]), 1000, 150);
  }
  Tensor y(DType::int64, {4000});
  backend::random(RandomOp::randint, y.view, -9e18, 9e18, {8, 0});
  double largest = 0;
  for (int64_t i = 0; i < y.numel(); i++) {
    ASSERT_LT(std::fabs(y.get(i)), 9.0001e18);
    largest = std::fmax(largest, std::fabs(y.get(i)));
  }
  EXPECT_GT(largest, 8.9e18);
  EXPECT_THROW(backend::random(RandomOp::randint, y.view, 3, 3, {8, 0}), Error);
}

TEST_P(Random, PermutationsHoldEveryNumberOnce) {
  for (int64_t n : {0, 1, 2, 1000}) {
    Tensor y(DType::int64, {n}), other(DType::int64, {n});
    backend::randperm(y.view, {1, 0});
    backend::randperm(other.view, {2, 0});
    std::vector<int64_t> sorted(y.data<int64_t>(), y.data<int64_t>() + n);
    std::sort(sorted.begin(), sorted.end());
    for (int64_t i = 0; i < n; i++) ASSERT_EQ(sorted[static_cast<size_t>(i)], i);
    if (n == 1000) {
      EXPECT_NE(y.bytes(), other.bytes());
    }
  }
}

TEST_P(Random, DropoutDrawsTheUniformNumbersAgain) {
  const RandomState state{21, 400};
  Tensor slot(DType::int64, {2});
  backend::writeRandomState(slot.view, state);
  EXPECT_EQ(slot.integer(0), 21);
  EXPECT_EQ(slot.integer(1), 400);
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    for (int64_t n : {0, 1, 7, 513, 3000}) {
      Tensor x(dtype, {n}), y(dtype, {n});
      x.fill([](int64_t i) { return static_cast<double>(i % 8 + 1); });
      backend::dropout(y.view, x.view, 0.75, slot.view);
      for (int64_t i = 0; i < n; i++) {
        ASSERT_EQ(y.get(i), uniformAt(dtype, state, i) < 0.75 ? 0 : 4 * x.get(i));
      }
      backend::dropout(x.view, x.view, 0.75, slot.view);  // in place
      for (int64_t i = 0; i < n; i++) ASSERT_EQ(x.get(i), y.get(i));
    }
    Tensor x(dtype, {3, 5}), y(dtype, {3, 5});
    x.fill([](int64_t i) { return static_cast<double>(i); });
    backend::dropout(y.view, x.view, 0, slot.view);
    for (int64_t i = 0; i < 15; i++) EXPECT_EQ(y.get(i), i);
    backend::dropout(y.view, x.view, 1, slot.view);
    for (int64_t i = 0; i < 15; i++) EXPECT_EQ(y.get(i), 0);
  }
}

TEST_P(Random, SameBitsForAnyNumberOfThreads) {
  for (RandomOp op : {RandomOp::uniform, RandomOp::normal, RandomOp::bernoulli}) {
    expectSameForAnyThreads([&] {
      Tensor y(DType::float32, {100003});
      backend::random(op, y.view, 0.5, 1, {1, 2});
      return y;
    });
  }
}

}  // namespace
}  // namespace adjoint::test
