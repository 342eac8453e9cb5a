// Steps of SGD and Adam over many parameters at once against float64, one parameter at a time.
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class OptimizerOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(OptimizerOnDevice);

// More parameters than one launch takes, one longer than a block's piece, one empty.
Sizes parameterSizes() {
  Sizes sizes(200, 3);
  sizes[0] = 0;
  sizes[2] = 40001;
  sizes[3] = 257;
  return sizes;
}
DType dtypeOf(size_t parameter) {
  return parameter % 7 == 3   ? DType::float64
         : parameter % 7 == 5 ? DType::bfloat16
                              : DType::float32;
}

struct Buffers {
  std::vector<DeviceTensor> tensors;
  std::vector<Values> values;

  explicit Buffers(double low, double high, unsigned seed) {
    const Sizes sizes = parameterSizes();
    for (size_t i = 0; i < sizes.size(); i++) {
      values.push_back(
          randomValues(sizes[i], low, high, DType::float32, seed + static_cast<unsigned>(i)));
      tensors.emplace_back(dtypeOf(i), Sizes{sizes[i]}, values[i]);
    }
  }
  void compare(const char* what, double tolerance) const {
    for (size_t i = 0; i < tensors.size(); i++) {
      SCOPED_TRACE(std::string(what) + " of parameter " + std::to_string(i));
      expectClose(tensors[i].read(), values[i], tolerance * epsilonOf(dtypeOf(i)));
    }
  }
};

TEST_P(OptimizerOnDevice, sgd) {
  for (int variant = 0; variant < 8; variant++) {
    SCOPED_TRACE("variant " + std::to_string(variant));
    const bool hasMomentum = variant > 0;
    const backend::SgdArgs args = {
        0.1,          hasMomentum ? 0.9 : 0, variant == 2 ? 0.5 : 0,      variant & 1 ? 0.01 : 0,
        variant >= 4, variant == 6,          variant == 3 || variant == 5};
    Buffers p(-2, 2, 1), g(-1, 1, 100), b(-1, 1, 200);
    std::vector<backend::SgdEntry> entries;
    for (size_t i = 0; i < p.tensors.size(); i++) {
      entries.push_back({p.tensors[i], g.tensors[i], hasMomentum ? b.tensors[i].view : View()});
      for (size_t j = 0; j < p.values[i].size(); j++) {
        double &x = p.values[i][j], &m = b.values[i][j];
        double d = (args.maximize ? -1 : 1) * g.values[i][j] + args.weightDecay * x;
        if (hasMomentum) {
          m = args.firstStep ? d : args.momentum * m + (1 - args.dampening) * d;
          d = args.nesterov ? d + args.momentum * m : m;
        }
        x -= args.lr * d;
      }
    }
    backend::sgd(entries, args);
    p.compare("value", 4);
    g.compare("gradient", 0);
    b.compare("momentum", 4);
  }
}

TEST_P(OptimizerOnDevice, adam) {
  for (int variant = 0; variant < 4; variant++) {
    SCOPED_TRACE("variant " + std::to_string(variant));
    const bool amsgrad = variant & 1;
    const backend::AdamArgs args = {1e-2, 0.9,         0.99,         1e-8,
                                    0.1,  3 + variant, variant >= 2, variant == 3};
    Buffers p(-2, 2, 1), g(-1, 1, 100), m(-1, 1, 200), v(0.5, 1, 300), high(0.5, 1, 400);
    std::vector<backend::AdamEntry> entries;
    for (size_t i = 0; i < p.tensors.size(); i++) {
      entries.push_back({p.tensors[i], g.tensors[i], m.tensors[i], v.tensors[i],
                         amsgrad ? high.tensors[i].view : View()});
      for (size_t j = 0; j < p.values[i].size(); j++) {
        double& x = p.values[i][j];
        double d = (args.maximize ? -1 : 1) * g.values[i][j];
        if (args.decoupledDecay) {
          x *= 1 - args.lr * args.weightDecay;
        } else {
          d += args.weightDecay * x;
        }
        double& mean = m.values[i][j] = args.beta1 * m.values[i][j] + (1 - args.beta1) * d;
        double square = v.values[i][j] = args.beta2 * v.values[i][j] + (1 - args.beta2) * d * d;
        if (amsgrad) square = high.values[i][j] = std::max(high.values[i][j], square);
        const double t = static_cast<double>(args.step);
        const double root = std::sqrt(square / (1 - std::pow(args.beta2, t))) + args.eps;
        x -= args.lr * mean / (1 - std::pow(args.beta1, t)) / root;
      }
    }
    backend::adam(entries, args);
    p.compare("value", 4);
    g.compare("gradient", 0);
    m.compare("mean", 4);
    v.compare("square", 4);
    high.compare("largest square", 4);
  }
}

TEST_P(OptimizerOnDevice, unscale) {
  for (double odd : {0.0, HUGE_VAL, std::nan("")}) {
    SCOPED_TRACE(odd);
    Buffers g(-1, 1, 1);
    if (odd != 0) {  // one in a vector, one beyond
      for (size_t at : {size_t(20000), size_t(40000)}) g.values[2][at] = odd;
      g.tensors[2] = DeviceTensor(dtypeOf(2), {parameterSizes()[2]}, g.values[2]);
    }
    std::vector<View> grads;
    for (size_t i = 0; i < g.tensors.size(); i++) {
      grads.push_back(g.tensors[i]);
      for (double& x : g.values[i]) x *= 0.125;
    }
    DeviceTensor found(DType::float32, {1}, {0});
    backend::unscale(grads, 0.125, found);
    g.compare("gradient", 0);
    EXPECT_EQ(found.read()[0], odd == 0 ? 0 : 1);
    backend::unscale({}, 1, found);
    EXPECT_EQ(found.read()[0], odd == 0 ? 0 : 1);
  }
}

}  // namespace
}  // namespace adjoint::test
