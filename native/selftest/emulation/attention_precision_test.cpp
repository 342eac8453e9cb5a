// Attention of float32 on tensor cores: how exact it is, and what becomes of infinities.
#include <random>

#include "attention_trial.h"

namespace adjoint::test {
namespace {

class WithProducts {
 public:
  explicit WithProducts(backend::Float32Products products) {
    backend::setFloat32Products(products);
  }
  ~WithProducts() { backend::setFloat32Products(backend::Float32Products::highest); }
};

// The root mean square of the errors, relative to that of what is wanted.
double errorOf(const Values& got, const Values& want) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); i++) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(error / norm);
}

// Heads of 132 columns are beyond the tensor cores' kernels, so the last columns, which are zeros
// there, bring the same problem to the kernels without: three products in TF32 may err four times
// as much as float32 does, one of them by its 11 bits.
TEST_P(AttentionOnDevice, errorsOfProductsInTf32) {
  const int64_t d = 64, wide = 132;
  Case c{1, 1, 70, 150, d, d};
  Trial narrow(c);
  std::mt19937 generator(9);
  std::normal_distribution<float> draw;
  for (Values* x : {&narrow.q, &narrow.k, &narrow.v, &narrow.dy}) {
    for (double& value : *x) value = draw(generator);
  }
  Case beyond = c;
  beyond.d = beyond.e = wide;
  beyond.width = d;
  Trial plain(beyond);
  const auto widen = [&](const Values& x) {
    Values y(x.size() / d * wide);
    for (size_t i = 0; i < x.size(); i++) y[i / d * wide + i % d] = x[i];
    return y;
  };
  plain.q = widen(narrow.q);
  plain.k = widen(narrow.k);
  plain.v = widen(narrow.v);
  plain.dy = widen(narrow.dy);
  plain.run();
  const Trial::Wanted want = narrow.wanted(), wantWide = plain.wanted();
  const bool hasTensorCores = cuda::computeCapability() >= 80;
  for (auto products : {backend::Float32Products::highest, backend::Float32Products::high}) {
    const WithProducts setting(products);
    narrow.run();
    const auto check = [&](const char* what, const Values& got, const Values& wanted,
                           const Values& gotPlain, const Values& wantedPlain) {
      const double error = errorOf(got, wanted), plainError = errorOf(gotPlain, wantedPlain);
      SCOPED_TRACE(what);
      if (products == backend::Float32Products::highest) {
        EXPECT_LE(error, 4 * plainError);
      } else {
        EXPECT_LE(error, 4 * 0x1p-11);
        if (hasTensorCores) {
          EXPECT_GT(error, 4 * plainError) << "one product was not enough";
        }
      }
    };
    check("lse", narrow.lse, want.lse, plain.lse, wantWide.lse);
    check("y", narrow.y, want.y, plain.y, wantWide.y);
    check("dq", narrow.got.dq, want.gradients.dq, plain.got.dq, wantWide.gradients.dq);
    check("dk", narrow.got.dk, want.gradients.dk, plain.got.dk, wantWide.gradients.dk);
    check("dv", narrow.got.dv, want.gradients.dv, plain.got.dv, wantWide.gradients.dv);
  }
}

// One product in TF32, in each of the widths that there are kernels for.
TEST_P(AttentionOnDevice, oneProductInTf32) {
  const WithProducts setting(backend::Float32Products::high);
  for (int64_t width : {20, 64, 100}) {
    Trial run({1, 1, 33, 70, width, width, MaskKind::causal});
    run.run();
    const Trial::Wanted want = run.wanted();
    expectClose(run.y, want.y, 0x1p-9);
    expectClose(run.got.dq, want.gradients.dq, 0x1p-8);
    expectClose(run.got.dk, want.gradients.dk, 0x1p-8);
    expectClose(run.got.dv, want.gradients.dv, 0x1p-8);
  }
}

// The parts of an infinity in TF32 make a NaN; results are those of float32 all the same.
TEST_P(AttentionOnDevice, infinityIsThatOfFloat32) {
  Trial run({1, 1, 20, 40, 16, 16});
  for (double& x : run.q) x = std::fabs(x) + 0.25;
  for (double& x : run.k) x = std::fabs(x) + 0.25;
  run.v[7 * 16 + 3] = INFINITY;
  run.k[9 * 16 + 5] = -INFINITY;  // its weight is 0
  run.run();
  for (size_t i = 0; i < 20; i++) {
    for (size_t m = 0; m < 16; m++) {
      EXPECT_EQ(std::isinf(run.y[i * 16 + m]), m == 3) << i << ", " << m;
      EXPECT_FALSE(std::isnan(run.y[i * 16 + m])) << i << ", " << m;
    }
  }
}

}  // namespace
}  // namespace adjoint::test
