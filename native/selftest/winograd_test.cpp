// Winograd's forms of the convolution and its gradients against float64 loops over every tap, and
// against the direct form.
#include "cpu/winograd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "conv2d_case.h"
#include "test_tensor.h"

namespace adjoint {
namespace {

constexpr double kUnit = 0x1p-24, kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Case same(int64_t n, int64_t c, int64_t h, int64_t w, int64_t k, int64_t pad) {
  return {n, c, h, w, k, 3, 3, {1, 1, pad, pad, 1, 1, 1}};
}

// The operands of a case and what its forms should give. dy takes the role of x for `dx`, and of
// the filters for `dw`.
struct Problem {
  explicit Problem(const Case& z, const std::vector<int>& order = kNchw, int64_t gap = 0,
                   DType images = DType::float32)
      : z(z),
        x(images, {z.n, z.c, z.h, z.w}, order, gap),
        w(DType::float32, {z.k, z.c, 3, 3}),
        bias(DType::float32, {z.k}),
        dy(images, {z.n, z.k, z.p(), z.q()}, order, gap),
        y(images, {z.n, z.k, z.p(), z.q()}, order, gap),
        dx(images, {z.n, z.c, z.h, z.w}, order, gap),
        dw(DType::float32, {z.k, z.c, 3, 3}) {
    x.randomize(1);
    w.randomize(2);
    bias.randomize(3);
    dy.randomize(4);
  }
  void rectify() {
    for (TestTensor* t : {&x, &dy}) {
      for (int64_t i = 0; i < t->numel(); i++) t->set(i, std::max(0.0, t->get(i)));
    }
  }

  void forward() {
    const View& weight = w.view();
    cpu::winogradConvolve(y.view(), x.view(),
                          {weight.as<float>(), weight.stride[0], weight.stride[1], false},
                          &bias.view(), z.shape.padH, z.shape.padW);
  }
  void backwardInput() {
    const View& weight = w.view();
    cpu::winogradConvolve(dx.view(), dy.view(),
                          {weight.as<float>(), weight.stride[1], weight.stride[0], true}, nullptr,
                          2 - z.shape.padH, 2 - z.shape.padW);
  }

  void backwardWeight() {
    cpu::winogradWeightGradient(dw.view().as<float>(), dy.view(), x.view(), z.shape.padH,
                                z.shape.padW);
  }

  Case z;
  TestTensor x, w, bias, dy, y, dx, dw;
};

// Sums of the products, and of their magnitudes.
struct Sums {
  explicit Sums(const TestTensor& like) : sum(like.numel()), magnitude(like.numel()) {}
  void add(int64_t i, double product) {
    sum[i] += product;
    magnitude[i] += std::abs(product);
  }
  double greatestError(const TestTensor& got) const {
    double most = 0;
    for (size_t i = 0; i < sum.size(); i++) {
      const double error = std::abs(got.get(i) - sum[i]);
      most = error <= most ? most : error;  // a NaN stays
    }
    return most;
  }
  double scale() const { return *std::max_element(magnitude.begin(), magnitude.end()); }
  std::vector<double> sum, magnitude;
};

struct Reference {
  explicit Reference(const Problem& p) : y(p.y), dx(p.dx), dw(p.dw) {
    const std::vector<double> x = p.x.values(), w = p.w.values(), dy = p.dy.values();
    const int64_t pixels = p.z.p() * p.z.q();
    forEachTap(p.z, [&](int64_t i, int64_t j, int64_t k) {
      y.add(i, x[j] * w[k]);
      dx.add(j, dy[i] * w[k]);
      dw.add(k, dy[i] * x[j]);
    });
    for (int64_t i = 0; i < p.y.numel(); i++) y.add(i, p.bias.get(i / pixels % p.z.k));
  }
  Sums y, dx, dw;
};

// The errors of a tile are those of its largest sums: up to 32 roundings of the greatest sum of
// magnitudes; and one of what is stored as bfloat16.
void expectCorrect(const Case& z, const std::vector<int>& order = kNchw, int64_t gap = 0,
                   DType images = DType::float32) {
  Problem p(z, order, gap, images);
  const Reference reference(p);
  const double last = images == DType::bfloat16 ? 0x1p-9 : 0;
  forEachSimdLevel([&](const char* level) {
    p.forward();
    EXPECT_LE(reference.y.greatestError(p.y), (32 * kUnit + last) * reference.y.scale())
        << "y of " << z << ", " << level;
    p.backwardInput();
    EXPECT_LE(reference.dx.greatestError(p.dx), (32 * kUnit + last) * reference.dx.scale())
        << "dx of " << z << ", " << level;
    p.backwardWeight();
    EXPECT_LE(reference.dw.greatestError(p.dw), 32 * kUnit * reference.dw.scale())
        << "dw of " << z << ", " << level;
  });
}

TEST(Winograd, OddSizes) {
  for (int64_t pad : {0, 1, 2}) {
    for (auto [n, c, h, w, k] : {std::array<int64_t, 5>{1, 1, 3, 3, 1},
                                 {1, 3, 4, 9, 17},
                                 {3, 17, 7, 5, 3},
                                 {5, 2, 8, 8, 33},
                                 {1, 64, 13, 21, 40},
                                 {7, 40, 6, 4, 64},
                                 {1, 5, 3, 70, 2}}) {
      expectCorrect(same(n, c, h, w, k, pad));
    }
  }
  expectCorrect({2, 3, 9, 8, 4, 3, 3, {1, 1, 2, 0, 1, 1, 1}});
}

TEST(Winograd, Bf16Images) {
  for (const auto& order : {kNchw, kNhwc, std::vector<int>{3, 1, 0, 2}}) {
    for (int64_t gap : {0, 3}) {
      expectCorrect(same(2, 17, 7, 21, 35, 1), order, gap, DType::bfloat16);
      expectCorrect(same(3, 5, 8, 6, 3, 0), order, gap, DType::bfloat16);
    }
  }
}

// Many images in a block, blocks of rows, and blocks of columns.
TEST(Winograd, EveryCutOfTheTiles) {
  expectCorrect(same(35, 20, 6, 7, 18, 1));
  expectCorrect(same(2, 48, 50, 18, 24, 1));
  expectCorrect(same(1, 60, 5, 190, 70, 1));
}

TEST(Winograd, ChannelsLastAndGaps) {
  for (const auto& order : {kNchw, kNhwc, std::vector<int>{3, 1, 0, 2}}) {
    for (int64_t gap : {0, 2}) expectCorrect(same(2, 19, 9, 22, 35, 1), order, gap);
  }
}

// The greatest error is at most 4 times that of the direct form.
TEST(Winograd, ErrorsBesideThoseOfTheDirectForm) {
  for (const Case& z :
       {same(8, 16, 16, 16, 16, 1), same(4, 64, 16, 16, 48, 1), same(4, 256, 16, 16, 48, 1)}) {
    for (bool rectified : {false, true}) {
      Problem p(z), direct(z);
      if (rectified) p.rectify();
      const Reference reference(p);
      forEachSimdLevel([&](const char* level) {
        SCOPED_TRACE(level);
        p.forward();
        cpu::convolve<float>(direct.y.view(), p.x.view(), p.w.view(), &p.bias.view(), z.shape);
        EXPECT_LE(reference.y.greatestError(p.y), 4 * reference.y.greatestError(direct.y))
            << "y of " << z;
        p.backwardInput();
        cpu::convolveInputGradient<float>(direct.dx.view(), p.dy.view(), p.w.view(), z.shape);
        EXPECT_LE(reference.dx.greatestError(p.dx), 4 * reference.dx.greatestError(direct.dx))
            << "dx of " << z;
        p.backwardWeight();
        cpu::convolveWeightGradient<float>(direct.dw.view(), p.dy.view(), p.x.view(), z.shape);
        EXPECT_LE(reference.dw.greatestError(p.dw), 4 * reference.dw.greatestError(direct.dw))
            << "dw of " << z;
      });
    }
  }
}

// It reaches every result that sees it, and none outside the tiles that do.
TEST(Winograd, NaNAndInfinityStayInTheirTiles) {
  const Case z = same(2, 20, 15, 17, 18, 1);
  forEachSimdLevel([&](const char* level) {
    SCOPED_TRACE(level);
    for (double value : {kNaN, kInfinity, -kInfinity}) {
      for (auto [row, column] : {std::pair<int64_t, int64_t>{0, 0}, {5, 6}, {14, 16}, {7, 8}}) {
        Problem p(z);
        p.x.set(((20 + 3) * 15 + row) * 17 + column, value);
        p.forward();
        // Tile t has the outputs from 4 t on and sees the inputs from 4 t - 1 to 4 t + 4.
        const auto tileSees = [](int64_t output, int64_t input) {
          const int64_t first = output / 4 * 4 - 1;
          return input >= first && input < first + 6;
        };
        for (int64_t i = 0; i < p.y.numel(); i++) {
          const int64_t r = i / 17 % 15, c = i % 17;
          const bool isImage = i >= p.y.numel() / 2;
          if (isImage && std::abs(r - row) <= 1 && std::abs(c - column) <= 1) {
            ASSERT_FALSE(std::isfinite(p.y.get(i))) << i;
          } else if (!isImage || !tileSees(r, row) || !tileSees(c, column)) {
            ASSERT_TRUE(std::isfinite(p.y.get(i))) << i;
          }
        }
      }
    }
  });
}

// A NaN in x reaches all taps of its channel, and one in dy those of its channel; no others.
TEST(Winograd, NaNStaysInTheFiltersOfItsChannel) {
  const Case z = same(2, 20, 9, 10, 18, 1);
  forEachSimdLevel([&](const char* level) {
    SCOPED_TRACE(level);
    Problem p(z);
    p.x.set((20 + 3) * 90 + 44, kNaN);
    p.backwardWeight();
    for (int64_t i = 0; i < p.dw.numel(); i++) {
      ASSERT_EQ(std::isnan(p.dw.get(i)), i / 9 % 20 == 3) << i;
    }
    Problem q(z);
    q.dy.set((18 + 5) * 90 + 44, kNaN);
    q.backwardWeight();
    for (int64_t i = 0; i < q.dw.numel(); i++) {
      ASSERT_EQ(std::isnan(q.dw.get(i)), i / 180 == 5) << i;
    }
  });
}

TEST(Winograd, IsTakenByShapeAndThreadsDoNotChangeABit) {
  for (const Case& z : {same(20, 32, 17, 12, 48, 1), same(2, 96, 12, 12, 64, 1)}) {
    const Problem p(z);
    ASSERT_TRUE(cpu::gainsByWinograd(cpu::ConvSizes(p.x.view(), p.w.view(), p.y.view(), z.shape)));
    std::vector<unsigned char> first;
    for (int threads : {1, 2, 3}) {
      Problem q(z);
      withThreads(threads, [&] {
        backend::conv2d(q.y.view(), q.x.view(), q.w.view(), nullptr, z.shape);
        backend::conv2dBackwardInput(q.dx.view(), q.dy.view(), q.w.view(), z.shape);
        backend::conv2dBackwardWeight(q.dw.view(), q.dy.view(), q.x.view(), z.shape);
      });
      std::vector<unsigned char> all = q.y.bytes();
      all.insert(all.end(), q.dx.bytes().begin(), q.dx.bytes().end());
      all.insert(all.end(), q.dw.bytes().begin(), q.dw.bytes().end());
      if (threads == 1) first = all;
      EXPECT_EQ(first, all) << z;
    }
  }
}

}  // namespace
}  // namespace adjoint
