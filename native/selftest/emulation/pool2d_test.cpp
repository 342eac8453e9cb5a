// Max pooling and its gradients against loops over every window.
#include <limits>

#include "device_tensor.h"

namespace adjoint::test {
namespace {

using backend::Pool2dShape;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

class Pool2dOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(Pool2dOnDevice);

enum class Layout { rows, channelsLast, apart };

int64_t numel(const Sizes& sizes) {
  return sizes[0] * sizes[1] * sizes[2] * sizes[3];
}

// `apart`: nothing lies beside anything.
DeviceTensor images(DType dtype, const Sizes& s, Layout layout) {
  const auto n = static_cast<size_t>(numel(s));
  if (layout == Layout::rows) return DeviceTensor::empty(dtype, s);
  if (layout == Layout::channelsLast) {
    return DeviceTensor(dtype, s, {s[1] * s[2] * s[3], 1, s[3] * s[1], s[1]}, 0, n);
  }
  return DeviceTensor(dtype, s, {2 * s[1] * s[2] * s[3], 2, 2 * s[1], 2 * s[1] * s[2]}, 1, 2 * n);
}
DeviceTensor images(DType dtype, const Sizes& s, Layout layout, const Values& values) {
  DeviceTensor t = images(dtype, s, layout);
  backend::copy(t, DeviceTensor(dtype, s, values));
  return t;
}

int64_t windows(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  return (size + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
}

struct Found {
  int64_t tap = -1, pixel = -1;
};

// Where in a plane [h, w] the maximum of a window is; -1 for a window over nothing.
Found maximumOf(const double* x, int64_t h, int64_t w, int64_t p, int64_t q, const Pool2dShape& s) {
  Found best;
  for (int64_t r = 0; r < s.kernelH; r++) {
    for (int64_t c = 0; c < s.kernelW; c++) {
      const int64_t row = p * s.strideH - s.padH + r * s.dilationH;
      const int64_t column = q * s.strideW - s.padW + c * s.dilationW;
      if (row < 0 || row >= h || column < 0 || column >= w) continue;
      const int64_t at = row * w + column;
      const double value = x[at], most = best.tap < 0 ? 0 : x[best.pixel];
      const bool takes = best.tap < 0 || value > most || (std::isnan(value) && !std::isnan(most));
      if (takes) best = {r * s.kernelW + c, at};
    }
  }
  return best;
}

void expectPooled(DType dtype, Layout layout, const Sizes& size, const Values& values,
                  const Pool2dShape& s, DType taps = DType::uint8) {
  const int64_t h = size[2], w = size[3], planes = size[0] * size[1];
  const int64_t p = windows(h, s.kernelH, s.strideH, s.padH, s.dilationH);
  const int64_t q = windows(w, s.kernelW, s.strideW, s.padW, s.dilationW);
  const Sizes pooled = {size[0], size[1], p, q};
  // Small integers: their sums are exact in every type.
  Values dy;
  for (int64_t i = 0; i < numel(pooled); i++) dy.push_back(static_cast<double>(i % 5) - 2);
  Values wantTap, wantPicked, wantY, wantDx(values.size(), 0);
  for (int64_t plane = 0; plane < planes; plane++) {
    const double* x = &values[static_cast<size_t>(plane * h * w)];
    for (int64_t i = 0; i < p * q; i++) {
      const Found best = maximumOf(x, h, w, i / q, i % q, s);
      const bool isInside = best.tap >= 0;
      wantTap.push_back(isInside ? static_cast<double>(best.tap) : 0);
      wantY.push_back(isInside ? x[best.pixel] : -kInf);
      wantPicked.push_back(isInside ? x[best.pixel] : 0);
      if (isInside) wantDx[static_cast<size_t>(plane * h * w + best.pixel)] += dy[wantY.size() - 1];
    }
  }
  const DeviceTensor x = images(dtype, size, layout, values);
  const DeviceTensor gradient = images(dtype, pooled, layout, dy);
  const DeviceTensor y = images(dtype, pooled, layout), tap = images(taps, pooled, layout);
  const DeviceTensor dx = images(dtype, size, layout), picked = images(dtype, pooled, layout);
  backend::maxPool2d(y, tap, x, s);
  backend::maxPool2dBackward(dx, gradient, tap, s);
  backend::maxPool2dGather(picked, x, tap, s);
  EXPECT_EQ(tap.read(), wantTap);
  expectClose(y.read(), wantY, 0);
  EXPECT_EQ(dx.read(), wantDx);
  expectClose(picked.read(), wantPicked, 0);
}

constexpr Pool2dShape kPairs = {2, 2, 2, 2, 0, 0, 1, 1};

// Rows that move in accesses of 16 and of 8 bytes, or by elements; channels by fours or by one.
TEST_P(Pool2dOnDevice, pairsOfEveryWidth) {
  for (DType dtype : kFloats) {
    for (int64_t w : {2, 3, 6, 8, 13, 32}) {
      const Sizes size = {2, w == 6 ? 8 : 3, 5, w};
      const Values x = randomValues(numel(size), -4, 4, dtype, static_cast<unsigned>(w));
      expectPooled(dtype, Layout::rows, size, x, kPairs);
      expectPooled(dtype, Layout::channelsLast, size, x, kPairs);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(Pool2dOnDevice, everyWindow) {
  const Sizes size = {1, 4, 9, 12};
  const Values x = randomValues(numel(size), -4, 4);
  for (int64_t kernel : {1, 2, 3}) {
    for (int64_t stride : {1, 2, 4}) {
      for (int64_t dilation : {1, 2}) {
        const int64_t pad = kernel / 2;
        for (Layout layout : {Layout::rows, Layout::channelsLast, Layout::apart}) {
          expectPooled(DType::float32, layout, size, x,
                       {kernel, kernel, stride, stride, pad, pad, dilation, dilation});
          expectPooled(DType::bfloat16, layout, size, x,
                       {kernel, 3, stride, 1, pad, 1, dilation, 1});
        }
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(Pool2dOnDevice, integersAndOtherTypes) {
  const Sizes size = {2, 3, 7, 8};
  for (DType dtype : {DType::float64, DType::float16, DType::int64, DType::int8}) {
    const Values x = randomValues(numel(size), -50, 50, dtype);
    for (Layout layout : {Layout::rows, Layout::channelsLast, Layout::apart}) {
      expectPooled(dtype, layout, size, x, kPairs);
      expectPooled(dtype, layout, size, x, {3, 3, 2, 1, 1, 1, 1, 1});
    }
  }
}

TEST_P(Pool2dOnDevice, theFirstOfEqualValuesAndNaNWin) {
  const Sizes size = {1, 4, 8, 12};
  for (double value : {0.0, -kInf, kInf, kNaN}) {
    Values x(static_cast<size_t>(numel(size)), value);
    Values some = randomValues(numel(size), -4, 4);
    for (size_t i = 0; i < some.size(); i += 7) some[i] = value;
    for (Layout layout : {Layout::rows, Layout::channelsLast}) {
      for (const Pool2dShape& s : {kPairs, Pool2dShape{3, 3, 1, 1, 1, 1, 1, 1}}) {
        expectPooled(DType::float32, layout, size, x, s);
        expectPooled(DType::float16, layout, size, some, s);
      }
    }
  }
}

// Many blocks, and windows that overlap.
TEST_P(Pool2dOnDevice, manyPlanes) {
  const Sizes size = {3, 20, 23, 24};
  const Values x = randomValues(numel(size), -8, 8);
  expectPooled(DType::float32, Layout::rows, size, x, {3, 3, 2, 2, 1, 1, 1, 1});
  expectPooled(DType::bfloat16, Layout::channelsLast, size, x, {3, 3, 2, 2, 1, 1, 1, 1});
}

// Taps beyond a byte, and windows that see nothing but padding.
TEST_P(Pool2dOnDevice, largeWindowsAndWindowsOutsideTheImage) {
  const Sizes size = {1, 4, 19, 20}, small = {1, 4, 3, 4};
  const Values x = randomValues(numel(size), -4, 4), few = randomValues(numel(small), -4, 4);
  for (Layout layout : {Layout::rows, Layout::channelsLast, Layout::apart}) {
    expectPooled(DType::float32, layout, size, x, {16, 16, 2, 3, 3, 4, 1, 1});
    expectPooled(DType::float32, layout, size, x, {17, 18, 1, 2, 8, 9, 1, 1}, DType::int32);
    expectPooled(DType::float32, layout, size, x, kPairs, DType::int32);
    expectPooled(DType::float32, layout, small, few, {2, 2, 1, 1, 1, 1, 4, 5});
  }
}

TEST_P(Pool2dOnDevice, tapsOutsideTheWindowAreErrors) {
  const DeviceTensor dy(DType::float32, {1, 1, 1, 2}, {1, 1}),
      x(DType::float32, {1, 1, 2, 2}, {1, 2, 3, 4});
  const DeviceTensor dx = DeviceTensor::empty(DType::float32, {1, 1, 2, 2});
  const DeviceTensor y = DeviceTensor::empty(DType::float32, {1, 1, 1, 2});
  const Pool2dShape s = {2, 1, 1, 1, 0, 0, 1, 1};
  auto expectRefused = [&](const DeviceTensor& tap) {
    backend::maxPool2dBackward(dx, dy, tap, s);
    EXPECT_THROW(backend::synchronize(), Error);
    backend::maxPool2dGather(y, x, tap, s);
    EXPECT_THROW(backend::synchronize(), Error);
  };
  for (double bad : {-1.0, 2.0, 2e9, -2e9}) {
    expectRefused(DeviceTensor(DType::int32, {1, 1, 1, 2}, {0, bad}));
  }
  for (double bad : {2.0, 255.0}) {
    expectRefused(DeviceTensor(DType::uint8, {1, 1, 1, 2}, {0, bad}));
  }
  backend::synchronize();
}

TEST_P(Pool2dOnDevice, emptyBatch) {
  const DeviceTensor x = DeviceTensor::empty(DType::float32, {0, 2, 4, 4});
  const DeviceTensor y = DeviceTensor::empty(DType::float32, {0, 2, 2, 2});
  const DeviceTensor tap = DeviceTensor::empty(DType::uint8, {0, 2, 2, 2});
  backend::maxPool2d(y, tap, x, kPairs);
  backend::maxPool2dBackward(x, y, tap, kPairs);
  backend::maxPool2dGather(y, x, tap, kPairs);
  backend::synchronize();
}

}  // namespace
}  // namespace adjoint::test
