// copy between all dtypes and layouts, fill, arange, and the iteration plans behind them.
#include "kernel_test.h"
#include "shared/iterate.h"

namespace adjoint::test {
namespace {

class Copy : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Copy);

constexpr double kInfinity = INFINITY;

// What a float becomes as an integer of `bits` bits: truncated, saturated, NaN is 0.
double asInteger(double x, int bits, bool isSigned) {
  if (std::isnan(x)) return 0;
  const double high = std::ldexp(1.0, isSigned ? bits - 1 : bits) - (bits == 64 ? 0 : 1);
  const double low = isSigned ? -std::ldexp(1.0, bits - 1) : 0;
  return std::fmin(std::fmax(std::trunc(x), low), high);
}

// Rounds to `digits` significant bits, denormal below 2^minimum, infinite from 2^(limit + 1) on.
double rounded(double x, int digits, int minimum, int limit) {
  if (std::isnan(x) || std::isinf(x) || x == 0) return x;
  int exponent;
  std::frexp(x, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent - digits, minimum - digits + 1));
  const double y = std::nearbyint(x / unit) * unit;
  return std::fabs(y) >= std::ldexp(1.0, limit + 1) ? std::copysign(kInfinity, x) : y;
}

double expectedFrom(double x, DType to) {
  switch (to) {
    case DType::float32:
      return rounded(x, 24, -126, 127);
    case DType::float64:
      return x;
    case DType::bfloat16:
      return rounded(rounded(x, 24, -126, 127), 8, -126, 127);
    case DType::float16:
      return rounded(rounded(x, 24, -126, 127), 11, -14, 15);
    case DType::int64:
      return asInteger(x, 64, true);
    case DType::int32:
      return asInteger(x, 32, true);
    case DType::int16:
      return asInteger(x, 16, true);
    case DType::int8:
      return asInteger(x, 8, true);
    case DType::uint8:
      return asInteger(x, 8, false);
    default:
      return x != 0;
  }
}

TEST_P(Copy, FloatsToEveryDType) {
  const double values[] = {
      0,      -0.0,      1,          -1,    0.5,          -0.5,       1.5,     2.5,   127.9, 128,
      -128.9, 255.5,     256,        300,   -1e-3,        65504,      65519.9, 65520, 1e5,   -1e5,
      1e-8,   6e-8,      3e-8,       1e-40, 2147483648.0, 3e9,        -3e9,    1e19,  -1e19, 1e38,
      3.4e38, kInfinity, -kInfinity, NAN,   1.00390625,   1.01171875, 9.2e18,  0.1};
  constexpr int64_t n = sizeof values / sizeof *values;
  for (DType from : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    for (DType to : kAllDTypes) {
      for (int64_t shift = 0; shift < 3; shift++) {
        Tensor x(from, {n}, shift), y(to, {n}, shift + 1);
        x.fill([&](int64_t i) { return values[i]; });
        backend::copy(y.view, x.view);
        for (int64_t i = 0; i < n; i++) {
          const double source = expectedFrom(values[i], from), expected = expectedFrom(source, to);
          if (std::isnan(expected)) {
            ASSERT_TRUE(std::isnan(y.get(i)));
          } else {
            ASSERT_EQ(y.get(i), expected)
                << source << ": " << dtypeName(from) << " -> " << dtypeName(to);
          }
        }
        ASSERT_TRUE(y.isIntact());
      }
    }
  }
}

TEST_P(Copy, IntegersWrapAround) {
  const int64_t values[] = {0,
                            1,
                            -1,
                            127,
                            128,
                            255,
                            256,
                            -129,
                            32768,
                            65535,
                            int64_t{1} << 31,
                            (int64_t{1} << 32) + 7,
                            INT64_MAX,
                            INT64_MIN,
                            16777217,
                            300};
  constexpr int64_t n = sizeof values / sizeof *values;
  Tensor x(DType::int64, {n});
  std::memcpy(x.data<int64_t>(), values, sizeof values);
  Tensor i32(DType::int32, {n}), i16(DType::int16, {n}), i8(DType::int8, {n}),
      u8(DType::uint8, {n}), truth(DType::boolean, {n}), f32(DType::float32, {n}),
      f64(DType::float64, {n});
  for (Tensor* y : {&i32, &i16, &i8, &u8, &truth, &f32, &f64}) backend::copy(y->view, x.view);
  for (int64_t i = 0; i < n; i++) {
    EXPECT_EQ(i32.data<int32_t>()[i], static_cast<int32_t>(values[i]));
    EXPECT_EQ(i16.data<int16_t>()[i], static_cast<int16_t>(values[i]));
    EXPECT_EQ(i8.data<int8_t>()[i], static_cast<int8_t>(values[i]));
    EXPECT_EQ(u8.data<uint8_t>()[i], static_cast<uint8_t>(values[i]));
    EXPECT_EQ(truth.data<uint8_t>()[i], values[i] != 0);
    EXPECT_EQ(f32.data<float>()[i], static_cast<float>(values[i]));
    EXPECT_EQ(f64.data<double>()[i], static_cast<double>(values[i]));
  }
  backend::copy(x.view, u8.view);
  EXPECT_EQ(x.data<int64_t>()[5], 255);
}

TEST_P(Copy, EveryHalfSurvivesARoundTrip) {
  for (DType dtype : {DType::float16, DType::bfloat16}) {
    constexpr int64_t n = 65536;
    Tensor x(dtype, {n}), wide(DType::float32, {n}), back(dtype, {n});
    for (int64_t i = 0; i < n; i++) x.data<uint16_t>()[i] = static_cast<uint16_t>(i);
    backend::copy(wide.view, x.view);
    backend::copy(back.view, wide.view);
    for (int64_t i = 0; i < n; i++) {
      if (std::isnan(wide.data<float>()[i])) {
        ASSERT_TRUE(std::isnan(back.get(i)));
      } else {
        ASSERT_EQ(back.data<uint16_t>()[i], i);
      }
    }
  }
}

void checkCopy(Tensor& y, const Tensor& x) {
  backend::copy(y.view, x.view);
  for (int64_t i = 0; i < y.numel(); i++) ASSERT_EQ(y.get(i), x.get(i)) << "element " << i;
  ASSERT_TRUE(y.isIntact());
}

TEST_P(Copy, EveryLayoutAndElementSize) {
  const auto value = [](int64_t i) { return static_cast<double>(i * 7 % 101); };
  for (DType dtype :
       {DType::uint8, DType::int16, DType::float32, DType::float64, DType::bfloat16}) {
    for (int64_t rows : {1, 3, 31, 32, 33, 70}) {
      for (int64_t columns : {1, 8, 33, 65}) {
        Tensor x(dtype, {rows, columns}), y(dtype, {columns, rows});
        checkCopy(y, x.transpose(0, 1).fill(value));
        Tensor x2(dtype, {columns, rows}), y2(dtype, {rows, columns});
        checkCopy(y2.transpose(0, 1), x2.fill(value));
      }
    }
    // batches of transposes, NCHW to NHWC and back, steps, an int32 source
    Tensor x(dtype, {3, 20, 5, 9}), y(dtype, {3, 9, 5, 20});
    checkCopy(y, x.transpose(1, 3).fill(value));
    Tensor x2(dtype, {2, 6, 50, 40}), y2(dtype, {2, 50, 6, 20});
    x2.transpose(1, 2).slice(3, 1, 2).fill(value);
    checkCopy(y2, x2);
    Tensor x3(DType::int32, {40, 30}), y3(dtype, {30, 40});
    checkCopy(y3, x3.transpose(0, 1).fill(value));
    Tensor x4(dtype, {600}), y4(dtype, {1800});
    y4.slice(0, 2, 3);
    checkCopy(y4, x4.fill(value));
    Tensor empty(dtype, {0, 3}), target(dtype, {0, 3});
    checkCopy(target, empty);
    Tensor scalar(dtype, {}), y5(dtype, {4, 5});
    scalar.set(0, 42);
    backend::copy(y5.view, scalar.view);
    for (int64_t i = 0; i < 20; i++) ASSERT_EQ(y5.get(i), 42);
  }
}

TEST_P(Copy, FillAndArange) {
  for (DType dtype : kAllDTypes) {
    for (int64_t n : {0, 1, 7, 100, 40000}) {
      Tensor y(dtype, {n});
      backend::fill(y.view, Scalar::of(int64_t{1}));
      for (int64_t i = 0; i < n; i++) ASSERT_EQ(y.get(i), 1);
      if (dtype == DType::boolean) continue;
      const int64_t shown = n < 100 ? n : 50;
      backend::arange(y.view, Scalar::of(int64_t{2}), Scalar::of(int64_t{1}));
      for (int64_t i = 0; i < shown; i++) ASSERT_EQ(y.get(i), 2 + i);
      ASSERT_TRUE(y.isIntact());
    }
    Tensor strided(dtype, {10, 6});
    backend::fill(strided.view, Scalar::of(int64_t{0}));
    View even = strided.view;
    even.size[1] = 3;
    even.stride[1] = 2;
    backend::fill(even, Scalar::of(int64_t{1}));
    for (int64_t i = 0; i < 60; i++) ASSERT_EQ(strided.get(i), i % 2 == 0);
  }
  Tensor half(DType::float64, {5});
  backend::arange(half.view, Scalar::of(0.5), Scalar::of(-0.25));
  for (int64_t i = 0; i < 5; i++) EXPECT_EQ(half.get(i), 0.5 - 0.25 * static_cast<double>(i));
  Tensor large(DType::int64, {3});
  backend::arange(large.view, Scalar::of(INT64_MAX - 1), Scalar::of(int64_t{1}));
  EXPECT_EQ(large.data<int64_t>()[1], INT64_MAX);
  EXPECT_EQ(large.data<int64_t>()[2], INT64_MIN);  // wraps around
}

TEST(Plan, DropsOrdersAndMergesAxes) {
  Tensor y(DType::float32, {4, 1, 5, 6}), x(DType::float32, {4, 1, 5, 6}), row(DType::float32, {6});
  EXPECT_EQ(makePlan<2>({&y.view, &x.view}).ndim, 1);
  const Plan<2> bias = makePlan<2>({&y.view, &row.view});
  EXPECT_EQ(bias.ndim, 2);
  EXPECT_EQ(bias.size[0], 20);
  EXPECT_EQ(bias.stride[1][0], 0);
  y.transpose(0, 3);
  x.transpose(0, 3);
  EXPECT_EQ(makePlan<2>({&y.view, &x.view}).ndim, 1);  // both permuted alike
  EXPECT_EQ(makePlan<1>({&y.view}, AxisOrder::rowMajor).ndim, 3);
  const Plan<1> plan = makePlan<1>({&y.view}, AxisOrder::rowMajor);
  for (int64_t i = 0; i < y.numel(); i++) {
    EXPECT_EQ(y.view.as<char>() + plan.offset(0, i) * 4, static_cast<char*>(y.at(i)));
  }
}

}  // namespace
}  // namespace adjoint::test
