// conv2d and its gradients against float64 loops over every tap.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "conv2d_case.h"
#include "cpu/conv2d_bf16.h"
#include "cpu/features.h"
#include "test_tensor.h"

namespace adjoint::cpu::emulated_amx {
extern const Bf16Multiply multiplyBf16;
}

namespace adjoint {
namespace {

// The three functions, as the backend chooses their form, or in tiles by AMX as C++ defines it.
struct Backend {
  virtual ~Backend() = default;
  virtual void forward(const View& y, const View& x, const View& w, const View* bias,
                       const Conv2dShape& shape) const {
    backend::conv2d(y, x, w, bias, shape);
  }
  virtual void input(const View& dx, const View& dy, const View& w,
                     const Conv2dShape& shape) const {
    backend::conv2dBackwardInput(dx, dy, w, shape);
  }
  virtual void weight(const View& dw, const View& dy, const View& x,
                      const Conv2dShape& shape) const {
    backend::conv2dBackwardWeight(dw, dy, x, shape);
  }
};
struct Tiles : Backend {
  void forward(const View& y, const View& x, const View& w, const View* bias,
               const Conv2dShape& shape) const override {
    cpu::convolveTiles(y, x, w, bias, shape, cpu::emulated_amx::multiplyBf16);
  }
  void input(const View& dx, const View& dy, const View& w,
             const Conv2dShape& shape) const override {
    if (cpu::convolveTilesInput(dx, dy, w, shape, cpu::emulated_amx::multiplyBf16)) return;
    backend::conv2dBackwardInput(dx, dy, w, shape);
  }
  void weight(const View& dw, const View& dy, const View& x,
              const Conv2dShape& shape) const override {
    TestTensor sums(DType::float32, {dw.size[0], dw.size[1], dw.size[2], dw.size[3]});
    cpu::convolveTilesWeight(sums.view(), dy, x, shape, cpu::emulated_amx::multiplyBf16);
    backend::copy(dw, sums.view());
  }
};

// got = sum of products, to 16 roundings of the sum of their magnitudes and one of the result.
void expectSums(const TestTensor& got, const std::vector<double>& sum,
                const std::vector<double>& magnitude, const char* what, const Case& z) {
  const DType dtype = got.view().dtype;
  const double u = dtype == DType::float64 ? 0x1p-53 : 0x1p-24;
  const double last = dtype == DType::bfloat16 ? 0x1p-8 : dtype == DType::float16 ? 0x1p-11 : 0;
  const std::vector<double> values = got.values();
  for (size_t i = 0; i < sum.size(); i++) {
    const double error = std::abs(values[i] - sum[i]);
    ASSERT_LE(error, 16 * u * magnitude[i] + 1.01 * last * std::abs(sum[i]) + 1e-7 * (last > 0))
        << what << " at " << i << " of " << z;
  }
}

// The gradients of filters and bias in one call, of a result that was rectified (to y) or not.
void expectParameterGradients(const Case& z, const TestTensor& dy, const TestTensor& x,
                              const TestTensor& y, const std::vector<int>& order, int64_t gap) {
  const DType dtype = dy.view().dtype;
  const std::vector<double> dys = dy.values(), xs = x.values(), ys = y.values();
  for (bool rectified : {false, true}) {
    TestTensor dw(dtype, {z.k, z.c / z.shape.groups, z.r, z.s}, order, gap), dbias(dtype, {z.k});
    std::vector<double> dwSum(dw.numel()), dwScale(dw.numel()), sum(z.k), scale(z.k);
    const auto g = [&](int64_t i) { return rectified && ys[i] <= 0 ? 0 : dys[i]; };
    forEachTap(z, [&](int64_t i, int64_t j, int64_t k) {
      dwSum[k] += g(i) * xs[j];
      dwScale[k] += std::abs(g(i) * xs[j]);
    });
    for (int64_t i = 0; i < dy.numel(); i++) {
      sum[i / (z.p() * z.q()) % z.k] += g(i);
      scale[i / (z.p() * z.q()) % z.k] += std::abs(g(i));
    }
    backend::conv2dBackwardParameters(dw.view(), dbias.view(), dy.view(), x.view(),
                                      rectified ? &y.view() : nullptr, z.shape);
    expectSums(dw, dwSum, dwScale, rectified ? "dw, rectified" : "dw with dbias", z);
    expectSums(dbias, sum, scale, rectified ? "dbias, rectified" : "dbias", z);
  }
}

void expectCorrect(const Case& z, DType dtype = DType::float32,
                   const std::vector<int>& order = kNchw, int64_t gap = 0,
                   const Backend& tried = Backend()) {
  const int64_t cg = z.c / z.shape.groups;
  TestTensor x(dtype, {z.n, z.c, z.h, z.w}, order, gap);
  TestTensor w(dtype, {z.k, cg, z.r, z.s}, order, gap), bias(dtype, {z.k});
  TestTensor y(dtype, {z.n, z.k, z.p(), z.q()}, order, gap);
  TestTensor dy(dtype, {z.n, z.k, z.p(), z.q()}, order, gap);
  TestTensor dx(dtype, {z.n, z.c, z.h, z.w}, order, gap);
  TestTensor dw(dtype, {z.k, cg, z.r, z.s}, order, gap);
  x.randomize(1);
  w.randomize(2);
  bias.randomize(3);
  dy.randomize(4);
  const std::vector<double> xs = x.values(), ws = w.values(), dys = dy.values();
  std::vector<double> ySum(y.numel()), yScale(y.numel()), dxSum(x.numel()), dxScale(x.numel());
  std::vector<double> dwSum(w.numel()), dwScale(w.numel()), biasedSum(y.numel());
  forEachTap(z, [&](int64_t i, int64_t j, int64_t k) {
    ySum[i] += xs[j] * ws[k];
    yScale[i] += std::abs(xs[j] * ws[k]);
    dxSum[j] += dys[i] * ws[k];
    dxScale[j] += std::abs(dys[i] * ws[k]);
    dwSum[k] += dys[i] * xs[j];
    dwScale[k] += std::abs(dys[i] * xs[j]);
  });
  tried.forward(y.view(), x.view(), w.view(), nullptr, z.shape);
  expectSums(y, ySum, yScale, "y", z);
  for (int64_t i = 0; i < y.numel(); i++) {
    const double b = bias.get(i / (z.p() * z.q()) % z.k);
    biasedSum[i] = ySum[i] + b;
    yScale[i] += std::abs(b);
  }
  tried.forward(y.view(), x.view(), w.view(), &bias.view(), z.shape);
  expectSums(y, biasedSum, yScale, "y with bias", z);
  for (double& sum : biasedSum) sum = std::max(sum, 0.0);
  backend::conv2d(y.view(), x.view(), w.view(), &bias.view(), z.shape, true);
  expectSums(y, biasedSum, yScale, "y, rectified", z);
  expectParameterGradients(z, dy, x, y, order, gap);
  tried.input(dx.view(), dy.view(), w.view(), z.shape);
  expectSums(dx, dxSum, dxScale, "dx", z);
  tried.weight(dw.view(), dy.view(), x.view(), z.shape);
  expectSums(dw, dwSum, dwScale, "dw", z);
}

#define RETURN_IF_FAILED() \
  if (testing::Test::HasFatalFailure()) return

TEST(Conv2d, EveryStridePaddingDilationAndGroup) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (int64_t strideH : {1, 2, 3}) {
      for (int64_t strideW : {1, 2, 3}) {
        for (int64_t padH : {0, 1, 3}) {
          for (int64_t padW : {0, 2, 4}) {
            for (int64_t dilation : {1, 2}) {
              for (int64_t groups : {1, 2}) {
                expectCorrect({2,
                               4,
                               9,
                               11,
                               6,
                               3,
                               2,
                               {strideH, strideW, padH, padW, dilation, 3 - dilation, groups}});
                RETURN_IF_FAILED();
              }
            }
          }
        }
      }
    }
  });
}

TEST(Conv2d, EveryKernelSizeAndWidth) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (int64_t r : {1, 2, 3, 5, 7}) {
      for (int64_t w : {7, 8, 15, 16, 17, 31, 33, 40}) {
        for (int64_t k : {1, 3, 20}) {
          expectCorrect({1, 3, 7, w, k, r, r, {1, 1, r / 2, r / 2, 1, 1, 1}});
          RETURN_IF_FAILED();
        }
      }
    }
  });
}

TEST(Conv2d, ShapesOfNetworks) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (const Case& z : {
             Case{3, 1, 28, 28, 32, 3, 3, {1, 1, 0, 0, 1, 1, 1}},
             Case{2, 32, 14, 14, 24, 3, 3, {1, 1, 1, 1, 1, 1, 1}},
             Case{1, 70, 8, 8, 40, 3, 3, {2, 2, 1, 1, 1, 1, 1}},  // more than two blocks of depth
             Case{2, 16, 9, 9, 33, 1, 1, {1, 1, 0, 0, 1, 1, 1}},  // pointwise
             Case{2, 16, 9, 9, 8, 1, 1, {2, 2, 0, 0, 1, 1, 2}},   // a shortcut with stride
             Case{2, 12, 10, 10, 12, 3, 3, {1, 1, 1, 1, 1, 1, 12}},  // depthwise
             Case{1, 6, 10, 10, 12, 3, 3, {2, 2, 1, 1, 1, 1, 6}},
             Case{2, 5, 19, 35, 10, 3, 3, {1, 1, 1, 1, 1, 1, 5}},
             Case{1, 3, 9, 40, 3, 5, 4, {3, 3, 2, 1, 1, 2, 3}},
             Case{1, 2, 130, 70, 2, 3, 3, {1, 1, 0, 2, 2, 1, 2}},  // depthwise in two blocks
             Case{1, 2, 60, 61, 3, 3, 3, {1, 1, 1, 1, 1, 1, 1}},   // several blocks of rows
             Case{17, 2, 5, 5, 3, 3, 3, {1, 1, 1, 1, 1, 1, 1}},    // many images: partial sums
             Case{2, 1, 12, 23, 13, 5, 5, {1, 1, 2, 2, 1, 1, 1}},  // few taps: direct
             Case{3, 3, 11, 37, 10, 3, 3, {2, 1, 1, 1, 1, 2, 1}},
             Case{2, 1, 13, 40, 7, 3, 3, {1, 2, 1, 2, 2, 1, 1}},
             Case{2, 2, 9, 50, 5, 2, 4, {1, 3, 0, 1, 1, 3, 1}},
             Case{1, 1, 300, 130, 5, 3, 3, {1, 1, 1, 1, 1, 1, 1}},  // in blocks of rows
             Case{1, 1, 1, 1, 1, 1, 1, {1, 1, 0, 0, 1, 1, 1}},
         }) {
      expectCorrect(z);
      RETURN_IF_FAILED();
    }
  });
}

TEST(Conv2d, ChannelsLastAndGaps) {
  for (const auto& order : {kNchw, kNhwc, std::vector<int>{3, 1, 0, 2}}) {
    for (int64_t gap : {0, 2}) {
      for (int64_t stride : {1, 2}) {
        expectCorrect({2, 6, 9, 12, 20, 3, 3, {stride, 1, 1, 1, 1, 1, 2}}, DType::float32, order,
                      gap);
        expectCorrect({2, 6, 9, 12, 20, 1, 1, {stride, stride, 0, 0, 1, 1, 1}}, DType::float32,
                      order, gap);
        RETURN_IF_FAILED();
      }
    }
  }
}

TEST(Conv2d, EveryFloatType) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (DType dtype : {DType::float64, DType::bfloat16, DType::float16}) {
      for (const auto& order : {kNchw, kNhwc}) {
        expectCorrect({2, 4, 9, 10, 6, 3, 3, {1, 1, 1, 1, 1, 1, 2}}, dtype, order);
        expectCorrect({2, 4, 9, 10, 6, 3, 3, {2, 2, 1, 1, 1, 1, 1}}, dtype, order);
        RETURN_IF_FAILED();
      }
    }
  });
}

void expectBf16Correct(const Backend& tried) {
  for (int64_t strideH : {1, 2, 3}) {
    for (int64_t strideW : {1, 2, 3}) {
      for (int64_t padH : {0, 3}) {
        for (int64_t padW : {1, 4}) {
          for (int64_t groups : {1, 2}) {
            const int64_t dilation = groups;
            expectCorrect({2,
                           4,
                           9,
                           11,
                           6,
                           3,
                           2,
                           {strideH, strideW, padH, padW, dilation, 3 - dilation, groups}},
                          DType::bfloat16, kNchw, 0, tried);
            RETURN_IF_FAILED();
          }
        }
      }
    }
  }
  for (const Case& z : {
           Case{3, 1, 28, 28, 32, 3, 3, {1, 1, 0, 0, 1, 1, 1}},
           Case{2, 32, 14, 14, 24, 3, 3, {1, 1, 1, 1, 1, 1, 1}},
           Case{1, 70, 8, 8, 40, 3, 3, {2, 2, 1, 1, 1, 1, 1}},
           Case{2, 16, 9, 9, 33, 1, 1, {1, 1, 0, 0, 1, 1, 1}},
           Case{2, 12, 10, 10, 12, 3, 3, {1, 1, 1, 1, 1, 1, 12}},
           Case{2, 1, 13, 40, 7, 3, 3, {1, 2, 1, 2, 2, 1, 1}},   // few taps: direct
           Case{1, 2, 60, 61, 3, 5, 7, {1, 1, 2, 3, 1, 1, 1}},   // several blocks of rows
           Case{17, 2, 5, 5, 3, 3, 3, {1, 1, 1, 1, 1, 1, 1}},    // many images: partial sums
           Case{1, 2, 3, 80, 3, 1, 3, {1, 1, 0, 30, 1, 30, 1}},  // taps far apart
           Case{1, 300, 4, 4, 40, 3, 3, {1, 1, 1, 1, 1, 1, 1}},  // a great depth
           Case{2, 16, 9, 9, 12, 3, 3, {1, 1, 1, 1, 1, 1, 2}},   // groups
           Case{2, 16, 9, 11, 12, 3, 2, {2, 3, 1, 0, 1, 1, 2}},
           Case{2, 64, 6, 8, 96, 3, 3, {1, 1, 1, 1, 1, 1, 1}},  // whole vectors, three of them
           Case{1, 33, 7, 18, 65, 3, 3, {2, 2, 1, 1, 1, 1, 1}},
           Case{1, 20, 7, 8, 16, 1, 1, {2, 2, 0, 0, 1, 1, 1}},  // pixels that no tap sees
           Case{1, 2, 5, 600, 3, 3, 3, {1, 1, 1, 1, 1, 1, 1}},  // a row longer than a block
           Case{1, 1, 1, 1, 1, 1, 1, {1, 1, 0, 0, 1, 1, 1}},
       }) {
    expectCorrect(z, DType::bfloat16, kNchw, 0, tried);
    RETURN_IF_FAILED();
  }
  for (const auto& order : {kNhwc, std::vector<int>{3, 1, 0, 2}}) {
    expectCorrect({2, 6, 9, 12, 20, 3, 3, {2, 1, 1, 1, 1, 1, 2}}, DType::bfloat16, order, 2, tried);
    RETURN_IF_FAILED();
  }
}

TEST(Conv2d, Bf16InEveryForm) {
  forEachBf16Form([](bool, bool) { expectBf16Correct(Backend()); });
}

TEST(Conv2d, Bf16InTilesAtEveryLevel) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    expectBf16Correct(Tiles());
  });
}

TEST(Conv2d, EmptyBatch) {
  const Conv2dShape shape{1, 1, 1, 1, 1, 1, 1};
  TestTensor x(DType::float32, {0, 3, 5, 5}), w(DType::float32, {4, 3, 3, 3});
  TestTensor y(DType::float32, {0, 4, 5, 5}), dw(DType::float32, {4, 3, 3, 3});
  w.randomize(1);
  dw.fill(7);
  backend::conv2d(y.view(), x.view(), w.view(), nullptr, shape);
  backend::conv2dBackwardInput(x.view(), y.view(), w.view(), shape);
  backend::conv2dBackwardWeight(dw.view(), y.view(), x.view(), shape);
  for (int64_t i = 0; i < dw.numel(); i++) EXPECT_EQ(dw.get(i), 0);
}

TEST(Conv2d, Bf16NaNReachesExactlyThePixelsThatSeeIt) {
  forEachBf16Form([](bool, bool) {
    const Case z{1, 2, 20, 37, 3, 3, 3, {1, 1, 1, 1, 1, 1, 1}};
    TestTensor x(DType::bfloat16, {1, 2, 20, 37}), w(DType::bfloat16, {3, 2, 3, 3});
    TestTensor y(DType::bfloat16, {1, 3, 20, 37});
    x.randomize(1);
    w.randomize(2);
    const int64_t at = 37 * 7 + 36;
    x.set(at, std::numeric_limits<double>::quiet_NaN());
    std::vector<bool> sees(y.numel());
    forEachTap(z, [&](int64_t i, int64_t j, int64_t) {
      if (j == at) sees[i] = true;
    });
    backend::conv2d(y.view(), x.view(), w.view(), nullptr, z.shape);
    for (int64_t i = 0; i < y.numel(); i++) ASSERT_EQ(std::isnan(y.get(i)), sees[i]) << i;
  });
}

// In a direct form: nothing that is read beyond a row counts.
TEST(Conv2d, NaNReachesExactlyWhatSeesIt) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (const Case& z : {Case{1, 2, 20, 37, 3, 3, 3, {1, 1, 1, 1, 1, 1, 1}},
                          Case{1, 2, 20, 37, 2, 3, 3, {1, 1, 1, 1, 1, 1, 2}},
                          Case{1, 2, 20, 37, 4, 3, 3, {2, 2, 1, 1, 1, 1, 2}}}) {
      TestTensor x(DType::float32, {z.n, z.c, z.h, z.w});
      TestTensor w(DType::float32, {z.k, z.c / z.shape.groups, z.r, z.s});
      TestTensor dw(DType::float32, {z.k, z.c / z.shape.groups, z.r, z.s});
      TestTensor y(DType::float32, {z.n, z.k, z.p(), z.q()});
      TestTensor dy(DType::float32, {z.n, z.k, z.p(), z.q()});
      w.randomize(2);
      dy.randomize(3);
      for (int64_t at : {int64_t{37} * 7 + 36, int64_t{37} * 8, int64_t{0}}) {
        x.randomize(1);
        x.set(at, std::numeric_limits<double>::quiet_NaN());
        std::vector<bool> pixelSees(y.numel()), tapSees(dw.numel());
        forEachTap(z, [&](int64_t i, int64_t j, int64_t k) {
          if (j == at) pixelSees[i] = tapSees[k] = true;
        });
        backend::conv2d(y.view(), x.view(), w.view(), nullptr, z.shape);
        backend::conv2dBackwardWeight(dw.view(), dy.view(), x.view(), z.shape);
        for (int64_t i = 0; i < y.numel(); i++) {
          ASSERT_EQ(std::isnan(y.get(i)), pixelSees[i]) << i << " of y, " << z;
        }
        for (int64_t i = 0; i < dw.numel(); i++) {
          ASSERT_EQ(std::isnan(dw.get(i)), tapSees[i]) << i << " of dw, " << z;
        }
      }
    }
  });
}

TEST(Conv2d, ThreadsDoNotChangeABit) {
  for (DType dtype : {DType::float32, DType::bfloat16}) {
    for (const Case& z : {Case{20, 1, 28, 28, 32, 3, 3, {1, 1, 0, 0, 1, 1, 1}},
                          Case{5, 32, 14, 14, 64, 3, 3, {1, 1, 1, 1, 1, 1, 1}},
                          Case{5, 16, 14, 14, 32, 3, 3, {2, 2, 1, 1, 1, 1, 1}}}) {
      TestTensor x(dtype, {z.n, z.c, z.h, z.w}), w(dtype, {z.k, z.c, z.r, z.s});
      TestTensor dy(dtype, {z.n, z.k, z.p(), z.q()});
      x.randomize(1);
      w.randomize(2);
      dy.randomize(3);
      std::vector<unsigned char> first;
      for (int threads : {1, 3}) {
        TestTensor y(dtype, {z.n, z.k, z.p(), z.q()});
        TestTensor dx(dtype, {z.n, z.c, z.h, z.w}), dw(dtype, {z.k, z.c, z.r, z.s});
        withThreads(threads, [&] {
          backend::conv2d(y.view(), x.view(), w.view(), nullptr, z.shape);
          backend::conv2dBackwardInput(dx.view(), dy.view(), w.view(), z.shape);
          backend::conv2dBackwardWeight(dw.view(), dy.view(), x.view(), z.shape);
        });
        std::vector<unsigned char> all = y.bytes();
        all.insert(all.end(), dx.bytes().begin(), dx.bytes().end());
        all.insert(all.end(), dw.bytes().begin(), dw.bytes().end());
        if (threads == 1) first = all;
        EXPECT_EQ(first, all) << z;
      }
    }
  }
}

}  // namespace
}  // namespace adjoint
