// Linear layers with an activation against float64, and bit for bit against the product and the
// elementwise kernels one by one.
#include <gtest/gtest.h>

#include <cmath>

#include "contract.h"
#include "kernel_test.h"
#include "shared/functors.h"
#include "shared/matrix.h"

namespace adjoint::test {
namespace {

class LinearAtEveryLevel : public EveryLevel {};
ADJOINT_EVERY_LEVEL(LinearAtEveryLevel);

constexpr Activation kAll[] = {Activation::none, Activation::relu, Activation::gelu,
                               Activation::geluTanh};
constexpr DType kFloats[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};

struct Sizes {
  int64_t n, k, m;
};
// One row, one column, few columns, a great depth, several blocks of the depth, edges of tiles.
constexpr Sizes kSizes[] = {{1, 1, 1},    {1, 10, 10},  {5, 3, 1},     {7, 40, 3},
                            {33, 17, 65}, {64, 70, 31}, {13, 900, 47}, {20, 4200, 9},
                            {4, 0, 5},    {0, 3, 4},    {130, 24, 48}};

void expectSame(const Tensor& got, const Tensor& want, const char* what) {
  for (int64_t i = 0; i < got.numel(); i++) {
    ASSERT_TRUE(got.get(i) == want.get(i) || (std::isnan(got.get(i)) && std::isnan(want.get(i))))
        << what << " " << i << ": " << got.get(i) << " and " << want.get(i);
  }
  ASSERT_TRUE(got.isIntact()) << what;
}

double roundoff(DType dtype);

// got and want are a b, each with its own a: the gradient before the activation. Away from x86,
// compilers contract products and sums, and then a slope may differ in its last bit between two
// loops.
void expectProduct(const Tensor& got, const Tensor& want, const View& a, const View& b,
                   const char* what) {
#if defined(__x86_64__)
  expectSame(got, want, what);
#else
  const auto at = [](const View& x, int64_t i, int64_t j) {
    return std::abs(getDouble(x.as<char>() + (i * x.stride[0] + j * x.stride[1]) *
                                                 static_cast<int64_t>(itemSize(x.dtype)),
                              x.dtype));
  };
  const int64_t columns = b.size[1];
  for (int64_t i = 0; i < got.numel(); i++) {
    double scale = std::abs(want.get(i));
    for (int64_t k = 0; k < b.size[0]; k++) scale += at(a, i / columns, k) * at(b, k, i % columns);
    ASSERT_NEAR(got.get(i), want.get(i), 2 * roundoff(got.view.dtype) * scale) << what << " " << i;
  }
  ASSERT_TRUE(got.isIntact()) << what;
#endif
}

// The same slopes from two loops: see above. Each is the sum of two parts of at most 1.
void expectSlopes(const Tensor& got, const Tensor& want) {
#if defined(__x86_64__)
  expectSame(got, want, "slopes");
#else
  const double rounding = roundoff(got.view.dtype);
  for (int64_t i = 0; i < got.numel(); i++) {
    ASSERT_NEAR(got.get(i), want.get(i), 2 * rounding * (1 + std::abs(want.get(i)))) << i;
  }
  ASSERT_TRUE(got.isIntact());
#endif
}

double roundoff(DType dtype) {
  return dtype == DType::float64   ? 0x1p-53
         : dtype == DType::float32 ? 0x1p-24
         : dtype == DType::float16 ? 0x1p-11
                                   : 0x1p-8;
}

// dbias = sum of dz over its rows, rounded once
void expectRowSums(const Tensor& dbias, const Tensor& dz) {
  const int64_t rows = dz.view.size[0], columns = dz.view.size[1];
  const double rounding = roundoff(dz.view.dtype);
  for (int64_t j = 0; j < columns; j++) {
    double sum = 0, scale = 0;
    for (int64_t i = 0; i < rows; i++) {
      sum += dz.get(i * columns + j);
      scale += std::abs(dz.get(i * columns + j));
    }
    ASSERT_NEAR(dbias.get(j), sum,
                8 * std::min(rounding, 0x1p-24) * scale + 1.01 * rounding * std::abs(sum))
        << "dbias " << j;
  }
  ASSERT_TRUE(dbias.isIntact());
}

void expectAsComposed(DType dtype, const Sizes& s, Activation activation, bool hasBias) {
  SCOPED_TRACE(std::string(dtypeName(dtype)) + " " + std::to_string(s.n) + "x" +
               std::to_string(s.k) + "->" + std::to_string(s.m) + ", activation " +
               std::to_string(static_cast<int>(activation)));
  Tensor x(dtype, {s.n, s.k}), w(dtype, {s.m, s.k}), bias(dtype, {s.m}), dy(dtype, {s.n, s.m});
  x.fillRandom(1);
  w.fillRandom(2, -1, 1);
  bias.fillRandom(3);
  dy.fillRandom(4);
  const View* b = hasBias ? &bias.view : nullptr;

  Tensor z(dtype, {s.n, s.m}), want(dtype, {s.n, s.m}), y(dtype, {s.n, s.m}),
      kept(dtype, {s.n, s.m});
  backend::matmul(z.view, x.view, transposed(w.view), b);
  const bool isNone = activation == Activation::none;
  if (isNone) {
    want = std::move(z);
    z = Tensor(dtype, {s.n, s.m});
    backend::copy(z.view, want.view);
  } else {
    backend::unary(unaryOf(activation), want.view, z.view, dtype);
  }
  backend::linear(y.view, nullptr, x.view, w.view, b, activation);
  expectSame(y, want, "y");
  const bool keeps = activation == Activation::gelu || activation == Activation::geluTanh;
  if (keeps) {
    backend::linear(y.view, &kept.view, x.view, w.view, b, activation);
    expectSame(y, want, "y");
    Tensor slopes(dtype, {s.n, s.m});
    Operand one;
    one.isScalar = true;
    one.scalar = Scalar::of(1.0);
    backend::binary(backwardOf(activation), slopes.view, one, z.operand(), dtype);
    expectSlopes(kept, slopes);
  }

  Tensor dz(dtype, {s.n, s.m});
  if (isNone) {
    backend::copy(dz.view, dy.view);
  } else {
    backend::binary(keeps ? BinaryOp::mul : BinaryOp::reluBackward, dz.view, dy.operand(),
                    keeps ? kept.operand() : want.operand(), dtype);
  }
  Tensor dx(dtype, {s.n, s.k}), dw(dtype, {s.m, s.k}), dbias(dtype, {s.m});
  Tensor wantDx(dtype, {s.n, s.k}), wantDw(dtype, {s.m, s.k});
  if (wantDx.numel() > 0) backend::matmul(wantDx.view, dz.view, w.view, nullptr);
  if (wantDw.numel() > 0) backend::matmul(wantDw.view, transposed(dz.view), x.view, nullptr);
  const View* state = isNone ? nullptr : keeps ? &kept.view : &want.view;
  backend::linearBackward(
      {&dx.view, &dw.view, &dbias.view, dy.view, &x.view, &w.view, state, activation});
  expectProduct(dx, wantDx, dz.view, w.view, "dx");
  expectProduct(dw, wantDw, transposed(dz.view), x.view, "dw");
  expectRowSums(dbias, dz);

  // One at a time.
  Tensor alone(dtype, {s.m});
  backend::linearBackward(
      {nullptr, nullptr, &alone.view, dy.view, nullptr, nullptr, state, activation});
  expectSame(alone, dbias, "dbias alone");
  Tensor dwAlone(dtype, {s.m, s.k});
  backend::linearBackward(
      {nullptr, &dwAlone.view, nullptr, dy.view, &x.view, nullptr, state, activation});
  expectProduct(dwAlone, wantDw, transposed(dz.view), x.view, "dw alone");
}

TEST_P(LinearAtEveryLevel, equalsItsParts) {
  for (DType dtype : kFloats) {
    for (const Sizes& s : kSizes) {
      for (Activation activation : kAll) expectAsComposed(dtype, s, activation, s.m % 2 == 1);
    }
  }
}

TEST_P(LinearAtEveryLevel, keepsNaNAndInfinity) {
  for (DType dtype : kFloats) {
    const int64_t n = 40, m = 37;
    Tensor x(dtype, {n, 1}), w(dtype, {m, 1}), bias(dtype, {m}), y(dtype, {n, m}), z(dtype, {n, m});
    x.fill([](int64_t i) { return i == 3 ? NAN : i == 5 ? INFINITY : i == 6 ? -INFINITY : i - 9; });
    w.fill([](int64_t i) { return i % 2 ? 1.0 : -1.0; });
    bias.fill([](int64_t i) { return i % 5 - 2.0; });
    for (Activation activation : kAll) {
      backend::matmul(z.view, x.view, transposed(w.view), &bias.view);
      if (activation != Activation::none) {
        backend::unary(unaryOf(activation), z.view, z.view, dtype);
      }
      backend::linear(y.view, nullptr, x.view, w.view, &bias.view, activation);
      expectSame(y, z, dtypeName(dtype));
    }
  }
}

// What a layer gives to the one below, whose activation made its input: with the slope what it
// gives without, times that, and the sums of it.
TEST_P(LinearAtEveryLevel, appliesTheSlopeOfTheLayerBelow) {
  for (DType dtype : kFloats) {
    for (const Sizes& s : kSizes) {
      for (Activation below : {Activation::relu, Activation::gelu, Activation::geluTanh}) {
        SCOPED_TRACE(std::string(dtypeName(dtype)) + " " + std::to_string(s.n) + "x" +
                     std::to_string(s.k) + "->" + std::to_string(s.m));
        Tensor dy(dtype, {s.n, s.m}), w(dtype, {s.m, s.k}), kept(dtype, {s.n, s.k});
        dy.fillRandom(1);
        w.fillRandom(2, -1, 1);
        kept.fillRandom(3);
        Tensor dx(dtype, {s.n, s.k}), want(dtype, {s.n, s.k}), sums(dtype, {s.k});
        const auto gradient = [&](const Tensor& to, backend::LayerBelow layer) {
          backend::linearBackward({&to.view, nullptr, nullptr, dy.view, nullptr, &w.view, nullptr,
                                   Activation::none, layer});
        };
        gradient(want, {});
        const BinaryOp slope = below == Activation::relu ? BinaryOp::reluBackward : BinaryOp::mul;
        backend::binary(slope, want.view, want.operand(), kept.operand(), dtype);
        gradient(dx, {below, &kept.view, &sums.view});
        expectSame(dx, want, "dx");
        expectRowSums(sums, want);
        Tensor alone(dtype, {s.n, s.k});
        gradient(alone, {below, &kept.view, nullptr});
        expectSame(alone, want, "dx alone");
      }
    }
  }
}

// dw and dbias in float32 from half operands: the sums, unrounded.
TEST_P(LinearAtEveryLevel, givesWideGradientsOfParameters) {
  for (DType dtype : {DType::bfloat16, DType::float16}) {
    for (const Sizes& s : kSizes) {
      for (Activation activation : {Activation::none, Activation::relu}) {
        Tensor x(dtype, {s.n, s.k}), dy(dtype, {s.n, s.m}), y(dtype, {s.n, s.m});
        x.fillRandom(1);
        dy.fillRandom(2);
        y.fillRandom(3);
        const bool isRectified = activation == Activation::relu;
        Tensor dw(DType::float32, {s.m, s.k}), dbias(DType::float32, {s.m});
        backend::linearBackward({nullptr, &dw.view, &dbias.view, dy.view, &x.view, nullptr,
                                 isRectified ? &y.view : nullptr, activation});
        const auto dz = [&](int64_t i, int64_t j) {
          return isRectified && y.get(i * s.m + j) <= 0 ? 0 : dy.get(i * s.m + j);
        };
        for (int64_t j = 0; j < s.m; j++) {
          for (int64_t c = -1; c < s.k; c++) {  // -1: the bias
            double sum = 0, scale = 0;
            for (int64_t i = 0; i < s.n; i++) {
              const double term = dz(i, j) * (c < 0 ? 1 : x.get(i * s.k + c));
              sum += term;
              scale += std::abs(term);
            }
            const double got = c < 0 ? dbias.get(j) : dw.get(j * s.k + c);
            ASSERT_NEAR(got, sum, 16 * 0x1p-24 * scale) << dtypeName(dtype) << " " << j << " " << c;
          }
        }
        ASSERT_TRUE(dw.isIntact() && dbias.isIntact());
      }
    }
  }
}

// A gradient whose rows are one number each, and one by columns.
TEST_P(LinearAtEveryLevel, takesGradientsOfAnyStrides) {
  const int64_t n = 19, m = 21, k = 4;
  for (DType dtype : kFloats) {
    Tensor x(dtype, {n, k}), w(dtype, {m, k}), z(dtype, {n, m});
    x.fillRandom(1);
    w.fillRandom(2);
    z.fillRandom(3);
    Tensor byColumns(dtype, {m, n});
    byColumns.fillRandom(4).transpose(0, 1);
    Tensor one(dtype, {1, 1});
    one.fillRandom(5);
    one.view.size[0] = n;
    one.view.size[1] = m;
    one.view.stride[0] = one.view.stride[1] = 0;
    for (const Tensor* dy : {&byColumns, &one}) {
      for (Activation activation : kAll) {
        Tensor dense(dtype, {n, m});
        backend::copy(dense.view, dy->view);
        const View* kept = activation == Activation::none ? nullptr : &z.view;
        Tensor got(dtype, {n, k}), want(dtype, {n, k}), bias(dtype, {m}), wantBias(dtype, {m});
        backend::linearBackward(
            {&got.view, nullptr, &bias.view, dy->view, nullptr, &w.view, kept, activation});
        backend::linearBackward(
            {&want.view, nullptr, &wantBias.view, dense.view, nullptr, &w.view, kept, activation});
        expectProduct(got, want, dense.view, w.view, "dx");
        for (int64_t j = 0; j < m; j++) {
          ASSERT_NEAR(bias.get(j), wantBias.get(j), 4 * roundoff(dtype) * n * n) << "dbias " << j;
        }
      }
    }
  }
}

}  // namespace
}  // namespace adjoint::test
