// Optimizer steps: all parameters' elements in one parallel pass.
#include "cpu/kernels/optimizer.h"

#include <atomic>
#include <cmath>

#include "contract.h"
#include "cpu/multi_tensor.h"

namespace adjoint::cpu {
namespace {

const OptimizerKernels& kernelsFor(DType dtype) {
  if (!isFloating(dtype)) {
    fail(ErrorKind::dtype, "optimizer: expected parameters of a floating-point type, got %s",
         dtypeName(dtype));
  }
  return optimizerTable().byDType[static_cast<int>(dtype)];
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

void sgd(const std::vector<SgdEntry>& entries, const SgdArgs& args) {
  using namespace cpu;
  const SgdStep step{args.lr,       args.momentum, args.dampening, args.weightDecay,
                     args.nesterov, args.maximize, args.firstStep};
  for (const SgdEntry& e : entries) kernelsFor(e.param.dtype);
  forEachBlock(entries, [&](const SgdEntry& e, int64_t begin, int64_t end) {
    kernelsFor(e.param.dtype)
        .sgd(at(e.param, begin), at(e.grad, begin), at(e.momentum, begin), end - begin, step);
  });
}

void adam(const std::vector<AdamEntry>& entries, const AdamArgs& args) {
  using namespace cpu;
  const auto t = static_cast<double>(args.step);
  AdamStep step;
  step.stepSize = args.lr / (1 - std::pow(args.beta1, t));
  step.rootCorrection = std::sqrt(1 - std::pow(args.beta2, t));
  step.beta1 = args.beta1;
  step.beta2 = args.beta2;
  step.eps = args.eps;
  step.decay = args.decoupledDecay ? 1 - args.lr * args.weightDecay : 1;
  step.weightDecay = args.decoupledDecay ? 0 : args.weightDecay;
  step.maximize = args.maximize;
  for (const AdamEntry& e : entries) kernelsFor(e.param.dtype);
  forEachBlock(entries, [&](const AdamEntry& e, int64_t begin, int64_t end) {
    kernelsFor(e.param.dtype)
        .adam(at(e.param, begin), at(e.grad, begin), at(e.m, begin), at(e.v, begin),
              at(e.vMax, begin), end - begin, step);
  });
}

void unscale(const std::vector<View>& grads, double factor, const View& found) {
  using namespace cpu;
  for (const View& grad : grads) kernelsFor(grad.dtype);
  std::atomic<bool> isFinite{true};
  forEachBlock(grads, [&](const View& grad, int64_t begin, int64_t end) {
    const OptimizerKernels& kernels = kernelsFor(grad.dtype);
    if (!kernels.unscale(at(grad, begin), end - begin, factor)) isFinite = false;
  });
  if (!isFinite) *found.as<float>() = 1;
}

}  // namespace adjoint::backend
