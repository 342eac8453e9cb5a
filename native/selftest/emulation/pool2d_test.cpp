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

// Where in a plane [h, w] the maximum of a window is; -1 for a window over nothing.
int64_t maximumOf(const double* x, int64_t h, int64_t w, int64_t p, int64_t q,
                  const Pool2dShape& s) {
  int64_t best = -1;
  for (int64_t r = 0; r < s.kernelH; r++) {
    for (int64_t c = 0; c < s.kernelW; c++) {
      const int64_t row = p * s.strideH - s.padH + r * s.dilationH;
      const int64_t column = q * s.strideW - s.padW + c * s.dilationW;
      if (row < 0 || row >= h || column < 0 || column >= w) continue;
      const int64_t at = row * w + column;
      const bool takes = best < 0 || x[at] > x[best] || (std::isnan(x[at]) && !std::isnan(x[best]));
      if (takes) best = at;
    }
  }
  return best;
}

void expectPooled(DType dtype, Layout layout, const Sizes& size, const Values& values,
                  const Pool2dShape& s) {
  const int64_t h = size[2], w = size[3], planes = size[0] * size[1];
  const int64_t p = windows(h, s.kernelH, s.strideH, s.padH, s.dilationH);
  const int64_t q = windows(w, s.kernelW, s.strideW, s.padW, s.dilationW);
  const Sizes pooled = {size[0], size[1], p, q};
  // Small integers: their sums are exact in every type.
  Values dy;
  for (int64_t i = 0; i < numel(pooled); i++) dy.push_back(static_cast<double>(i % 5) - 2);
  Values wantIndex, wantY, wantDx(values.size(), 0);
  for (int64_t plane = 0; plane < planes; plane++) {
    const double* x = &values[static_cast<size_t>(plane * h * w)];
    for (int64_t i = 0; i < p * q; i++) {
      const int64_t best = maximumOf(x, h, w, i / q, i % q, s);
      wantIndex.push_back(static_cast<double>(best));
      wantY.push_back(best < 0 ? -kInf : x[best]);
      if (best >= 0) wantDx[static_cast<size_t>(plane * h * w + best)] += dy[wantY.size() - 1];
    }
  }
  const DeviceTensor x = images(dtype, size, layout, values);
  const DeviceTensor gradient = images(dtype, pooled, layout, dy);
  const DeviceTensor y = images(dtype, pooled, layout),
                     index = images(DType::int32, pooled, layout);
  const DeviceTensor dx = images(dtype, size, layout), picked = images(dtype, pooled, layout);
  backend::maxPool2d(y, index, x, s);
  backend::maxPool2dBackward(dx, gradient, index, s);
  backend::maxPool2dGather(picked, x, index);
  EXPECT_EQ(index.read(), wantIndex);
  expectClose(y.read(), wantY, 0);
  EXPECT_EQ(dx.read(), wantDx);
  for (size_t i = 0; i < wantY.size(); i++) {
    if (wantIndex[i] < 0) wantY[i] = 0;
  }
  expectClose(picked.read(), wantY, 0);
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

TEST_P(Pool2dOnDevice, indicesOutsideThePlaneAreErrors) {
  const DeviceTensor dy(DType::float32, {1, 1, 1, 2}, {1, 1}),
      x(DType::float32, {1, 1, 2, 2}, {1, 2, 3, 4});
  const DeviceTensor dx = DeviceTensor::empty(DType::float32, {1, 1, 2, 2});
  const DeviceTensor y = DeviceTensor::empty(DType::float32, {1, 1, 1, 2});
  for (double bad : {-2.0, 4.0, 2e9, -2e9}) {
    const DeviceTensor index(DType::int32, {1, 1, 1, 2}, {0, bad});
    backend::maxPool2dBackward(dx, dy, index, {2, 1, 1, 1, 0, 0, 1, 1});
    EXPECT_THROW(backend::synchronize(), Error);
    backend::maxPool2dGather(y, x, index);
    EXPECT_THROW(backend::synchronize(), Error);
  }
  backend::synchronize();
}

TEST_P(Pool2dOnDevice, emptyBatch) {
  const DeviceTensor x = DeviceTensor::empty(DType::float32, {0, 2, 4, 4});
  const DeviceTensor y = DeviceTensor::empty(DType::float32, {0, 2, 2, 2});
  const DeviceTensor index = DeviceTensor::empty(DType::int32, {0, 2, 2, 2});
  backend::maxPool2d(y, index, x, kPairs);
  backend::maxPool2dBackward(x, y, index, kPairs);
  backend::maxPool2dGather(y, x, index);
  backend::synchronize();
}

}  // namespace
}  // namespace adjoint::test
