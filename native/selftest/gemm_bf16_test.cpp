// bfloat16 products in every form: AMX, AMX emulated in C++, AVX512-BF16 and the float32 product.
#include "cpu/gemm_bf16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "contract.h"
#include "cpu/features.h"
#include "test_tensor.h"

namespace adjoint::cpu {
namespace emulated_amx {
extern const Bf16Multiply multiplyBf16;
}
#if defined(ADJOINT_HAS_AVX512)
namespace amx {
extern const Bf16Multiply multiplyBf16;
}
namespace avx512bf16 {
extern const Bf16Multiply multiplyBf16;
}
#endif
}  // namespace adjoint::cpu

namespace adjoint {
namespace {

using cpu::Bf16Multiply;
using cpu::Bf16Product;
using cpu::Feature;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

struct Form {
  const char* name;
  Bf16Multiply multiply;
};

// What the processor has.
std::vector<Form> realForms() {
  std::vector<Form> found;
#if defined(ADJOINT_HAS_AVX512)
  if (isFeatureSupported(Feature::amxBf16)) found.push_back({"AMX", cpu::amx::multiplyBf16});
  if (isFeatureSupported(Feature::avx512Bf16)) {
    found.push_back({"AVX512-BF16", cpu::avx512bf16::multiplyBf16});
  }
#endif
  return found;
}

// Packing is compiled per level: each is tried with the emulation, which runs everywhere, and the
// widest with every form.
void forEachForm(const std::function<void(Bf16Multiply)>& body) {
  forEachSimdLevel([&](const char* level) {
    SCOPED_TRACE(level);
    body(cpu::emulated_amx::multiplyBf16);
  });
  for (const Form& form : realForms()) {
    SCOPED_TRACE(form.name);
    body(form.multiply);
  }
}

Bf16Product productOf(const TestTensor& y, const TestTensor& a, const TestTensor& b,
                      const TestTensor* bias) {
  const View &yv = y.view(), &av = a.view(), &bv = b.view();
  Bf16Product p{yv.size[0],
                yv.size[1],
                av.size[1],
                {av.data, av.dtype == DType::float32, av.stride[0], av.stride[1]},
                {bv.data, bv.dtype == DType::float32, bv.stride[1], bv.stride[0]},
                yv.data,
                yv.dtype == DType::float32,
                yv.stride[0],
                yv.stride[1]};
  if (bias) {
    p.bias = bias->view().data;
    p.biasIsFloat = bias->view().dtype == DType::float32;
    p.biasColumn = bias->view().stride[0];
  }
  return p;
}

double rounded(double x) {
  return toFloat(toBFloat16(static_cast<float>(x)));
}

// sum_x a[i, x] b[x, j] of the operands rounded to bfloat16, and the same of |a| |b|.
struct Products {
  Products(const TestTensor& a, const TestTensor& b) : k(a.size(1)) {
    const int64_t m = a.size(0), n = b.size(1);
    std::vector<double> left = a.values(), right = b.values();
    for (double& x : left) x = rounded(x);
    for (double& x : right) x = rounded(x);
    for (int64_t i = 0; i < m; i++) {
      for (int64_t j = 0; j < n; j++) {
        double total = 0, absolute = 0;
        for (int64_t x = 0; x < k; x++) {
          const double product = left[i * k + x] * right[x * n + j];
          total += product;
          absolute += std::abs(product);
        }
        sum.push_back(total);
        scale.push_back(absolute);
      }
    }
  }
  int64_t k;
  std::vector<double> sum, scale;
};

// |error| <= 8 u sum |a b| in float32, then one rounding to y's type.
void expectProduct(const TestTensor& y, const Products& exact, const TestTensor* bias) {
  const int64_t m = y.size(0), n = y.size(1);
  const double last = y.view().dtype == DType::bfloat16 ? 0x1.01p-8 : 0;
  const std::vector<double> got = y.values();
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      const double added = bias ? bias->get(j) : 0, sum = exact.sum[i * n + j] + added;
      const double scale = exact.scale[i * n + j] + std::abs(added);
      ASSERT_LE(std::abs(got[i * n + j] - sum), 8 * 0x1p-24 * scale + last * std::abs(sum))
          << "at " << i << ", " << j << " of " << m << " x " << exact.k << " x " << n;
    }
  }
}
void expectProduct(const TestTensor& y, const TestTensor& a, const TestTensor& b,
                   const TestTensor* bias) {
  expectProduct(y, Products(a, b), bias);
}

struct Layout {
  std::vector<int> a, b, y;
  int64_t gap;
};
const Layout kLayouts[] = {
    {{0, 1}, {0, 1}, {0, 1}, 0}, {{0, 1}, {1, 0}, {0, 1}, 0}, {{1, 0}, {0, 1}, {0, 1}, 0},
    {{1, 0}, {1, 0}, {0, 1}, 3}, {{0, 1}, {0, 1}, {1, 0}, 1}, {{0, 1}, {1, 0}, {1, 0}, 5},
};

void expectCorrect(Bf16Multiply multiply, int64_t m, int64_t n, int64_t k, const Layout& layout,
                   DType in, DType out) {
  TestTensor a(in, {m, k}, layout.a, layout.gap), b(in, {k, n}, layout.b, layout.gap);
  TestTensor y(out, {m, n}, layout.y, layout.gap), bias(in, {n}, {}, 0);
  a.randomize(1);
  b.randomize(2);
  bias.randomize(3);
  const Products exact(a, b);
  cpu::gemmBf16(productOf(y, a, b, nullptr), multiply);
  expectProduct(y, exact, nullptr);
  cpu::gemmBf16(productOf(y, a, b, &bias), multiply);
  expectProduct(y, exact, &bias);
}

TEST(GemmBf16, OddSizesInEveryLayout) {
  forEachForm([](Bf16Multiply multiply) {
    for (const Layout& layout : kLayouts) {
      for (int64_t m : {1, 8, 15, 16, 17, 33, 64}) {
        for (int64_t n : {1, 7, 16, 31, 33}) {
          for (int64_t k : {1, 2, 31, 32, 33, 70}) {
            expectCorrect(multiply, m, n, k, layout, DType::bfloat16, DType::bfloat16);
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  });
}

TEST(GemmBf16, MixedTypesAndDepthsBeyondOneBlock) {
  forEachForm([](Bf16Multiply multiply) {
    for (const Layout& layout : kLayouts) {
      for (DType in : {DType::float32, DType::bfloat16}) {
        for (DType out : {DType::float32, DType::bfloat16}) {
          // Of the last three, columns or rows are many enough for tasks to pack their own.
          for (auto [m, n, k] : {std::array<int64_t, 3>{40, 50, 1100},
                                 {33, 17, 65},
                                 {5, 70, 0},
                                 {70, 301, 45},
                                 {141, 3, 2100},
                                 {3, 200, 0}}) {
            expectCorrect(multiply, m, n, k, layout, in, out);
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  });
}

TEST(GemmBf16, StridesBetweenElements) {
  forEachForm([](Bf16Multiply multiply) {
    TestTensor wideA(DType::bfloat16, {35, 80}), wideB(DType::bfloat16, {80, 60});
    TestTensor y(DType::float32, {35, 30}), a(DType::bfloat16, {35, 40}),
        b(DType::bfloat16, {40, 30});
    wideA.randomize(1);
    wideB.randomize(2);
    for (int64_t i = 0; i < 35; i++) {
      for (int64_t x = 0; x < 40; x++) a.set(i * 40 + x, wideA.at({i, 2 * x}));
    }
    for (int64_t x = 0; x < 40; x++) {
      for (int64_t j = 0; j < 30; j++) b.set(x * 30 + j, wideB.at({2 * x, 2 * j}));
    }
    Bf16Product p = productOf(y, a, b, nullptr);
    p.a = {wideA.view().data, false, 80, 2};
    p.b = {wideB.view().data, false, 2, 120};
    cpu::gemmBf16(p, multiply);
    expectProduct(y, a, b, nullptr);
  });
}

TEST(GemmBf16, NaNAndInfinityReachTheirRowAndColumn) {
  forEachForm([](Bf16Multiply multiply) {
    const int64_t m = 20, n = 37, k = 40;
    for (DType in : {DType::float32, DType::bfloat16}) {
      TestTensor a(in, {m, k}), b(in, {k, n}), y(DType::float32, {m, n});
      a.fill(1);
      b.fill(1);
      a.set(k - 1, kNaN);
      a.set(k, kInf);
      b.set(k * n - 1, -kInf);
      cpu::gemmBf16(productOf(y, a, b, nullptr), multiply);
      for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
          const double value = y.at({i, j});
          const bool meetsInf = j == n - 1;
          if (i == 0 || (i == 1 && meetsInf)) {
            ASSERT_TRUE(std::isnan(value)) << i << ", " << j;
          } else if (i == 1) {
            ASSERT_EQ(value, kInf);
          } else {
            ASSERT_EQ(value, meetsInf ? -kInf : static_cast<double>(k));
          }
        }
      }
    }
  });
}

// Denormal operands count as zeros, and so do denormal results.
TEST(GemmBf16, DenormalsAreFlushed) {
  forEachForm([](Bf16Multiply multiply) {
    TestTensor a(DType::bfloat16, {1, 1}), b(DType::bfloat16, {1, 1}), y(DType::float32, {1, 1});
    const auto product = [&](double left, double right) {
      a.fill(left);
      b.fill(right);
      y.fill(9);
      cpu::gemmBf16(productOf(y, a, b, nullptr), multiply);
      return y.get(0);
    };
    EXPECT_EQ(product(0x1p-126, 1), 0x1p-126);
    EXPECT_EQ(product(0x1p-127, 0x1p10), 0);
    EXPECT_EQ(product(0x1p-100, 0x1p-30), 0);
  });
}

// The emulation is the instruction's definition, so the processor must give the same bits.
TEST(GemmBf16, EmulationIsExact) {
#if defined(ADJOINT_HAS_AVX512)
  if (isFeatureSupported(Feature::amxBf16)) {
    for (int terms : {1, 3}) {
      TestTensor a(DType::float32, {50, 700}), b(DType::float32, {700, 70});
      TestTensor real(DType::float32, {50, 70}), emulated(DType::float32, {50, 70});
      a.randomize(1);
      b.randomize(2);
      a.set(3, 1e-39);
      a.set(4, 1e-20);
      b.set(4 * 70, 1e-20);
      Bf16Product p = productOf(real, a, b, nullptr);
      p.terms = terms;
      EXPECT_TRUE(cpu::gemmBf16(p, cpu::amx::multiplyBf16));
      p.c = emulated.view().data;
      EXPECT_TRUE(cpu::gemmBf16(p, cpu::emulated_amx::multiplyBf16));
      EXPECT_EQ(real.bytes(), emulated.bytes());
    }
  }
#endif
}

// Three products of halves: |error| is about 2^-16 of sum |a b| at most for each dropped lo lo.
TEST(GemmBf16, ThreeTermsAreCloseToFloat32) {
  forEachForm([](Bf16Multiply multiply) {
    for (const Layout& layout : kLayouts) {
      const int64_t m = 37, n = 45, k = 530;
      TestTensor a(DType::float32, {m, k}, layout.a, layout.gap);
      TestTensor b(DType::float32, {k, n}, layout.b, layout.gap),
          y(DType::float32, {m, n}, layout.y);
      a.randomize(1);
      b.randomize(2);
      Bf16Product p = productOf(y, a, b, nullptr);
      p.terms = 3;
      ASSERT_TRUE(cpu::gemmBf16(p, multiply));
      const std::vector<double> left = a.values(), right = b.values(), got = y.values();
      for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
          double sum = 0, scale = 0;
          for (int64_t x = 0; x < k; x++) {
            sum += left[i * k + x] * right[x * n + j];
            scale += std::abs(left[i * k + x] * right[x * n + j]);
          }
          ASSERT_LE(std::abs(got[i * n + j] - sum), 0x1p-16 * scale);
        }
      }
    }
  });
}

TEST(GemmBf16, ThreeTermsRefuseWhatIsNotFinite) {
  forEachForm([](Bf16Multiply multiply) {
    for (double bad : {kInf, -kInf, kNaN, 3.4e38}) {
      for (bool inA : {true, false}) {
        TestTensor a(DType::float32, {20, 40}), b(DType::float32, {40, 20}),
            y(DType::float32, {20, 20});
        a.fill(1);
        b.fill(1);
        (inA ? a : b).set(799, bad);
        Bf16Product p = productOf(y, a, b, nullptr);
        p.terms = 3;
        EXPECT_FALSE(cpu::gemmBf16(p, multiply)) << bad;
      }
    }
  });
}

TEST(GemmBf16, ThreadsDoNotChangeABit) {
  std::vector<Form> forms = realForms();
  forms.push_back({"emulated AMX", cpu::emulated_amx::multiplyBf16});
  for (const Form& form : forms) {
    SCOPED_TRACE(form.name);
    for (auto [m, n, k] : {std::array<int64_t, 3>{200, 300, 400}, {64, 256, 784}, {33, 600, 65}}) {
      TestTensor a(DType::bfloat16, {m, k}), b(DType::bfloat16, {k, n}, {1, 0});
      TestTensor one(DType::bfloat16, {m, n}), three(DType::bfloat16, {m, n});
      a.randomize(1);
      b.randomize(2);
      withThreads(1, [&] { cpu::gemmBf16(productOf(one, a, b, nullptr), form.multiply); });
      withThreads(3, [&] { cpu::gemmBf16(productOf(three, a, b, nullptr), form.multiply); });
      EXPECT_EQ(one.bytes(), three.bytes());
    }
  }
}

// matmul picks the form; with the features switched off it is the float32 product.
TEST(GemmBf16, MatmulAgreesAcrossForms) {
  for (auto [m, n, k] : {std::array<int64_t, 3>{1, 1, 1}, {70, 90, 100}, {3, 130, 1030}}) {
    TestTensor a(DType::bfloat16, {m, k}), b(DType::bfloat16, {k, n}), bias(DType::bfloat16, {n});
    TestTensor y(DType::bfloat16, {m, n});
    a.randomize(1);
    b.randomize(2);
    bias.randomize(3);
    forEachBf16Form([&](bool, bool) {
      backend::matmul(y.view(), a.view(), b.view(), &bias.view());
      expectProduct(y, a, b, &bias);
    });
  }
}

}  // namespace
}  // namespace adjoint
