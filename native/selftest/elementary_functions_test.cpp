// The float32 functions of every SIMD level against the same formulas in double precision, over
// the whole range of floats.
#include "kernel_test.h"
#include "shared/functors.h"

namespace adjoint::test {
namespace {

class ElementaryFunctions : public EveryLevel {};
ADJOINT_EVERY_LEVEL(ElementaryFunctions);

double reference(UnaryOp op, double x) {
  switch (op) {
#define ADJOINT_CASE(name)                                                                  \
  case UnaryOp::name:                                                                       \
    if constexpr (isDefined(UnaryOp::name, Compute::f64)) return Unary<UnaryOp::name>()(x); \
    break;
    ADJOINT_UNARY_OPS(ADJOINT_CASE)
#undef ADJOINT_CASE
    default:
      break;
  }
  return NAN;
}

double reference(BinaryOp op, double a, double b) {
  switch (op) {
#define ADJOINT_CASE(name)                                                                        \
  case BinaryOp::name:                                                                            \
    if constexpr (isDefined(BinaryOp::name, Compute::f64)) return Binary<BinaryOp::name>()(a, b); \
    break;
    ADJOINT_BINARY_OPS(ADJOINT_CASE)
#undef ADJOINT_CASE
    default:
      break;
  }
  return NAN;
}

// Every 20011th bit pattern of both signs, steps of 1/512 around 0, and the edges.
std::vector<float> samples() {
  std::vector<float> x;
  for (uint64_t u = 0; u < (uint64_t(1) << 32); u += 20011) {
    x.push_back(bitCast<float>(static_cast<uint32_t>(u)));
  }
  for (int i = -60000; i <= 60000; i++) x.push_back(static_cast<float>(i) / 512.0f);
  const float edges[] = {0.0f,    1e-45f,   1.17549421e-38f, 1.17549435e-38f, 0.5f,
                         1.0f,    2.0f,     88.7228394f,     88.72284f,       89.4159851f,
                         103.97f, 65536.0f, 65537.0f,        3.40282347e38f,  INFINITY,
                         NAN,     20.0f,    16777216.0f,     8388607.5f,      1.57079637f};
  for (float e : edges) {
    for (float s : {e, -e}) {
      x.push_back(s);
      x.push_back(std::nextafterf(s, INFINITY));
      x.push_back(std::nextafterf(s, -INFINITY));
    }
  }
  return x;
}

double allowedUlps(UnaryOp op) {
  switch (op) {
    case UnaryOp::tan:
    case UnaryOp::sinh:
    case UnaryOp::asinh:
    case UnaryOp::acosh:
    case UnaryOp::atanh:
    case UnaryOp::erfc:
    case UnaryOp::geluTanh:
      return 4;
    case UnaryOp::gelu:
      return 5;
    default:
      return 3;
  }
}

// Products with an exponential that underflows keep the few bits of a denormal: an absolute bound.
constexpr double kNegligible = 0x1p-140;

// What the rounding of an argument v of e^v costs, where a formula rounds one: the C library's
// erfcf(x / sqrt 2) at the scalar level, and the cubic in geluTanh.
double amplification(UnaryOp op, double x) {
  if (op == UnaryOp::gelu && cpu::simdLevel() == cpu::SimdLevel::scalar && x < 0) return 2 * x * x;
  if (op == UnaryOp::geluTanh && x < 0) return 4 * std::fabs(geluTanhArgument(x));
  return 0;
}

TEST_P(ElementaryFunctions, UnaryWithinUlps) {
  const std::vector<float> x = samples();
  Tensor input(DType::float32, {static_cast<int64_t>(x.size())});
  Tensor output(DType::float32, {static_cast<int64_t>(x.size())});
  std::memcpy(input.data<float>(), x.data(), x.size() * sizeof(float));
  for (int o = 0; o < static_cast<int>(UnaryOp::count); o++) {
    const auto op = static_cast<UnaryOp>(o);
    if (!isDefined(op, Compute::f32)) continue;
    backend::unary(op, output.view, input.view, DType::float32);
    double worst = 0;
    float where = 0;
    for (size_t i = 0; i < x.size(); i++) {
      const double expected = reference(op, double(x[i]));
      const float y = output.data<float>()[i];
      if (std::fabs(y - expected) < kNegligible) continue;
      const double error = ulps(y, expected) - amplification(op, x[i]);
      if (!(error <= worst)) {
        worst = error;
        where = x[i];
      }
    }
    EXPECT_LE(worst, allowedUlps(op)) << opName(op) << " at " << where;
  }
  EXPECT_TRUE(output.isIntact());
}

TEST_P(ElementaryFunctions, NegativeZeroKeepsItsSign) {
  Tensor x(DType::float32, {40}), y(DType::float32, {40});
  x.fill([](int64_t) { return -0.0; });
  for (UnaryOp op :
       {UnaryOp::sin, UnaryOp::tan, UnaryOp::asin, UnaryOp::atan, UnaryOp::sinh, UnaryOp::tanh,
        UnaryOp::asinh, UnaryOp::atanh, UnaryOp::expm1, UnaryOp::log1p, UnaryOp::erf, UnaryOp::sqrt,
        UnaryOp::floor, UnaryOp::ceil, UnaryOp::trunc, UnaryOp::round}) {
    backend::unary(op, y.view, x.view, DType::float32);
    for (int64_t i = 0; i < 40; i++) {
      EXPECT_EQ(y.get(i), 0) << opName(op);
      EXPECT_TRUE(std::signbit(y.get(i))) << opName(op);
    }
  }
}

TEST_P(ElementaryFunctions, BinaryWithinUlps) {
  std::vector<float> one = {0,        1,        -1,         2,         0.5f,   -0.5f,    3,
                            -3,       7.25f,    1e-45f,     1e38f,     -1e38f, INFINITY, -INFINITY,
                            NAN,      1e-38f,   1e10f,      -2,        -0.0f,  100,      1.5f,
                            16777216, 33554430, 0.9999999f, 1.0000001f};
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, 5);
  for (int i = 0; i < 300; i++) one.push_back(normal(generator));
  for (int i = 0; i < 100; i++) one.push_back(std::exp(normal(generator) * 5));
  const auto m = static_cast<int64_t>(one.size());
  Tensor a(DType::float32, {m, m}), b(DType::float32, {m, m}), y(DType::float32, {m, m});
  for (int64_t i = 0; i < m * m; i++) {
    a.data<float>()[i] = one[static_cast<size_t>(i / m)];
    b.data<float>()[i] = one[static_cast<size_t>(i % m)];
  }
  const BinaryOp ops[] = {
      BinaryOp::pow, BinaryOp::atan2,      BinaryOp::hypot,        BinaryOp::fmod,
      BinaryOp::div, BinaryOp::maximum,    BinaryOp::minimum,      BinaryOp::add,
      BinaryOp::sub, BinaryOp::mul,        BinaryOp::reluBackward, BinaryOp::eq,
      BinaryOp::ne,  BinaryOp::lt,         BinaryOp::le,           BinaryOp::gt,
      BinaryOp::ge,  BinaryOp::logicalAnd, BinaryOp::logicalOr,    BinaryOp::logicalXor};
  for (BinaryOp op : ops) {
    backend::binary(op, y.view, a.operand(), b.operand(), DType::float32);
    double worst = 0;
    int64_t where = 0;
    for (int64_t i = 0; i < m * m; i++) {
      const double error = ulps(y.data<float>()[i], reference(op, a.get(i), b.get(i)));
      if (!(error <= worst)) {
        worst = error;
        where = i;
      }
    }
    EXPECT_LE(worst, 3) << opName(op) << "(" << a.get(where) << ", " << b.get(where)
                        << ") = " << y.get(where);
  }
}

// The derivatives cross zero, so their errors are measured against the size of their terms.
TEST_P(ElementaryFunctions, DerivativesMatchDoublePrecision) {
  Tensor dy(DType::float32, {4001}), x(DType::float32, {4001}), y(DType::float32, {4001});
  dy.fillRandom(3);
  x.fill([](int64_t i) { return static_cast<double>(i - 2000) / 80; });
  for (BinaryOp op : {BinaryOp::sigmoidBackward, BinaryOp::tanhBackward, BinaryOp::geluBackward,
                      BinaryOp::geluTanhBackward, BinaryOp::siluBackward}) {
    backend::binary(op, y.view, dy.operand(), x.operand(), DType::float32);
    for (int64_t i = 0; i < x.numel(); i++) {
      const double square = std::max(1.0, x.get(i) * x.get(i));
      const bool polynomial = op == BinaryOp::sigmoidBackward || op == BinaryOp::tanhBackward;
      // 1 - s of a sigmoid s near 1, times a cubic: 4 times the others.
      const double scale = std::fabs(dy.get(i)) * (polynomial ? 2 * square : 4);
      EXPECT_NEAR(y.get(i), reference(op, dy.get(i), x.get(i)), 1e-6 * scale)
          << opName(op) << " at " << x.get(i);
    }
  }
}

}  // namespace
}  // namespace adjoint::test
