// unary, binary and where against naive loops, at every SIMD level: lengths, misalignments,
// strides, broadcasting, dtypes, the meaning at the edges.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernel_test.h"
#include "shared/functors.h"

namespace adjoint::test {
namespace {

class Elementwise : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Elementwise);

using backend::binary;
using backend::unary;

constexpr int64_t kLongest = 2 * 16 + 3;

TEST_P(Elementwise, EveryLengthAndMisalignment) {
  for (DType dtype : {DType::float32, DType::float64, DType::int64}) {
    for (int64_t n = 0; n <= kLongest; n++) {
      for (int64_t shift = 0; shift < 16; shift++) {
        Tensor a(dtype, {n}, shift), b(dtype, {n}, (shift * 7) % 16),
            y(dtype, {n}, (shift * 3) % 5);
        a.fill([](int64_t i) { return static_cast<double>(i * i - 7); });
        b.fill([](int64_t i) { return static_cast<double>(3 - i); });
        binary(BinaryOp::sub, y.view, a.operand(), b.operand(), dtype);
        for (int64_t i = 0; i < n; i++) ASSERT_EQ(y.get(i), i * i - 7 - (3 - i)) << n;
        unary(UnaryOp::neg, y.view, a.view, dtype);
        for (int64_t i = 0; i < n; i++) ASSERT_EQ(y.get(i), 7 - i * i) << n;
        binary(BinaryOp::mul, a.view, a.operand(), a.operand(), dtype);  // in place
        for (int64_t i = 0; i < n; i++) ASSERT_EQ(a.get(i), (i * i - 7) * (i * i - 7)) << n;
        ASSERT_TRUE(y.isIntact() && a.isIntact() && b.isIntact());
      }
    }
  }
}

// Results of 32 MB and more are written past the caches, from blocks, where operations are cheap.
TEST_P(Elementwise, LargeResultsAsSmallOnes) {
  const int64_t n = (int64_t{8} << 20) + 4099, checked = 1 << 16;
  for (int64_t shift : {0, 5}) {
    Tensor a(DType::float32, {n}, 3), b(DType::float32, {n}), y(DType::float32, {n}, shift);
    float* const values = a.view.as<float>();
    for (int64_t i = 0; i < n; i++) {
      values[i] = static_cast<float>(i % 8191 - 4000);
      b.view.as<float>()[i] = static_cast<float>(i % 127);
    }
    values[4097] = std::numeric_limits<float>::quiet_NaN();
    values[n - 1] = std::numeric_limits<float>::infinity();
    binary(BinaryOp::sub, y.view, a.operand(), b.operand(), DType::float32);
    const float* const got = y.view.as<float>();
    ASSERT_TRUE(std::isnan(got[4097]));
    for (int64_t i = 0; i < n; i++) {
      if (i == 4097) continue;
      ASSERT_EQ(got[i], values[i] - b.view.as<float>()[i]) << i;
    }
    for (UnaryOp op : {UnaryOp::square, UnaryOp::exp}) {
      unary(op, y.view, a.view, DType::float32);
      for (int64_t first : {int64_t{0}, n - checked}) {
        Tensor part(DType::float32, {checked});
        View source = a.view;
        source.size[0] = checked;
        source.data = values + first;
        unary(op, part.view, source, DType::float32);
        ASSERT_EQ(0, std::memcmp(part.view.data, got + first, checked * sizeof(float)));
      }
    }
    unary(UnaryOp::neg, a.view, a.view, DType::float32);  // in place
    ASSERT_EQ(values[1], 3999);
    ASSERT_TRUE(y.isIntact() && a.isIntact());
  }
}

// Offsets of the right-aligned broadcast of `view` at element i of `shape`.
double broadcastGet(const Tensor& t, const View& shape, int64_t i) {
  int64_t index = 0, factor = 1;
  for (int axis = shape.ndim - 1; axis >= 0; axis--) {
    const int64_t coordinate = i % shape.size[axis];
    i /= shape.size[axis];
    const int own = axis - (shape.ndim - t.view.ndim);
    if (own < 0) continue;
    index += (t.view.size[own] == 1 ? 0 : coordinate) * factor;
    factor *= t.view.size[own];
  }
  return t.get(index);
}

// y = a * b with b broadcast, in every pair of dtypes.
void checkBroadcast(Tensor& y, const Tensor& a, const Tensor& b, DType common) {
  binary(BinaryOp::mul, y.view, a.operand(), b.operand(), common);
  for (int64_t i = 0; i < y.numel(); i++) {
    const double product = broadcastGet(a, y.view, i) * broadcastGet(b, y.view, i);
    ASSERT_EQ(y.get(i), product) << "element " << i << ", " << dtypeName(common);
  }
  ASSERT_TRUE(y.isIntact());
}

TEST_P(Elementwise, StridesAndBroadcastingInEveryDType) {
  const auto small = [](int64_t i) { return static_cast<double>(i % 5 + 1); };
  for (DType da : kAllDTypes) {
    if (da == DType::boolean) continue;
    for (DType db : {da, DType::uint8, DType::float32}) {
      const DType common = isFloating(da) ? da : isFloating(db) ? db : da;
      for (const auto& sizes :
           std::vector<std::vector<int64_t>>{{7, 5}, {5}, {1, 5}, {7, 1}, {1, 1}, {}, {1}}) {
        Tensor y(common, {7, 5}), a(da, {7, 5}), b(db, sizes);
        checkBroadcast(y, a.fill(small), b.fill(small), common);
      }
      // transposed input and output, steps of 2, an inner axis of 3, a long inner axis
      Tensor y1(common, {9, 40}), a1(da, {40, 9}), b1(db, {40});
      a1.transpose(0, 1).fill(small);
      checkBroadcast(y1, a1, b1.fill(small), common);
      Tensor y2(common, {40, 9}), a2(da, {9, 40}), b2(db, {9, 1});
      checkBroadcast(y2.transpose(0, 1), a2.fill(small), b2.fill(small), common);
      Tensor y3(common, {30, 12}), a3(da, {30, 24}), b3(db, {6});
      y3.slice(1, 1, 2);
      a3.slice(1, 3, 4).fill(small);
      checkBroadcast(y3, a3, b3.fill(small), common);
      Tensor y4(common, {2, 3, 700}), a4(da, {2, 3, 700}), b4(db, {3, 1});
      checkBroadcast(y4, a4.fill(small), b4.fill(small), common);
      Tensor y5(common, {600, 3}), a5(da, {600, 3}), b5(db, {3});
      checkBroadcast(y5, a5.fill(small), b5.fill(small), common);
      Tensor y6(common, {3, 2, 4, 5}), a6(da, {3, 4, 2, 5}), b6(db, {2, 1, 5});
      a6.transpose(1, 2).fill(small);
      checkBroadcast(y6, a6, b6.fill(small), common);
      Tensor y7(common, {0, 5}), a7(da, {0, 5}), b7(db, {5});
      checkBroadcast(y7, a7, b7, common);
      Tensor y8(common, {}), a8(da, {}), b8(db, {});
      checkBroadcast(y8, a8.fill(small), b8.fill(small), common);
    }
  }
}

TEST_P(Elementwise, NumbersAsOperands) {
  for (DType dtype : kAllDTypes) {
    if (dtype == DType::boolean) continue;
    for (int64_t n : {1, 5, 700}) {
      Tensor x(dtype, {n}), y(dtype, {n}), truth(DType::boolean, {n});
      x.fill([](int64_t i) { return static_cast<double>(i % 7); });
      binary(BinaryOp::add, y.view, x.operand(), number(int64_t{3}), dtype);
      for (int64_t i = 0; i < n; i++) ASSERT_EQ(y.get(i), i % 7 + 3);
      binary(BinaryOp::sub, y.view, number(int64_t{9}), x.operand(), dtype);
      for (int64_t i = 0; i < n; i++) ASSERT_EQ(y.get(i), 9 - i % 7);
      binary(BinaryOp::lt, truth.view, x.operand(), number(int64_t{3}), dtype);
      for (int64_t i = 0; i < n; i++) ASSERT_EQ(truth.get(i), i % 7 < 3);
      binary(BinaryOp::pow, y.view, x.operand(), number(int64_t{2}), dtype);
      for (int64_t i = 0; i < n; i++) ASSERT_EQ(y.get(i), (i % 7) * (i % 7));
    }
  }
  // A number is compared as the tensor's dtype holds it.
  for (DType dtype : {DType::bfloat16, DType::float16}) {
    Tensor x(dtype, {3}), equal(DType::boolean, {3});
    x.fill([](int64_t) { return 0.1; });
    binary(BinaryOp::eq, equal.view, x.operand(), number(0.1), dtype);
    EXPECT_EQ(equal.get(0), 1);
  }
}

double one(BinaryOp op, double a, double b, DType dtype) {
  Tensor ta(dtype, {}), tb(dtype, {}), y(dtype, {});
  ta.set(0, a);
  tb.set(0, b);
  binary(op, y.view, ta.operand(), tb.operand(), dtype);
  return y.get(0);
}
double one(UnaryOp op, double x, DType dtype) {
  Tensor tx(dtype, {}), y(dtype, {});
  tx.set(0, x);
  unary(op, y.view, tx.view, dtype);
  return y.get(0);
}

TEST_P(Elementwise, DivisionFollowsPyTorch) {
  for (DType dtype : {DType::float32, DType::float64, DType::int64, DType::int32, DType::int8}) {
    const double cases[][5] = {// a, b, floorDivide, remainder, fmod
                               {7, 3, 2, 1, 1},     {-7, 3, -3, 2, -1}, {7, -3, -3, -2, 1},
                               {-7, -3, 2, -1, -1}, {6, 3, 2, 0, 0},    {-6, 3, -2, 0, 0},
                               {0, 5, 0, 0, 0},     {1, -1, -1, 0, 0}};
    for (const auto& c : cases) {
      EXPECT_EQ(one(BinaryOp::floorDivide, c[0], c[1], dtype), c[2]) << c[0] << " // " << c[1];
      EXPECT_EQ(one(BinaryOp::remainder, c[0], c[1], dtype), c[3]) << c[0] << " % " << c[1];
      EXPECT_EQ(one(BinaryOp::fmod, c[0], c[1], dtype), c[4]) << c[0] << " fmod " << c[1];
    }
    if (isFloating(dtype)) {
      EXPECT_EQ(one(BinaryOp::floorDivide, 1, 0, dtype), INFINITY);
      EXPECT_TRUE(std::isnan(one(BinaryOp::floorDivide, 0, 0, dtype)));
      EXPECT_TRUE(std::isnan(one(BinaryOp::remainder, 1, 0, dtype)));
      EXPECT_TRUE(std::isnan(one(BinaryOp::floorDivide, INFINITY, 2, dtype)));
      EXPECT_EQ(one(BinaryOp::floorDivide, 0.3, 0.1, dtype), dtype == DType::float32 ? 3 : 2);
      continue;
    }
    for (BinaryOp op : {BinaryOp::floorDivide, BinaryOp::remainder, BinaryOp::fmod}) {
      EXPECT_THROW(one(op, 1, 0, dtype), Error);
    }
  }
  Tensor x(DType::int64, {600}), zero(DType::int64, {600}), y(DType::int64, {600});
  x.fill([](int64_t i) { return static_cast<double>(i); });
  zero.fill([](int64_t i) { return i == 599 ? 0.0 : 1.0; });
  EXPECT_THROW(binary(BinaryOp::floorDivide, y.view, x.operand(), zero.operand(), DType::int64),
               Error);
  EXPECT_THROW(binary(BinaryOp::fmod, y.view, x.operand(), number(int64_t{0}), DType::int64),
               Error);
  // The one quotient of int64 that does not fit wraps around instead of trapping.
  x.data<int64_t>()[0] = INT64_MIN;
  binary(BinaryOp::floorDivide, y.view, x.operand(), number(int64_t{-1}), DType::int64);
  EXPECT_EQ(y.data<int64_t>()[0], INT64_MIN);
  binary(BinaryOp::remainder, y.view, x.operand(), number(int64_t{-1}), DType::int64);
  EXPECT_EQ(y.data<int64_t>()[0], 0);
}

TEST_P(Elementwise, IntegersWrapShiftAndRaise) {
  EXPECT_EQ(one(BinaryOp::add, 250, 10, DType::uint8), 4);
  EXPECT_EQ(one(BinaryOp::mul, 100, 2, DType::int8), -56);
  EXPECT_EQ(one(BinaryOp::sub, 3, 5, DType::uint8), 254);
  EXPECT_EQ(one(UnaryOp::abs, -128, DType::int8), -128);
  EXPECT_EQ(one(UnaryOp::neg, 1, DType::uint8), 255);
  EXPECT_EQ(one(UnaryOp::bitwiseNot, 1, DType::uint8), 254);
  EXPECT_EQ(one(UnaryOp::bitwiseNot, 1, DType::boolean), 0);
  EXPECT_EQ(one(UnaryOp::bitwiseNot, 0, DType::boolean), 1);
  EXPECT_EQ(one(BinaryOp::add, 1, 1, DType::boolean), 1);
  EXPECT_EQ(one(BinaryOp::bitwiseXor, 12, 10, DType::int32), 6);
  EXPECT_EQ(one(BinaryOp::bitwiseAnd, 12, 10, DType::int32), 8);
  EXPECT_EQ(one(BinaryOp::bitwiseOr, 12, 10, DType::int32), 14);
  EXPECT_EQ(one(BinaryOp::shiftLeft, 3, 4, DType::int32), 48);
  EXPECT_EQ(one(BinaryOp::shiftLeft, 3, 64, DType::int64), 0);
  EXPECT_EQ(one(BinaryOp::shiftLeft, 3, 32, DType::int32), 0);
  EXPECT_EQ(one(BinaryOp::shiftLeft, 3, -1, DType::int64), 0);
  EXPECT_EQ(one(BinaryOp::shiftRight, -8, 1, DType::int64), -4);
  EXPECT_EQ(one(BinaryOp::shiftRight, -8, 100, DType::int64), -1);
  EXPECT_EQ(one(BinaryOp::shiftRight, 8, -1, DType::int64), 0);
  EXPECT_EQ(one(BinaryOp::pow, 3, 13, DType::int64), 1594323);
  EXPECT_EQ(one(BinaryOp::pow, -2, 3, DType::int32), -8);
  EXPECT_EQ(one(BinaryOp::pow, 5, -1, DType::int64), 0);
  EXPECT_EQ(one(BinaryOp::pow, -1, -3, DType::int64), -1);
  EXPECT_EQ(one(BinaryOp::pow, 2, 64, DType::int64), 0);
  EXPECT_EQ(one(BinaryOp::pow, 0, 0, DType::int64), 1);
}

TEST_P(Elementwise, FloatsAtTheEdges) {
  const double infinity = INFINITY, nan = NAN;
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    for (BinaryOp op : {BinaryOp::maximum, BinaryOp::minimum}) {
      EXPECT_TRUE(std::isnan(one(op, nan, 1, dtype)));
      EXPECT_TRUE(std::isnan(one(op, 1, nan, dtype)));
    }
    EXPECT_EQ(one(BinaryOp::maximum, -infinity, 3, dtype), 3);
    EXPECT_EQ(one(BinaryOp::pow, nan, 0, dtype), 1);
    EXPECT_EQ(one(BinaryOp::pow, 1, nan, dtype), 1);
    EXPECT_TRUE(std::isnan(one(BinaryOp::pow, -2, 0.5, dtype)));
    EXPECT_EQ(one(BinaryOp::pow, -2, 3, dtype), -8);
    EXPECT_EQ(one(BinaryOp::pow, 0, -1, dtype), infinity);
    EXPECT_EQ(one(BinaryOp::eq, nan, nan, dtype), 0);
    EXPECT_EQ(one(BinaryOp::ne, nan, nan, dtype), 1);
    EXPECT_EQ(one(BinaryOp::logicalAnd, nan, 1, dtype), 1);
    EXPECT_EQ(one(UnaryOp::sign, nan, dtype), 0);  // as PyTorch, unlike NumPy
    EXPECT_EQ(one(UnaryOp::sign, -5, dtype), -1);
    EXPECT_TRUE(std::isnan(one(UnaryOp::relu, nan, dtype)));
    EXPECT_EQ(one(UnaryOp::relu, -1, dtype), 0);
    EXPECT_EQ(one(UnaryOp::round, 0.5, dtype), 0);
    EXPECT_EQ(one(UnaryOp::round, 1.5, dtype), 2);
    EXPECT_EQ(one(UnaryOp::round, -2.5, dtype), -2);
    EXPECT_EQ(one(UnaryOp::isnan, nan, dtype), 1);
    EXPECT_EQ(one(UnaryOp::isinf, -infinity, dtype), 1);
    EXPECT_EQ(one(UnaryOp::isfinite, infinity, dtype), 0);
    EXPECT_EQ(one(UnaryOp::isfinite, nan, dtype), 0);
    EXPECT_EQ(one(UnaryOp::logicalNot, 0, dtype), 1);
    EXPECT_EQ(one(UnaryOp::sigmoid, -infinity, dtype), 0);
    EXPECT_EQ(one(UnaryOp::sigmoid, infinity, dtype), 1);
    EXPECT_EQ(one(UnaryOp::tanh, -infinity, dtype), -1);
    EXPECT_EQ(one(UnaryOp::softplus, 30, dtype), 30);
    EXPECT_TRUE(std::isnan(one(UnaryOp::log, -1, dtype)));
    EXPECT_EQ(one(UnaryOp::log, 0, dtype), -infinity);
  }
  EXPECT_EQ(one(UnaryOp::isfinite, 3, DType::int32), 1);
  EXPECT_EQ(one(UnaryOp::isnan, 3, DType::int32), 0);
}

TEST_P(Elementwise, UndefinedOperationsAreErrors) {
  Tensor x(DType::int64, {3}), y(DType::int64, {3}), f(DType::float32, {3});
  EXPECT_THROW(unary(UnaryOp::exp, y.view, x.view, DType::int64), Error);
  EXPECT_THROW(unary(UnaryOp::bitwiseNot, f.view, f.view, DType::float32), Error);
  EXPECT_THROW(binary(BinaryOp::bitwiseAnd, f.view, f.operand(), f.operand(), DType::float32),
               Error);
  EXPECT_THROW(binary(BinaryOp::div, y.view, x.operand(), x.operand(), DType::int64), Error);
  Tensor wrong(DType::float32, {4});
  EXPECT_THROW(binary(BinaryOp::add, f.view, f.operand(), wrong.operand(), DType::float32), Error);
}

// Every operation of float64 and int64 against the shared formula, lane by lane.
TEST_P(Elementwise, DoubleAndIntegerLoopsMatchTheFormulas) {
  constexpr int64_t n = 67;
  for (DType dtype : {DType::float64, DType::int64}) {
    Tensor a(dtype, {n}), b(dtype, {n}), y(dtype, {n});
    a.fillRandom(1, -9, 9);
    b.fillRandom(2, 1, 5);
    visitCompute(computeType(dtype), [&](auto tag) {
      using T = typename decltype(tag)::type;
      const auto check = [&](const char* name, int64_t i, T expected) {
        if constexpr (std::is_same<T, double>::value) {
          if (std::isnan(expected)) {
            ASSERT_TRUE(std::isnan(y.data<T>()[i])) << name;
          } else {
            ASSERT_NEAR(y.data<T>()[i], expected, 1e-13 * std::fabs(expected)) << name;
          }
        } else {
          ASSERT_EQ(y.data<T>()[i], expected) << name;
        }
      };
#define ADJOINT_CHECK(name)                                                                  \
  if constexpr (isDefined(UnaryOp::name,                                                     \
                          std::is_integral<T>::value ? Compute::i64 : Compute::f64)) {       \
    unary(UnaryOp::name, y.view, a.view, dtype);                                             \
    for (int64_t i = 0; i < n; i++) check(#name, i, Unary<UnaryOp::name>()(a.data<T>()[i])); \
  }
      ADJOINT_UNARY_OPS(ADJOINT_CHECK)
#undef ADJOINT_CHECK
#define ADJOINT_CHECK(name)                                                            \
  if constexpr (isDefined(BinaryOp::name,                                              \
                          std::is_integral<T>::value ? Compute::i64 : Compute::f64)) { \
    binary(BinaryOp::name, y.view, a.operand(), b.operand(), dtype);                   \
    for (int64_t i = 0; i < n; i++) {                                                  \
      check(#name, i, Binary<BinaryOp::name>()(a.data<T>()[i], b.data<T>()[i]));       \
    }                                                                                  \
  }
      ADJOINT_BINARY_OPS(ADJOINT_CHECK)
#undef ADJOINT_CHECK
    });
  }
}

// bfloat16 that lies in one piece is loaded and rounded in registers: the float32 result rounded
// once, at every length, misalignment, and for what is no number, infinite, denormal or too large.
TEST_P(Elementwise, BFloat16IsFloat32Rounded) {
  const auto value = [](int64_t i) -> double {
    constexpr double kSpecial[] = {NAN,  INFINITY, -INFINITY, -0.0,    0,      1e-40, -3e-39,
                                   3e38, -3.3e38,  1,         -1,      0.5,    2,     1e-20,
                                   17.5, -0.00781, 88.5,      -1000.5, 3.1415, 1e15};
    return kSpecial[i % 20];
  };
  const auto isRounded = [](const Tensor& got, const Tensor& exact) {
    for (int64_t i = 0; i < got.view.numel(); i++) {
      const float f = exact.data<float>()[i];
      const uint16_t bits = got.data<BFloat16>()[i].bits;
      if (std::isnan(f) ? !std::isnan(got.get(i)) : bits != toBFloat16(f).bits) return false;
    }
    return got.isIntact();
  };
  const auto asFloat = [](const Tensor& x) {
    Tensor wide(DType::float32, {x.view.numel()});
    wide.fill([&](int64_t i) { return x.get(i); });
    return wide;
  };
  for (int64_t n : {0, 1, 7, 16, 31, 35, 419}) {
    Tensor a(DType::bfloat16, {n}, n % 5), b(DType::bfloat16, {n}, n % 3);
    Tensor y(DType::bfloat16, {n}, n % 7), exact(DType::float32, {n});
    a.fill(value);
    b.fill([&](int64_t i) { return value(i / 20 + i); });
    const Tensor wideA = asFloat(a), wideB = asFloat(b);
    for (int i = 0; i < static_cast<int>(UnaryOp::count); i++) {
      const auto op = static_cast<UnaryOp>(i);
      if (!isDefined(op, Compute::f32)) continue;
      unary(op, y.view, a.view, DType::bfloat16);
      unary(op, exact.view, wideA.view, DType::float32);
      ASSERT_TRUE(isRounded(y, exact)) << opName(op) << " of " << n;
    }
    for (int i = 0; i < static_cast<int>(BinaryOp::count); i++) {
      const auto op = static_cast<BinaryOp>(i);
      if (!isDefined(op, Compute::f32)) continue;
      binary(op, y.view, a.operand(), b.operand(), DType::bfloat16);
      binary(op, exact.view, wideA.operand(), wideB.operand(), DType::float32);
      ASSERT_TRUE(isRounded(y, exact)) << opName(op) << " of " << n;
    }
  }
}

TEST_P(Elementwise, WhereInEveryDType) {
  for (DType dtype : kAllDTypes) {
    for (int64_t n : {1, 13, 1500}) {
      Tensor condition(DType::boolean, {n, 2}), a(dtype, {n, 2}), b(dtype, {2}), y(dtype, {n, 2});
      condition.fill([](int64_t i) { return i % 3 == 0; });
      a.fill([](int64_t i) { return static_cast<double>(i % 2); });
      b.fill([](int64_t i) { return static_cast<double>(1 - i); });
      backend::where(y.view, condition.view, a.operand(), b.operand());
      for (int64_t i = 0; i < 2 * n; i++) {
        ASSERT_EQ(y.get(i), i % 3 == 0 ? i % 2 : 1 - i % 2) << dtypeName(dtype);
      }
      backend::where(y.view, condition.view, number(int64_t{1}), a.operand());
      for (int64_t i = 0; i < 2 * n; i++) ASSERT_EQ(y.get(i), i % 3 == 0 ? 1 : i % 2);
      ASSERT_TRUE(y.isIntact());
    }
  }
}

TEST_P(Elementwise, SameBitsForAnyNumberOfThreads) {
  expectSameForAnyThreads([] {
    Tensor a(DType::float32, {300, 700}), b(DType::float32, {700}), y(DType::float32, {300, 700});
    a.fillRandom(1);
    b.fillRandom(2);
    binary(BinaryOp::atan2, y.view, a.operand(), b.operand(), DType::float32);
    unary(UnaryOp::gelu, y.view, y.view, DType::float32);
    return y;
  });
}

}  // namespace
}  // namespace adjoint::test
