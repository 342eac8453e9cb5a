// Layer norm, RMS norm and their gradients against float64 loops.
#include <algorithm>
#include <string>

#include "device_tensor.h"

namespace adjoint::test {
namespace {

class LayerNormOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(LayerNormOnDevice);

constexpr double kEps = 1e-5;

struct Rows {
  Values mean, rstd, y, dx, dweight, dbias;
};

// Of rows of `length` elements; weight and bias may be empty.
Rows reference(const Values& x, const Values& dy, const Values& weight, const Values& bias,
               size_t length, bool centred) {
  const size_t n = x.size(), rows = n / length;
  Rows e{Values(rows), Values(rows), Values(n), Values(n), Values(length), Values(length)};
  for (size_t row = 0; row < rows; row++) {
    const size_t at = row * length;
    long double squares = 0, sumG = 0, sumGX = 0, sum = 0;
    for (size_t i = 0; i < length; i++) sum += centred ? x[at + i] : 0;
    const auto count = static_cast<long double>(length);
    e.mean[row] = static_cast<double>(sum / count);
    for (size_t i = 0; i < length; i++) squares += std::pow(x[at + i] - e.mean[row], 2);
    e.rstd[row] = static_cast<double>(1 / std::sqrt(squares / count + kEps));
    const auto xhat = [&](size_t i) { return (x[at + i] - e.mean[row]) * e.rstd[row]; };
    const auto g = [&](size_t i) { return dy[at + i] * (weight.empty() ? 1 : weight[i]); };
    for (size_t i = 0; i < length; i++) {
      e.y[at + i] = xhat(i) * (weight.empty() ? 1 : weight[i]) + (bias.empty() ? 0 : bias[i]);
      e.dweight[i] += dy[at + i] * xhat(i);
      e.dbias[i] += dy[at + i];
      sumG += centred ? g(i) : 0;
      sumGX += g(i) * xhat(i);
    }
    for (size_t i = 0; i < length; i++) {
      e.dx[at + i] = e.rstd[row] * static_cast<double>(g(i) - (sumG + xhat(i) * sumGX) / count);
    }
  }
  return e;
}

struct Case {
  Sizes shape;
  int axes = 1;  // how many of the last are normalised
  DType dtype = DType::float32, weightType = DType::float32;
  bool affine = true, centred = true;
  int64_t offset = 0;  // of x within its block
  double shift = 0;
};

// x of these values, `offset` elements into its block.
DeviceTensor placed(const Case& c, const Values& values) {
  const DeviceTensor dense(c.dtype, c.shape, values);
  if (c.offset == 0) return dense;
  const DeviceTensor x(c.dtype, c.shape, {}, c.offset, values.size() + size_t(c.offset));
  backend::copy(x, dense);
  return x;
}

void expectCorrect(const Case& c) {
  SCOPED_TRACE(std::string(dtypeName(c.dtype)) + (c.centred ? " layer norm" : " RMS norm") +
               " of " + std::to_string(c.shape[0]) + " x … x " + std::to_string(c.shape.back()));
  const auto split = c.shape.end() - c.axes;
  const Sizes outer(c.shape.begin(), split), inner(split, c.shape.end());
  int64_t length = 1, rows = 1;
  for (int64_t s : inner) length *= s;
  for (int64_t s : outer) rows *= s;
  const DType wide = c.dtype == DType::float64 ? DType::float64 : DType::float32;
  Values x = randomValues(rows * length, -2, 2, c.dtype, 1);
  for (double& v : x) v += c.shift;
  const Values dy = randomValues(rows * length, -2, 2, c.dtype, 2);
  const Values w = c.affine ? randomValues(length, -2, 2, c.dtype, 3) : Values();
  const Values b = c.affine && c.centred ? randomValues(length, -2, 2, c.dtype, 4) : Values();
  const DeviceTensor xs = placed(c, x), dys = placed(c, dy);
  const DeviceTensor y = placed(c, x), dx = placed(c, x);
  const DeviceTensor mean = DeviceTensor::empty(wide, outer);
  const DeviceTensor rstd = DeviceTensor::empty(wide, outer);
  const DeviceTensor weight(c.weightType, inner, w.empty() ? Values(size_t(length)) : w);
  const DeviceTensor bias(c.weightType, inner, b.empty() ? Values(size_t(length)) : b);
  const DeviceTensor dweight = DeviceTensor::empty(c.weightType, inner);
  const DeviceTensor dbias = DeviceTensor::empty(c.weightType, inner);
  const View* means = c.centred ? &mean.view : nullptr;
  const View* weights = w.empty() ? nullptr : &weight.view;
  backend::layerNorm({y, rstd, xs, means, weights, b.empty() ? nullptr : &bias.view, kEps});
  backend::layerNormBackward(
      {dx, dweight, dys, xs, rstd, c.centred ? &dbias.view : nullptr, weights, means});

  const Rows e = reference(x, dy, w, b, static_cast<size_t>(length), c.centred);
  const double u = epsilonOf(c.dtype), wideU = epsilonOf(wide), large = 1 + c.shift;
  const double sums = std::sqrt(static_cast<double>(rows)) * 16;
  expectClose(y.read(), e.y, 2 * u + 16 * wideU * large);
  if (c.centred) expectClose(mean.read(), e.mean, 4 * wideU);
  expectClose(rstd.read(), e.rstd, 8 * wideU * large, 0);
  const double steepest = *std::max_element(e.rstd.begin(), e.rstd.end());
  expectClose(dx.read(), e.dx, (2 * u + 64 * wideU * large) * std::max(1.0, steepest));
  const double weightU = epsilonOf(c.weightType);
  expectClose(dweight.read(), e.dweight, 2 * weightU + sums * wideU * large);
  if (c.centred) expectClose(dbias.read(), e.dbias, 2 * weightU + sums * wideU);
}

TEST_P(LayerNormOnDevice, everyShapeAndType) {
  for (DType dtype : kFloats) {
    for (int mode = 0; mode < 4; mode++) {
      for (Case c : std::vector<Case>{{{5, 19}},
                                      {{19}},
                                      {{2, 3, 4, 5}, 2},
                                      {{50, 70}},
                                      {{9, 64}},
                                      {{4, 200}},
                                      {{3, 768}},
                                      {{3, 1000}, 1},
                                      {{9, 8}, 1, DType::float32, DType::float32, true, true, 1}}) {
        c.dtype = c.weightType = dtype;
        c.affine = mode & 1;
        c.centred = mode & 2;
        expectCorrect(c);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(LayerNormOnDevice, longRows) {
  for (DType dtype : kFloats) {
    for (const Sizes& shape : std::vector<Sizes>{{3, 4096}, {1, 9001}, {2, 16384}, {2, 20008}}) {
      if (shape[1] > 10000 && (dtype == DType::float16 || dtype == DType::float64)) continue;
      expectCorrect({shape, 1, dtype, dtype, true, shape[1] != 16384});
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(LayerNormOnDevice, manyRows) {
  expectCorrect({{3001, 24}, 1, DType::float32, DType::float32});
  expectCorrect({{2100, 16}, 1, DType::bfloat16, DType::float32});
  expectCorrect({{700, 3}, 1, DType::float32, DType::float32, true, false});
}

TEST_P(LayerNormOnDevice, rowsOfEveryLength) {
  for (int64_t n = 1; n <= 40; n++) {
    expectCorrect({{6, n}});
    expectCorrect({{6, n}, 1, DType::float32, DType::float32, true, false});
    if (HasFatalFailure()) return;
  }
}

TEST_P(LayerNormOnDevice, weightsInFloat32) {
  for (DType dtype : {DType::bfloat16, DType::float16}) {
    expectCorrect({{5, 48}, 1, dtype});
    expectCorrect({{5, 19}, 1, dtype});
    expectCorrect({{5, 1000}, 1, dtype, DType::float32, true, false});
  }
  expectCorrect({{4, 24}, 1, DType::float32, DType::float64});
}

// The mean is subtracted before anything is squared, so that a large one does no harm.
TEST_P(LayerNormOnDevice, aLargeMeanCostsNoAccuracyButItsOwnRounding) {
  for (int64_t length : {300, 301, 20001}) {
    for (double shift : {100., 10000.}) {
      expectCorrect({{2, length}, 1, DType::float32, DType::float32, true, true, 0, shift});
    }
  }
}

TEST_P(LayerNormOnDevice, stridedOperands) {
  // x is [6, 10] transposed, y and dx every other column of [10, 12]; weight is a column.
  const Values x = randomValues(60, -2, 2), dy = randomValues(60, -2, 2, DType::float32, 2);
  const Values w = randomValues(12, -2, 2, DType::float32, 3);
  const DeviceTensor xs = DeviceTensor(DType::float32, {6, 10}, x).permuted({1, 0});
  const DeviceTensor dys = DeviceTensor(DType::float32, {6, 10}, dy).permuted({1, 0});
  const DeviceTensor y(DType::float32, {10, 6}, {12, 2}, 1, 120);
  const DeviceTensor dx(DType::float32, {10, 6}, {12, 2}, 0, 120);
  DeviceTensor weight(DType::float32, {6, 2}, w);
  weight.view.ndim = 1;
  const DeviceTensor mean = DeviceTensor::empty(DType::float32, {10}), rstd = mean;
  const DeviceTensor means = DeviceTensor::empty(DType::float32, {10});
  const DeviceTensor dweight(DType::float32, {6}, {2}, 0, 12);
  const DeviceTensor dbias(DType::float32, {6}, {3}, 1, 18);
  backend::layerNorm({y, rstd, xs, &means.view, &weight.view, nullptr, kEps});
  backend::layerNormBackward({dx, dweight, dys, xs, rstd, &dbias.view, &weight.view, &means.view});
  Values xRows, dyRows, column;
  for (size_t i = 0; i < 10; i++) {
    for (size_t j = 0; j < 6; j++) xRows.push_back(x[j * 10 + i]), dyRows.push_back(dy[j * 10 + i]);
  }
  for (size_t j = 0; j < 6; j++) column.push_back(w[2 * j]);
  const Rows e = reference(xRows, dyRows, column, {}, 6, true);
  expectClose(y.read(), e.y, 1e-6);
  expectClose(dx.read(), e.dx, 2e-6);
  expectClose(dweight.read(), e.dweight, 2e-6);
  expectClose(dbias.read(), e.dbias, 2e-6);
}

TEST_P(LayerNormOnDevice, ofNothing) {
  const DeviceTensor x = DeviceTensor::empty(DType::float32, {0, 3});
  const DeviceTensor none = DeviceTensor::empty(DType::float32, {0});
  const DeviceTensor dweight = DeviceTensor::empty(DType::float32, {3});
  const DeviceTensor dbias = DeviceTensor::empty(DType::float32, {3});
  backend::layerNorm({x, none, x, &none.view, nullptr, nullptr, kEps});
  backend::layerNormBackward({x, dweight, x, x, none, &dbias.view, nullptr, &none.view});
  EXPECT_EQ(dweight.read(), Values(3, 0));
  EXPECT_EQ(dbias.read(), Values(3, 0));
  const DeviceTensor empty = DeviceTensor::empty(DType::float32, {2, 0});
  const DeviceTensor mean = DeviceTensor::empty(DType::float32, {2});
  const DeviceTensor rstd = DeviceTensor::empty(DType::float32, {2});
  backend::layerNorm({empty, rstd, empty, &mean.view, nullptr, nullptr, kEps});
  EXPECT_TRUE(std::isnan(mean.read()[1]) && std::isnan(rstd.read()[1]));
}

TEST_P(LayerNormOnDevice, nanAndInfinityStayInTheirRow) {
  for (size_t length : {21u, 40u, 20001u}) {
    for (double bad : {double(NAN), double(INFINITY)}) {
      for (bool centred : {false, true}) {
        Values x = randomValues(static_cast<int64_t>(3 * length), -2, 2);
        x[2 * length - 1] = bad;
        const Sizes shape = {3, static_cast<int64_t>(length)};
        const DeviceTensor xs(DType::float32, shape, x);
        const DeviceTensor y = DeviceTensor::empty(DType::float32, shape);
        const DeviceTensor mean = DeviceTensor::empty(DType::float32, {3});
        const DeviceTensor rstd = DeviceTensor::empty(DType::float32, {3});
        backend::layerNorm({y, rstd, xs, centred ? &mean.view : nullptr, nullptr, nullptr, kEps});
        const Values got = y.read();
        for (size_t i = 0; i < got.size(); i++) {
          if (i / length != 1) {
            ASSERT_TRUE(std::isfinite(got[i])) << i;
          }
        }
        EXPECT_TRUE(std::isnan(got[2 * length - 1]));
      }
    }
  }
}

// With eps 0, rounding must not make the variance negative.
TEST_P(LayerNormOnDevice, constantRowsHaveNoVariance) {
  const DeviceTensor x(DType::float32, {2, 24}, Values(48, 0.1));
  const DeviceTensor y = DeviceTensor::empty(DType::float32, {2, 24});
  const DeviceTensor mean = DeviceTensor::empty(DType::float32, {2});
  const DeviceTensor rstd = DeviceTensor::empty(DType::float32, {2});
  backend::layerNorm({y, rstd, x, &mean.view, nullptr, nullptr, 0});
  for (double r : rstd.read()) EXPECT_GT(r, 1e6);
}

TEST_P(LayerNormOnDevice, refusesIntegers) {
  const DeviceTensor x(DType::int32, {2, 3}, Values(6, 1));
  const DeviceTensor s = DeviceTensor::empty(DType::float32, {2});
  EXPECT_THROW(backend::layerNorm({x, s, x, &s.view, nullptr, nullptr, kEps}), Error);
}

}  // namespace
}  // namespace adjoint::test
