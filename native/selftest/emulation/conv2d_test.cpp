// conv2d and its gradients against float64 loops over every tap: as the backend chooses, and by the
// kernels of our own.
#include "cuda/conv2d.h"

#include <algorithm>
#include <limits>

#include "../conv2d_case.h"
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class ConvolutionOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(ConvolutionOnDevice);

enum class Layout { inOrder, channelsLast, gaps };

// The same elements, laid out otherwise.
DeviceTensor laidOut(DType dtype, const Sizes& z, Layout layout) {
  const int64_t n = z[0], c = z[1], h = z[2], w = z[3];
  const size_t count = static_cast<size_t>(n * c * h * w);
  if (layout == Layout::channelsLast) {
    return DeviceTensor(dtype, z, {h * w * c, 1, w * c, c}, 0, count);
  }
  if (layout == Layout::gaps) {
    return DeviceTensor(dtype, z, {c * h * w * 3, h * w * 3, w * 3, 3}, 1, count * 3 + 1);
  }
  return DeviceTensor::empty(dtype, z);
}
DeviceTensor filled(DType dtype, const Sizes& sizes, Layout layout, const Values& values) {
  const DeviceTensor t = laidOut(dtype, sizes, layout);
  backend::copy(t, DeviceTensor(dtype, sizes, values));
  return t;
}

// |got - want| <= 16 roundings of the sum of the magnitudes and two of the result (a bias may be
// added to what was rounded).
void expectSums(const DeviceTensor& got, const Values& want, const Values& magnitude,
                const char* what, const Case& z) {
  const DType dtype = got.view.dtype;
  const double unit = dtype == DType::float64 ? 0x1p-52 : 0x1p-23;
  const double last = itemSize(dtype) == 2 ? epsilonOf(dtype) : 0;
  const Values values = got.read();
  ASSERT_EQ(values.size(), want.size());
  for (size_t i = 0; i < want.size(); i++) {
    const double allowed =
        16 * unit * magnitude[i] + last * std::fabs(want[i]) + (last > 0 ? 1e-6 : 0);
    ASSERT_TRUE(std::fabs(values[i] - want[i]) <= allowed)
        << what << " at " << i << ": got " << values[i] << ", expected " << want[i] << ", "
        << dtypeName(dtype) << ", " << z;
  }
}

struct Sums {
  explicit Sums(size_t n) : value(n), magnitude(n) {}
  void add(int64_t i, double x) {
    value[static_cast<size_t>(i)] += x;
    magnitude[static_cast<size_t>(i)] += std::fabs(x);
  }
  Values value, magnitude;
};

cuda::Conv2d directly(cuda::Conv2dOp op, const Case& z, const View& x, const View& w,
                      const View& y) {
  cuda::Conv2d c{};
  c.op = op;
  c.dtype = x.dtype;
  c.shape = z.shape;
  for (auto [tensor, view] : {std::pair(&c.x, &x), std::pair(&c.w, &w), std::pair(&c.y, &y)}) {
    tensor->data = view->data;
    std::copy(view->size, view->size + 4, tensor->size);
    std::copy(view->stride, view->stride + 4, tensor->stride);
  }
  return c;
}

class Convolutions {
 public:
  Convolutions(const Case& z, DType dtype, Layout layout) : z(z), dtype(dtype), layout(layout) {}

  void check() {
    const Sizes xSizes{z.n, z.c, z.h, z.w}, wSizes{z.k, z.c / z.shape.groups, z.r, z.s};
    const Sizes ySizes{z.n, z.k, z.p(), z.q()};
    const auto values = [&](const Sizes& s, unsigned seed) {
      return randomValues(s[0] * s[1] * s[2] * s[3], -2, 2, dtype, seed);
    };
    xs = values(xSizes, 1);
    ws = values(wSizes, 2);
    dys = values(ySizes, 3);
    biases = randomValues(z.k, -2, 2, dtype, 4);
    const DeviceTensor x = filled(dtype, xSizes, layout, xs), w = filled(dtype, wSizes, layout, ws);
    const DeviceTensor dy = filled(dtype, ySizes, layout, dys);
    DeviceTensor bias(dtype, {z.k}, {2}, 0, static_cast<size_t>(2 * z.k));  // with gaps
    backend::copy(bias, DeviceTensor(dtype, {z.k}, biases));
    const DeviceTensor denseBias(dtype, {z.k}, biases);
    const DeviceTensor y = laidOut(dtype, ySizes, layout), dx = laidOut(dtype, xSizes, layout);
    const DeviceTensor dw = laidOut(dtype, wSizes, layout);
    sum();

    backend::conv2d(y, x, w, nullptr, z.shape);
    expectSums(y, ySum.value, ySum.magnitude, "y", z);
    cuda::Conv2d c = directly(cuda::Conv2dOp::forward, z, x, w, y);
    poison(y);
    cuda::convolveDirectly(c, cuda::stream());
    expectSums(y, ySum.value, ySum.magnitude, "y, directly", z);
    const int64_t pixels = z.p() * z.q();
    for (size_t i = 0; i < ySum.value.size(); i++) {
      ySum.add(static_cast<int64_t>(i),
               biases[i / static_cast<size_t>(pixels) % static_cast<size_t>(z.k)]);
    }
    backend::conv2d(y, x, w, &bias.view, z.shape);
    expectSums(y, ySum.value, ySum.magnitude, "y with bias", z);
    for (double& sum : ySum.value) sum = std::max(sum, 0.0);
    poison(y);
    c.bias = denseBias.view.data;
    c.relu = true;
    cuda::convolveDirectly(c, cuda::stream());
    expectSums(y, ySum.value, ySum.magnitude, "y, rectified, directly", z);
    poison(y);
    backend::conv2d(y, x, w, &bias.view, z.shape, true);
    expectSums(y, ySum.value, ySum.magnitude, "y, rectified", z);
    checkParameters(x, y, dy);

    backend::conv2dBackwardInput(dx, dy, w, z.shape);
    expectSums(dx, dxSum.value, dxSum.magnitude, "dx", z);
    poison(dx);
    cuda::convolveDirectly(directly(cuda::Conv2dOp::backwardInput, z, dx, w, dy), cuda::stream());
    expectSums(dx, dxSum.value, dxSum.magnitude, "dx, directly", z);
    backend::conv2dBackwardWeight(dw, dy, x, z.shape);
    expectSums(dw, dwSum.value, dwSum.magnitude, "dw", z);
    poison(dw);
    cuda::convolveDirectly(directly(cuda::Conv2dOp::backwardWeight, z, x, dw, dy), cuda::stream());
    expectSums(dw, dwSum.value, dwSum.magnitude, "dw, directly", z);
  }

 private:
  static void poison(const DeviceTensor& t) {
    backend::fill(t, Scalar::of(std::numeric_limits<double>::quiet_NaN()));
  }

  void sum() {
    forEachTap(z, [&](int64_t i, int64_t j, int64_t k) {
      const double xValue = xs[static_cast<size_t>(j)], wValue = ws[static_cast<size_t>(k)];
      const double g = dys[static_cast<size_t>(i)];
      ySum.add(i, xValue * wValue);
      dxSum.add(j, g * wValue);
      dwSum.add(k, g * xValue);
    });
  }

  // The gradients of filters and bias in one call, of a result that was rectified or not.
  void checkParameters(const DeviceTensor& x, const DeviceTensor& y, const DeviceTensor& dy) {
    const Values ys = y.read();
    for (bool rectified : {false, true}) {
      Sums filters(ws.size()), bias(static_cast<size_t>(z.k));
      const auto g = [&](int64_t i) {
        const auto at = static_cast<size_t>(i);
        return rectified && ys[at] <= 0 ? 0 : dys[at];
      };
      forEachTap(z, [&](int64_t i, int64_t j, int64_t k) {
        filters.add(k, g(i) * xs[static_cast<size_t>(j)]);
      });
      for (size_t i = 0; i < dys.size(); i++) {
        const auto at = static_cast<int64_t>(i);
        bias.add(at / (z.p() * z.q()) % z.k, g(at));
      }
      const DeviceTensor dw = laidOut(dtype, {z.k, z.c / z.shape.groups, z.r, z.s}, layout);
      const DeviceTensor dbias = DeviceTensor::empty(dtype, {z.k});
      backend::conv2dBackwardParameters(dw, dbias, dy, x, rectified ? &y.view : nullptr, z.shape);
      expectSums(dw, filters.value, filters.magnitude, "dw with dbias", z);
      expectSums(dbias, bias.value, bias.magnitude, "dbias", z);
    }
  }

  const Case z;
  const DType dtype;
  const Layout layout;
  Values xs, ws, dys, biases;
  Sums ySum{static_cast<size_t>(z.n * z.k * z.p() * z.q())};
  Sums dxSum{static_cast<size_t>(z.n * z.c * z.h * z.w)};
  Sums dwSum{static_cast<size_t>(z.k * z.c / z.shape.groups * z.r * z.s)};
};

#define RETURN_IF_FAILED() \
  if (testing::Test::HasFatalFailure()) return

const Case kCases[] = {
    {1, 1, 1, 1, 1, 1, 1, {1, 1, 0, 0, 1, 1, 1}},   {2, 3, 7, 6, 5, 3, 3, {1, 1, 1, 1, 1, 1, 1}},
    {2, 4, 9, 11, 6, 3, 2, {2, 3, 1, 0, 1, 2, 2}},   // groups, strides, dilation
    {1, 6, 8, 7, 12, 3, 3, {1, 1, 1, 1, 1, 1, 6}},   // depthwise
    {2, 5, 9, 8, 5, 3, 3, {2, 2, 2, 2, 2, 2, 5}},    // and dilated
    {2, 8, 6, 6, 16, 3, 3, {1, 1, 1, 1, 1, 1, 1}},   // channels by eights
    {3, 16, 5, 4, 8, 1, 1, {2, 2, 0, 0, 1, 1, 1}},   // a shortcut with stride
    {1, 3, 12, 13, 9, 5, 4, {3, 2, 3, 4, 1, 2, 1}},  // padding beyond the window's middle
    {2, 3, 5, 5, 70, 2, 2, {1, 1, 0, 0, 1, 1, 1}},   // more rows than a tile has
    {1, 20, 4, 17, 7, 3, 3, {1, 1, 1, 1, 1, 1, 1}},  // several tiles of depth
    {5, 2, 15, 15, 6, 3, 3, {1, 1, 1, 1, 1, 1, 1}},  // pixels in several chunks
    {2, 2, 3, 3, 2, 3, 3, {1, 1, 0, 0, 1, 1, 1}},    // one pixel
};

TEST_P(ConvolutionOnDevice, everyShapeLayoutAndDtype) {
  for (const Case& z : kCases) {
    for (DType dtype : kFloats) {
      Convolutions(z, dtype, Layout::inOrder).check();
      RETURN_IF_FAILED();
    }
    for (DType dtype : {DType::float32, DType::float16}) {
      for (Layout layout : {Layout::channelsLast, Layout::gaps}) {
        Convolutions(z, dtype, layout).check();
        RETURN_IF_FAILED();
      }
    }
  }
}

TEST_P(ConvolutionOnDevice, manyBlocks) {
  Convolutions({3, 8, 16, 20, 70, 3, 3, {1, 1, 1, 1, 1, 1, 1}}, DType::float32, Layout::inOrder)
      .check();
}

// A result in another order of axes than its operands.
TEST_P(ConvolutionOnDevice, mixedLayouts) {
  const Case z{2, 8, 5, 6, 16, 3, 3, {1, 1, 1, 1, 1, 1, 1}};
  for (DType dtype : {DType::float32, DType::float16}) {
    const Values xs = randomValues(z.n * z.c * z.h * z.w, -2, 2);
    const Values ws = randomValues(z.k * z.c * z.r * z.s, -2, 2, dtype, 2);
    Sums want(static_cast<size_t>(z.n * z.k * z.p() * z.q()));
    forEachTap(z, [&](int64_t i, int64_t j, int64_t k) {
      want.add(i, xs[static_cast<size_t>(j)] * ws[static_cast<size_t>(k)]);
    });
    for (Layout xLayout : {Layout::inOrder, Layout::channelsLast}) {
      for (Layout yLayout : {Layout::inOrder, Layout::channelsLast, Layout::gaps}) {
        const DeviceTensor x = filled(dtype, {z.n, z.c, z.h, z.w}, xLayout, xs);
        const DeviceTensor w = filled(dtype, {z.k, z.c, z.r, z.s}, Layout::inOrder, ws);
        const DeviceTensor y = laidOut(dtype, {z.n, z.k, z.p(), z.q()}, yLayout);
        backend::conv2d(y, x, w, nullptr, z.shape);
        expectSums(y, want.value, want.magnitude, "y", z);
        RETURN_IF_FAILED();
      }
    }
  }
}

// Sums of nothing are 0, or the bias; nothing is written where there is nothing.
TEST_P(ConvolutionOnDevice, emptyBatchesChannelsAndImages) {
  const backend::Conv2dShape s{1, 1, 1, 1, 1, 1, 1};
  const auto empty = [](const Sizes& sizes) { return DeviceTensor::empty(DType::float32, sizes); };
  const DeviceTensor bias(DType::float32, {2}, Values{1.5, -2});
  backend::conv2d(empty({0, 2, 4, 4}), empty({0, 3, 4, 4}), empty({2, 3, 3, 3}), &bias.view, s);
  backend::conv2dBackwardInput(empty({0, 3, 4, 4}), empty({0, 2, 4, 4}), empty({2, 3, 3, 3}), s);
  const DeviceTensor dw = empty({2, 3, 3, 3}), dbias = empty({2}), y = empty({1, 2, 2, 1});
  backend::conv2dBackwardParameters(dw, dbias, empty({0, 2, 4, 4}), empty({0, 3, 4, 4}), nullptr,
                                    s);
  expectClose(dw.read(), Values(54, 0), 0);
  expectClose(dbias.read(), {0, 0}, 0);
  // no channels; an image of padding alone
  backend::conv2d(y, empty({1, 0, 2, 1}), empty({2, 0, 3, 3}), &bias.view, s);
  expectClose(y.read(), {1.5, 1.5, -2, -2}, 0);
  const DeviceTensor padding = empty({1, 2, 1, 2});
  const DeviceTensor w(DType::float32, {2, 1, 2, 1}, Values{1, 2, 3, 4});
  backend::conv2d(padding, empty({1, 1, 0, 2}), w, &bias.view, {1, 1, 1, 0, 1, 1, 1}, true);
  expectClose(padding.read(), {1.5, 1.5, 0, 0}, 0);
}

// A NaN in x reaches the pixels that see it, through the ReLU too, and no others: where the library
// takes tiles (Winograd), a few others.
TEST_P(ConvolutionOnDevice, nanReachesWhatSeesIt) {
  for (const Case& z : {Case{1, 2, 6, 7, 3, 3, 3, {1, 1, 1, 1, 1, 1, 1}},
                        Case{1, 2, 6, 7, 2, 3, 3, {1, 1, 1, 1, 1, 1, 2}},
                        Case{1, 8, 6, 7, 8, 3, 3, {2, 2, 1, 1, 1, 1, 1}}}) {
    for (DType dtype : {DType::float32, DType::bfloat16}) {
      Values xs = randomValues(z.n * z.c * z.h * z.w, -2, 2);
      const int64_t at = 7 * 3 + 6;
      xs[static_cast<size_t>(at)] = std::numeric_limits<double>::quiet_NaN();
      const int64_t wCount = z.k * z.c / z.shape.groups * z.r * z.s;
      const DeviceTensor x(dtype, {z.n, z.c, z.h, z.w}, xs);
      const DeviceTensor w(dtype, {z.k, z.c / z.shape.groups, z.r, z.s},
                           Values(static_cast<size_t>(wCount), 0.5));
      const DeviceTensor y = DeviceTensor::empty(dtype, {z.n, z.k, z.p(), z.q()});
      const DeviceTensor bias(dtype, {z.k}, Values(static_cast<size_t>(z.k), -1));
      std::vector<bool> sees(static_cast<size_t>(z.n * z.k * z.p() * z.q()));
      forEachTap(z, [&](int64_t i, int64_t j, int64_t) {
        if (j == at) sees[static_cast<size_t>(i)] = true;
      });
      cuda::Conv2d c = directly(cuda::Conv2dOp::forward, z, x, w, y);
      for (bool rectified : {false, true}) {
        c.bias = rectified ? bias.view.data : nullptr;
        c.relu = rectified;
        cuda::convolveDirectly(c, cuda::stream());
        const Values own = y.read();
        backend::conv2d(y, x, w, rectified ? &bias.view : nullptr, z.shape, rectified);
        const Values got = y.read();
        for (size_t i = 0; i < got.size(); i++) {
          ASSERT_EQ(std::isnan(own[i]), sees[i]) << i << ", " << z;
          ASSERT_TRUE(std::isnan(got[i]) || !sees[i]) << i << ", " << z;
        }
      }
    }
  }
}

// Products of float32 may be rounded to 11 bits where that is allowed.
TEST_P(ConvolutionOnDevice, withTf32) {
  const Case z{2, 8, 9, 10, 16, 3, 3, {1, 1, 1, 1, 1, 1, 1}};
  const Values xs = randomValues(z.n * z.c * z.h * z.w, -2, 2);
  const Values ws = randomValues(z.k * z.c * z.r * z.s, -2, 2, DType::float32, 2);
  const DeviceTensor x(DType::float32, {z.n, z.c, z.h, z.w}, xs);
  const DeviceTensor w(DType::float32, {z.k, z.c, z.r, z.s}, ws);
  const DeviceTensor y = DeviceTensor::empty(DType::float32, {z.n, z.k, z.p(), z.q()});
  Sums want(static_cast<size_t>(z.n * z.k * z.p() * z.q()));
  forEachTap(z, [&](int64_t i, int64_t j, int64_t k) {
    want.add(i, xs[static_cast<size_t>(j)] * ws[static_cast<size_t>(k)]);
  });
  backend::setFloat32Products(backend::Float32Products::high);
  backend::conv2d(y, x, w, nullptr, z.shape);
  backend::setFloat32Products(backend::Float32Products::highest);
  const Values got = y.read();
  for (size_t i = 0; i < got.size(); i++) {
    ASSERT_NEAR(got[i], want.value[i], 0x1p-9 * want.magnitude[i]) << i;
  }
}

TEST_P(ConvolutionOnDevice, whichWantChannelsLast) {
  using backend::Float32Products;
  if (!cuda::hasConvolutionLibrary()) GTEST_SKIP() << cuda::convolutionLibrary();
  const bool isAmpere = cuda::computeCapability() >= 80;
  for (auto products : {Float32Products::highest, Float32Products::high}) {
    backend::setFloat32Products(products);
    EXPECT_TRUE(backend::convolvesChannelsLast(DType::float16));
    EXPECT_EQ(backend::convolvesChannelsLast(DType::bfloat16), isAmpere);
    EXPECT_EQ(backend::convolvesChannelsLast(DType::float32),
              isAmpere && products == Float32Products::high);
    EXPECT_FALSE(backend::convolvesChannelsLast(DType::float64));
  }
  backend::setFloat32Products(Float32Products::highest);
}

TEST_P(ConvolutionOnDevice, theSameBitsEveryTime) {
  const Case z{4, 8, 17, 15, 16, 3, 3, {1, 1, 1, 1, 1, 1, 1}};
  for (DType dtype : {DType::float32, DType::bfloat16}) {
    const auto values = [&](int64_t n, unsigned seed) {
      Values v = randomValues(n, -2, 2, DType::float32, seed);
      for (double& x : v) x *= 0.3;
      return v;
    };
    const DeviceTensor x(dtype, {z.n, z.c, z.h, z.w}, values(z.n * z.c * z.h * z.w, 1));
    const DeviceTensor dy(dtype, {z.n, z.k, z.p(), z.q()}, values(z.n * z.k * z.p() * z.q(), 2));
    Values first;
    for (int repeat = 0; repeat < 3; repeat++) {
      const DeviceTensor dw = DeviceTensor::empty(dtype, {z.k, z.c, z.r, z.s});
      backend::conv2dBackwardWeight(dw, dy, x, z.shape);
      Values all = dw.read();
      cuda::convolveDirectly(directly(cuda::Conv2dOp::backwardWeight, z, x, dw, dy),
                             cuda::stream());
      const Values own = dw.read();
      all.insert(all.end(), own.begin(), own.end());
      if (repeat == 0) first = all;
      EXPECT_EQ(first, all);
    }
  }
}

}  // namespace
}  // namespace adjoint::test
