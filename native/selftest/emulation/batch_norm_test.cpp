// Batch normalisation, with rectification and without, and its gradient against float64 loops.
#include <string>

#include "device_tensor.h"

namespace adjoint::test {
namespace {

class BatchNormOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(BatchNormOnDevice);

constexpr double kEps = 1e-5, kMomentum = 0.1;

struct Expected {
  Values mean, variance, y, dx, dweight, dbias;
};

// x [N, C, inner] in row-major order; weight and bias may be empty. With relu, the gradient passes
// where the kernel's y is above 0: where it is nearly 0, rounding decides.
Expected reference(const Values& x, const Values& dy, const Values& weight, const Values& bias,
                   size_t channels, size_t inner, bool relu, const Values& y) {
  const size_t n = x.size();
  const auto count = static_cast<double>(n / channels);
  Expected e{Values(channels), Values(channels), Values(n),
             Values(n),        Values(channels), Values(channels)};
  const auto channelOf = [&](size_t i) { return i / inner % channels; };
  for (size_t i = 0; i < n; i++) e.mean[channelOf(i)] += x[i];
  for (double& m : e.mean) m /= count;
  for (size_t i = 0; i < n; i++) {
    e.variance[channelOf(i)] += std::pow(x[i] - e.mean[channelOf(i)], 2) / count;
  }
  const auto xhat = [&](size_t i) {
    return (x[i] - e.mean[channelOf(i)]) / std::sqrt(e.variance[channelOf(i)] + kEps);
  };
  Values g(n);
  for (size_t i = 0; i < n; i++) {
    const size_t c = channelOf(i);
    e.y[i] = xhat(i) * (weight.empty() ? 1 : weight[c]) + (bias.empty() ? 0 : bias[c]);
    if (relu && e.y[i] < 0) e.y[i] = 0;
    if (relu && y[i] <= 0) continue;
    g[i] = dy[i];
    e.dweight[c] += g[i] * xhat(i);
    e.dbias[c] += g[i];
  }
  for (size_t i = 0; i < n; i++) {
    const size_t c = channelOf(i);
    e.dx[i] = (weight.empty() ? 1 : weight[c]) / std::sqrt(e.variance[c] + kEps) *
              (g[i] - (e.dbias[c] + xhat(i) * e.dweight[c]) / count);
  }
  return e;
}

struct Case {
  Sizes shape;
  std::vector<int> order = {};  // of the axes in memory, outermost first; none: row-major
  DType dtype = DType::float32, weightType = DType::float32;
  bool affine = true, relu = false;
  int64_t gap = 0;  // elements between the slices of the outermost axis
  double shift = 0;
};

// A view of that shape, with axes in that order in memory.
DeviceTensor placed(const Case& c, int64_t gap, const Values* values) {
  const size_t ndim = c.shape.size();
  Sizes strides(ndim);
  int64_t stride = 1;
  for (size_t i = ndim; i-- > 0;) {
    const size_t axis = c.order.empty() ? i : static_cast<size_t>(c.order[i]);
    strides[axis] = stride;
    stride *= c.shape[axis];
    if (i == 1) stride += gap;
  }
  const DeviceTensor x(c.dtype, c.shape, strides, 0, static_cast<size_t>(stride));
  if (values) backend::copy(x, DeviceTensor(c.dtype, c.shape, *values));
  return x;
}

void expectCorrect(const Case& c) {
  std::string name = dtypeName(c.dtype);
  for (int64_t s : c.shape) name += " " + std::to_string(s);
  SCOPED_TRACE(name);
  int64_t n = 1, channels = c.shape[1];
  for (int64_t s : c.shape) n *= s;
  const DType wide = c.dtype == DType::float64 ? DType::float64 : DType::float32;
  const double u = epsilonOf(c.dtype), wideU = epsilonOf(wide), weightU = epsilonOf(c.weightType);
  Values x = randomValues(n, -2, 2, c.dtype, 1);
  for (double& v : x) v += c.shift;
  const Values dy = randomValues(n, -2, 2, c.dtype, 2);
  const Values w = c.affine ? randomValues(channels, 0.5, 2, c.dtype, 3) : Values();
  const Values b = c.affine ? randomValues(channels, -1, 1, c.dtype, 4) : Values();
  const DeviceTensor xs = placed(c, c.gap, &x), dys = placed(c, 0, &dy);
  const DeviceTensor y = placed(c, 0, nullptr), dx = placed(c, c.gap, nullptr);
  const DeviceTensor weight(c.weightType, {channels}, w.empty() ? Values(size_t(channels)) : w);
  const DeviceTensor bias(c.weightType, {channels}, b.empty() ? Values(size_t(channels)) : b);
  const DeviceTensor mean = DeviceTensor::empty(wide, {channels});
  const DeviceTensor rstd = DeviceTensor::empty(wide, {channels});
  const DeviceTensor runningMean(wide, {channels}, Values(size_t(channels), 2));
  const DeviceTensor runningVar(wide, {channels}, Values(size_t(channels), 3));
  const DeviceTensor dweight = DeviceTensor::empty(c.weightType, {channels});
  const DeviceTensor dbias = DeviceTensor::empty(c.weightType, {channels});
  const View* weights = c.affine ? &weight.view : nullptr;
  const View* biases = c.affine ? &bias.view : nullptr;
  backend::batchNorm({y, mean, rstd, xs, weights, biases, &runningMean.view, &runningVar.view,
                      kMomentum, kEps, c.relu});
  backend::batchNormBackward({dx, dweight, dbias, dys, xs, weights, biases, mean, rstd, c.relu});

  const auto inner = static_cast<size_t>(n / c.shape[0] / channels);
  const Expected e = reference(x, dy, w, b, static_cast<size_t>(channels), inner, c.relu, y.read());
  const double large = 1 + c.shift, count = static_cast<double>(n / channels);
  const double sums = std::sqrt(count) * 16;
  expectClose(y.read(), e.y, 2 * u + 16 * wideU * large);
  expectClose(mean.read(), e.mean, 4 * wideU);
  expectClose(dx.read(), e.dx, 2 * u + 64 * wideU * large);
  expectClose(dweight.read(), e.dweight, 2 * weightU + sums * wideU * large);
  expectClose(dbias.read(), e.dbias, 2 * weightU + sums * wideU);
  Values r, m, v;
  for (size_t k = 0; k < e.mean.size(); k++) {
    r.push_back(1 / std::sqrt(e.variance[k] + kEps));
    m.push_back(0.9 * 2 + 0.1 * e.mean[k]);
    v.push_back(0.9 * 3 + 0.1 * e.variance[k] * count / (count - 1));
  }
  expectClose(rstd.read(), r, 8 * wideU * large, 0);
  expectClose(runningMean.read(), m, 4 * wideU);
  expectClose(runningVar.read(), v, 8 * wideU * large);
}

TEST_P(BatchNormOnDevice, everyLayoutShapeAndType) {
  for (DType dtype : kFloats) {
    for (int mode = 0; mode < 4; mode++) {
      for (Case c : std::vector<Case>{{{5, 3, 7, 9}},
                                      {{4, 3, 4, 6}},
                                      {{3, 5, 2, 6}},  // 12 elements: 8 bytes of half types
                                      {{5, 70, 3, 2}, {0, 2, 3, 1}},
                                      {{3, 64, 5, 3}, {0, 2, 3, 1}},
                                      {{3, 12, 3, 3}, {0, 2, 3, 1}},
                                      {{33, 70}},
                                      {{33, 5}, {1, 0}},
                                      {{4, 1, 3, 3}, {3, 0, 2, 1}},
                                      {{2, 2, 3, 2, 5}},
                                      {{2, 3, 6}, {2, 1, 0}}}) {
        c.dtype = c.weightType = dtype;
        c.affine = mode & 1;
        c.relu = mode & 2;
        c.gap = mode == 3 ? 4 : 0;
        expectCorrect(c);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(BatchNormOnDevice, planesOfEveryLength) {
  for (int64_t n = 1; n <= 33; n++) {
    expectCorrect({{3, 2, n}, {}, n % 3 ? DType::float32 : DType::bfloat16});
    if (HasFatalFailure()) return;
  }
}

TEST_P(BatchNormOnDevice, manyChunks) {
  expectCorrect({{6, 2, 64, 64}});
  expectCorrect({{6, 3, 61, 61}, {}, DType::float32, DType::float32, true, true});
  expectCorrect({{4, 16, 40, 40}, {0, 2, 3, 1}, DType::bfloat16});
  expectCorrect({{4, 5, 37, 37}, {0, 2, 3, 1}});
  expectCorrect({{20000, 1}});
  expectCorrect({{3, 300}});
}

TEST_P(BatchNormOnDevice, weightsInFloat32) {
  for (DType dtype : {DType::bfloat16, DType::float16}) {
    expectCorrect({{5, 6, 4, 4}, {}, dtype, DType::float32, true, true});
    expectCorrect({{5, 16, 3, 4}, {0, 2, 3, 1}, dtype});
  }
}

// The mean is subtracted before anything is squared, so that a large one does no harm.
TEST_P(BatchNormOnDevice, aLargeMeanCostsNoAccuracyButItsOwnRounding) {
  for (double shift : {100., 10000.}) {
    expectCorrect({{8, 3, 11, 11}, {}, DType::float32, DType::float32, true, false, 0, shift});
    expectCorrect({{500, 3}, {}, DType::float32, DType::float32, true, false, 0, shift});
    expectCorrect({{70, 1, 400}, {}, DType::float32, DType::float32, true, false, 0, shift});
  }
}

TEST_P(BatchNormOnDevice, gradientsOfAnotherLayout) {
  // dy is expanded from one number for each channel; dx is channels last, x is not.
  const Values x = randomValues(120, -2, 2), each = {1, -2, 0.5};
  const DeviceTensor xs(DType::float32, {4, 3, 10}, x), dys(DType::float32, {3}, each);
  View dy = dys;
  dy.ndim = 3;
  for (int i = 0; i < 3; i++) dy.size[i] = xs.view.size[i], dy.stride[i] = i == 1;
  const DeviceTensor dx = DeviceTensor::empty(DType::float32, {4, 10, 3}).permuted({0, 2, 1});
  const DeviceTensor y = DeviceTensor::empty(DType::float32, {4, 10, 3}).permuted({0, 2, 1});
  const DeviceTensor mean = DeviceTensor::empty(DType::float32, {3});
  const DeviceTensor rstd = DeviceTensor::empty(DType::float32, {3});
  const DeviceTensor dweight(DType::float32, {3}, {2}, 0, 6), dbias(DType::float32, {3}, {2}, 1, 6);
  backend::batchNorm(
      {y, mean, rstd, xs, nullptr, nullptr, nullptr, nullptr, kMomentum, kEps, false});
  backend::batchNormBackward({dx, dweight, dbias, dy, xs, nullptr, nullptr, mean, rstd, false});
  Values full;
  for (size_t i = 0; i < 120; i++) full.push_back(each[i / 10 % 3]);
  const Expected e = reference(x, full, {}, {}, 3, 10, false, {});
  expectClose(y.read(), e.y, 2e-6);
  expectClose(dx.read(), e.dx, 4e-6);
  expectClose(dweight.read(), e.dweight, 1e-5);
  expectClose(dbias.read(), e.dbias, 1e-6);
}

TEST_P(BatchNormOnDevice, ofNothing) {
  const DeviceTensor x = DeviceTensor::empty(DType::float32, {0, 3, 2});
  const DeviceTensor s(DType::float32, {3}, {7, 7, 7});
  const DeviceTensor dweight = DeviceTensor::empty(DType::float32, {3});
  const DeviceTensor dbias = DeviceTensor::empty(DType::float32, {3});
  backend::batchNorm({x, s, s, x, nullptr, nullptr, &s.view, &s.view, kMomentum, kEps, false});
  backend::batchNormBackward({x, dweight, dbias, x, x, nullptr, nullptr, s, s, false});
  EXPECT_EQ(dweight.read(), Values(3, 0));
  EXPECT_EQ(dbias.read(), Values(3, 0));
  EXPECT_EQ(s.read(), Values(3, 7)) << "running averages stay";
}

TEST_P(BatchNormOnDevice, nanStaysInItsChannel) {
  for (const auto& order : {std::vector<int>{0, 1, 2}, {0, 2, 1}}) {
    for (bool relu : {false, true}) {
      Values x = randomValues(120, -2, 2);
      x[25] = NAN;
      const Case c{{2, 3, 20}, order};
      const DeviceTensor xs = placed(c, 0, &x), y = placed(c, 0, nullptr);
      const DeviceTensor mean = DeviceTensor::empty(DType::float32, {3});
      const DeviceTensor rstd = DeviceTensor::empty(DType::float32, {3});
      backend::batchNorm(
          {y, mean, rstd, xs, nullptr, nullptr, nullptr, nullptr, kMomentum, kEps, relu});
      const Values got = y.read();
      for (size_t i = 0; i < got.size(); i++) EXPECT_EQ(std::isnan(got[i]), i / 20 % 3 == 1);
    }
  }
}

}  // namespace
}  // namespace adjoint::test
