// Max pooling and its gradients against loops over every window.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "contract.h"
#include "test_tensor.h"

namespace adjoint {
namespace {

using backend::Pool2dShape;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

int64_t outputs(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  return (size + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
}

struct Found {
  int64_t tap = -1, pixel = -1;
};

// The first maximum of a window; NaN wins.
Found expectedTap(const TestTensor& x, int64_t plane, int64_t p, int64_t q, const Pool2dShape& s) {
  const int64_t h = x.size(2), w = x.size(3);
  Found best;
  for (int64_t r = 0; r < s.kernelH; r++) {
    for (int64_t c = 0; c < s.kernelW; c++) {
      const int64_t row = p * s.strideH - s.padH + r * s.dilationH;
      const int64_t column = q * s.strideW - s.padW + c * s.dilationW;
      if (row < 0 || row >= h || column < 0 || column >= w) continue;
      const double value = x.get(plane * h * w + row * w + column);
      const double most = best.tap < 0 ? 0 : x.get(plane * h * w + best.pixel);
      if (best.tap < 0 || value > most || (std::isnan(value) && !std::isnan(most))) {
        best = {r * s.kernelW + c, row * w + column};
      }
    }
  }
  return best;
}

void expectEqual(double got, double expected, const char* what) {
  if (std::isnan(expected)) {
    ASSERT_TRUE(std::isnan(got)) << what;
  } else {
    ASSERT_EQ(got, expected) << what;
  }
}

void expectPooled(const TestTensor& x, const Pool2dShape& s, const std::vector<int>& order = {},
                  DType taps = DType::uint8) {
  const DType dtype = x.view().dtype;
  const int64_t h = x.size(2), w = x.size(3), planes = x.size(0) * x.size(1);
  const int64_t p = outputs(h, s.kernelH, s.strideH, s.padH, s.dilationH);
  const int64_t q = outputs(w, s.kernelW, s.strideW, s.padW, s.dilationW);
  const std::vector<int64_t> shape = {x.size(0), x.size(1), p, q};
  TestTensor y(dtype, shape, order), tap(taps, shape, order), dy(dtype, shape, order);
  TestTensor dx(dtype, {x.size(0), x.size(1), h, w}, order), picked(dtype, shape, order);
  // Small integers: their sums are exact in every type.
  for (int64_t i = 0; i < dy.numel(); i++) dy.set(i, i % 5 - 2);
  backend::maxPool2d(y.view(), tap.view(), x.view(), s);
  backend::maxPool2dBackward(dx.view(), dy.view(), tap.view(), s);
  backend::maxPool2dGather(picked.view(), x.view(), tap.view(), s);
  std::vector<double> expected(dx.numel());
  for (int64_t plane = 0; plane < planes; plane++) {
    for (int64_t i = 0; i < p * q; i++) {
      const int64_t at = plane * p * q + i;
      const Found best = expectedTap(x, plane, i / q, i % q, s);
      if (best.tap < 0) {
        expectEqual(picked.get(at), 0, "gathered outside the image");
        continue;
      }
      const int64_t pixel = plane * h * w + best.pixel;
      ASSERT_EQ(tap.get(at), best.tap) << at;
      expectEqual(y.get(at), x.get(pixel), "y");
      expectEqual(picked.get(at), x.get(pixel), "gathered");
      expected[pixel] += dy.get(at);
    }
  }
  EXPECT_EQ(dx.values(), expected);
}

TEST(MaxPool2d, PairsOfEveryWidth) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (int64_t w = 2; w <= 70; w++) {
      TestTensor x(DType::float32, {2, 3, 5, w});
      x.randomize(static_cast<unsigned>(w));
      expectPooled(x, {2, 2, 2, 2, 0, 0, 1, 1});
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(MaxPool2d, EveryKernelStridePaddingAndDilation) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (int64_t kernel : {1, 2, 3}) {
      for (int64_t stride : {1, 2, 3}) {
        for (int64_t pad = 0; pad <= kernel / 2; pad++) {
          for (int64_t dilation : {1, 2}) {
            TestTensor x(DType::float32, {1, 2, 11, 37});
            x.randomize(7);
            expectPooled(x, {kernel, 3, stride, 2, pad, 1, dilation, 1});
            expectPooled(x, {2, kernel, 1, stride, 1, pad, 1, dilation});
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  });
}

TEST(MaxPool2d, TheFirstOfEqualValuesAndNaNWin) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (const Pool2dShape& s : {Pool2dShape{2, 2, 2, 2, 0, 0, 1, 1}, {3, 3, 1, 1, 1, 1, 1, 1}}) {
      for (double value : {0.0, -kInf, kInf, kNaN}) {
        TestTensor x(DType::float32, {1, 1, 8, 40});
        x.fill(value);
        expectPooled(x, s);
        x.randomize(3);
        for (int64_t i = 0; i < x.numel(); i += 7) x.set(i, value);
        expectPooled(x, s);
      }
    }
  });
}

TEST(MaxPool2d, EveryDTypeAndLayout) {
  for (DType dtype : {DType::float64, DType::bfloat16, DType::float16, DType::int64, DType::int8}) {
    for (const auto& order : {std::vector<int>{0, 1, 2, 3}, {0, 2, 3, 1}}) {
      SCOPED_TRACE(dtypeName(dtype));
      TestTensor x(dtype, {2, 3, 6, 10}, order, 1);
      x.randomize(5);
      expectPooled(x, {2, 2, 2, 2, 0, 0, 1, 1}, order);
      expectPooled(x, {3, 3, 2, 1, 1, 1, 1, 1}, order);
    }
  }
}

// Taps beyond a byte, and windows that see nothing but padding.
TEST(MaxPool2d, LargeWindowsAndWindowsOutsideTheImage) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (DType dtype : {DType::float32, DType::float64}) {
      TestTensor x(dtype, {1, 2, 19, 37}), small(dtype, {1, 2, 3, 4});
      x.randomize(11);
      small.randomize(12);
      expectPooled(x, {16, 16, 2, 3, 3, 4, 1, 1});
      expectPooled(x, {17, 18, 1, 2, 8, 9, 1, 1}, {}, DType::int32);
      expectPooled(small, {2, 2, 1, 1, 1, 1, 4, 5});
      expectPooled(x, {2, 2, 2, 2, 0, 0, 1, 1}, {}, DType::int32);
    }
  });
}

TEST(MaxPool2d, RefusesTapsOutsideTheWindow) {
  TestTensor dy(DType::float32, {1, 1, 2, 2}), y(DType::float32, {1, 1, 2, 2});
  TestTensor dx(DType::float32, {1, 1, 4, 4});
  dx.fill(0);
  dy.fill(1);
  for (const Pool2dShape& s : {Pool2dShape{2, 2, 2, 2, 0, 0, 1, 1}, {3, 3, 1, 1, 0, 0, 1, 1}}) {
    for (DType dtype : {DType::uint8, DType::int32}) {
      for (double bad : {-1.0, 9.0, 255.0, 2e9, -2e9}) {
        if (dtype == DType::uint8 && (bad < 0 || bad > 255)) continue;
        TestTensor tap(dtype, {1, 1, 2, 2});
        tap.fill(0);
        tap.set(3, bad);
        EXPECT_THROW(backend::maxPool2dBackward(dx.view(), dy.view(), tap.view(), s), Error);
        EXPECT_THROW(backend::maxPool2dGather(y.view(), dx.view(), tap.view(), s), Error);
      }
    }
  }
  TestTensor x(DType::float32, {1, 1, 20, 20}), bytes(DType::uint8, {1, 1, 4, 4});
  TestTensor pooled(DType::float32, {1, 1, 4, 4});
  const Pool2dShape large = {17, 17, 1, 1, 0, 0, 1, 1};
  EXPECT_THROW(backend::maxPool2d(pooled.view(), bytes.view(), x.view(), large), Error);
}

TEST(MaxPool2d, EmptyBatch) {
  TestTensor x(DType::float32, {0, 2, 4, 4}), y(DType::float32, {0, 2, 2, 2});
  TestTensor tap(DType::uint8, {0, 2, 2, 2});
  backend::maxPool2d(y.view(), tap.view(), x.view(), {2, 2, 2, 2, 0, 0, 1, 1});
  backend::maxPool2dBackward(x.view(), y.view(), tap.view(), {2, 2, 2, 2, 0, 0, 1, 1});
  backend::maxPool2dGather(y.view(), x.view(), tap.view(), {2, 2, 2, 2, 0, 0, 1, 1});
  EXPECT_TRUE(y.bytes().empty());
}

}  // namespace
}  // namespace adjoint
