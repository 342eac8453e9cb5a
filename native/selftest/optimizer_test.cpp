// sgd and adam against the formulas of torch.optim in float64.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "contract.h"
#include "test_tensor.h"

namespace adjoint {
namespace {

using backend::AdamArgs;
using backend::SgdArgs;

double tolerance(DType d) {
  return d == DType::float64    ? 1e-14
         : d == DType::float32  ? 1e-6
         : d == DType::bfloat16 ? 1.6e-2
                                : 2e-3;
}

void expectNear(const TestTensor& got, const std::vector<double>& expected, const char* what) {
  for (int64_t i = 0; i < got.numel(); i++) {
    ASSERT_NEAR(got.get(i), expected[i], tolerance(got.view().dtype) * (1 + std::abs(expected[i])))
        << what << " at " << i;
  }
}

// The parameters of a model: one tensor larger than a block of work, some tiny, one empty.
const int64_t kSizes[] = {1, 17, 0, 9000, 33, 64};

struct Model {
  explicit Model(DType dtype, int buffers) {
    for (int64_t n : kSizes) {
      std::vector<std::unique_ptr<TestTensor>> row;
      for (int i = 0; i < 2 + buffers; i++) {
        row.push_back(std::make_unique<TestTensor>(dtype, std::vector<int64_t>{n}));
        row.back()->randomize(static_cast<unsigned>(n + i));
        if (i >= 2) row.back()->fill(0);
      }
      tensors.push_back(std::move(row));
    }
  }
  // A fresh gradient for each step.
  void newGradients(unsigned step) {
    for (auto& row : tensors) row[1]->randomize(100 * step + 1);
  }
  const View& view(size_t entry, size_t i) const { return tensors[entry][i]->view(); }

  std::vector<std::vector<std::unique_ptr<TestTensor>>> tensors;
};

void expectSgd(DType dtype, SgdArgs args) {
  const bool hasMomentum = args.momentum != 0;
  Model model(dtype, hasMomentum ? 1 : 0);
  if (hasMomentum) {  // what is there before the first step must not count
    for (auto& row : model.tensors) row[2]->fill(NAN);
  }
  std::vector<std::vector<double>> p, buffer(std::size(kSizes));
  for (auto& row : model.tensors) p.push_back(row[0]->values());
  for (unsigned step = 1; step <= 3; step++) {
    model.newGradients(step);
    std::vector<backend::SgdEntry> entries;
    for (size_t e = 0; e < p.size(); e++) {
      entries.push_back(
          {model.view(e, 0), model.view(e, 1), hasMomentum ? model.view(e, 2) : View{}});
      buffer[e].resize(p[e].size());
      // Half types forget what they round: the reference goes on from what is stored.
      p[e] = model.tensors[e][0]->values();
      if (hasMomentum && step > 1) buffer[e] = model.tensors[e][2]->values();
      for (size_t i = 0; i < p[e].size(); i++) {
        double g = model.tensors[e][1]->get(i) * (args.maximize ? -1 : 1);
        g += args.weightDecay * p[e][i];
        if (hasMomentum) {
          buffer[e][i] = step == 1 ? g : args.momentum * buffer[e][i] + (1 - args.dampening) * g;
          g = args.nesterov ? g + args.momentum * buffer[e][i] : buffer[e][i];
        }
        p[e][i] -= args.lr * g;
      }
    }
    args.firstStep = step == 1;
    backend::sgd(entries, args);
    for (size_t e = 0; e < p.size(); e++) {
      expectNear(*model.tensors[e][0], p[e], "param");
      if (hasMomentum) expectNear(*model.tensors[e][2], buffer[e], "momentum");
    }
  }
}

void expectAdam(DType dtype, AdamArgs args, bool amsgrad) {
  Model model(dtype, amsgrad ? 3 : 2);
  for (unsigned step = 1; step <= 3; step++) {
    model.newGradients(step);
    std::vector<backend::AdamEntry> entries;
    std::vector<std::vector<double>> p, m, v, vMax;
    for (size_t e = 0; e < model.tensors.size(); e++) {
      auto& row = model.tensors[e];
      entries.push_back({model.view(e, 0), model.view(e, 1), model.view(e, 2), model.view(e, 3),
                         amsgrad ? model.view(e, 4) : View{}});
      p.push_back(row[0]->values());
      m.push_back(row[2]->values());
      v.push_back(row[3]->values());
      vMax.push_back(amsgrad ? row[4]->values() : v.back());
      for (size_t i = 0; i < p[e].size(); i++) {
        double g = row[1]->get(i) * (args.maximize ? -1 : 1);
        if (args.decoupledDecay) {
          p[e][i] *= 1 - args.lr * args.weightDecay;
        } else {
          g += args.weightDecay * p[e][i];
        }
        m[e][i] = args.beta1 * m[e][i] + (1 - args.beta1) * g;
        v[e][i] = args.beta2 * v[e][i] + (1 - args.beta2) * g * g;
        vMax[e][i] = amsgrad ? std::max(vMax[e][i], v[e][i]) : v[e][i];
        const double correction = std::sqrt(1 - std::pow(args.beta2, step));
        const double size = args.lr / (1 - std::pow(args.beta1, step));
        p[e][i] -= size * m[e][i] / (std::sqrt(vMax[e][i]) / correction + args.eps);
      }
    }
    args.step = step;
    backend::adam(entries, args);
    for (size_t e = 0; e < p.size(); e++) {
      expectNear(*model.tensors[e][0], p[e], "param");
      expectNear(*model.tensors[e][2], m[e], "m");
      expectNear(*model.tensors[e][3], v[e], "v");
      if (amsgrad) expectNear(*model.tensors[e][4], vMax[e], "vMax");
    }
  }
}

constexpr DType kFloats[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};

TEST(Sgd, EveryOption) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (DType dtype : kFloats) {
      for (double momentum : {0.0, 0.9}) {
        for (double decay : {0.0, 0.01}) {
          for (bool maximize : {false, true}) {
            expectSgd(dtype, {0.1, momentum, 0, decay, false, maximize, true});
            if (momentum == 0) continue;
            expectSgd(dtype, {0.1, momentum, 0, decay, true, maximize, true});
            expectSgd(dtype, {0.1, momentum, 0.3, decay, false, maximize, true});
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  });
}

TEST(Adam, EveryOption) {
  forEachSimdLevel([](const char* level) {
    SCOPED_TRACE(level);
    for (DType dtype : kFloats) {
      // Half types have no room for a smaller eps: sqrt(v) of a tiny gradient is 0.
      const double eps = dtype == DType::float16 || dtype == DType::bfloat16 ? 1e-2 : 1e-8;
      for (bool amsgrad : {false, true}) {
        for (double decay : {0.0, 0.1}) {
          for (bool decoupled : {false, true}) {
            for (bool maximize : {false, true}) {
              expectAdam(dtype, {0.01, 0.9, 0.999, eps, decay, 1, decoupled, maximize}, amsgrad);
              if (testing::Test::HasFatalFailure()) return;
            }
          }
        }
      }
    }
  });
}

// The first step of Adam moves every parameter by lr, whatever the size of its gradient.
TEST(Adam, FirstStepIsTheLearningRate) {
  TestTensor p(DType::float32, {40}), g(DType::float32, {40}), m(DType::float32, {40});
  TestTensor v(DType::float32, {40});
  p.fill(1);
  m.fill(0);
  v.fill(0);
  for (int64_t i = 0; i < 40; i++) g.set(i, (i % 2 ? -1 : 1) * std::pow(10, i % 7 - 3));
  backend::adam({{p.view(), g.view(), m.view(), v.view(), View{}}},
                {0.01, 0.9, 0.999, 1e-8, 0, 1, false, false});
  for (int64_t i = 0; i < 40; i++) EXPECT_NEAR(p.get(i), i % 2 ? 1.01 : 0.99, 2e-7);
}

TEST(Adam, AmsgradKeepsANaN) {
  TestTensor p(DType::float32, {20}), g(DType::float32, {20}), m(DType::float32, {20});
  TestTensor v(DType::float32, {20}), vMax(DType::float32, {20});
  for (TestTensor* t : {&p, &m, &v, &vMax}) t->fill(1);
  g.fill(1);
  g.set(3, NAN);
  backend::adam({{p.view(), g.view(), m.view(), v.view(), vMax.view()}},
                {0.01, 0.9, 0.999, 1e-8, 0, 1, false, false});
  for (int64_t i = 0; i < 20; i++) EXPECT_EQ(std::isnan(vMax.get(i)), i == 3);
}

TEST(Optimizer, RefusesIntegers) {
  TestTensor p(DType::int32, {4}), g(DType::int32, {4});
  EXPECT_THROW(backend::sgd({{p.view(), g.view(), View{}}}, {0.1, 0, 0, 0, false, false, true}),
               Error);
}

TEST(Optimizer, NoParameters) {
  EXPECT_NO_THROW(backend::sgd({}, {0.1, 0, 0, 0, false, false, true}));
  EXPECT_NO_THROW(backend::adam({}, {0.1, 0.9, 0.999, 1e-8, 0, 1, false, false}));
}

TEST(Unscale, multipliesAndFindsWhatIsNotFinite) {
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    for (double odd : {0.0, HUGE_VAL, -HUGE_VAL, std::nan("")}) {
      Model model(dtype, 0);
      std::vector<View> grads;
      std::vector<std::vector<double>> expected;
      for (size_t e = 0; e < model.tensors.size(); e++) {
        TestTensor& g = *model.tensors[e][1];
        if (odd != 0 && g.numel() == 9000) g.set(8999, odd);
        grads.push_back(g.view());
        std::vector<double> want;
        TestTensor rounded(dtype, {1});  // an eighth of a small float16 has fewer digits
        for (int64_t i = 0; i < g.numel(); i++) {
          rounded.set(0, g.get(i) / 8);
          want.push_back(rounded.get(0));
        }
        expected.push_back(want);
      }
      TestTensor found(DType::float32, {1});
      found.fill(0);
      backend::unscale(grads, 0.125, found.view());
      EXPECT_EQ(found.get(0), odd == 0 ? 0 : 1) << odd;
      for (size_t e = 0; e < model.tensors.size(); e++) {
        for (size_t i = 0; i < expected[e].size(); i++) {
          const double got = model.tensors[e][1]->get(static_cast<int64_t>(i));
          if (std::isnan(expected[e][i])) {
            EXPECT_TRUE(std::isnan(got));
          } else {
            EXPECT_EQ(got, expected[e][i]);
          }
        }
      }
      // What was found stays.
      backend::unscale({}, 1, found.view());
      EXPECT_EQ(found.get(0), odd == 0 ? 0 : 1);
    }
  }
}

}  // namespace
}  // namespace adjoint
