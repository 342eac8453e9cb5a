// Optimizer steps: all parameters' elements in one parallel pass.
#include "cpu/kernels/optimizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "contract.h"
#include "cpu/pool.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kBlock = 8192;    // elements of one entry
constexpr int64_t kTaskBlocks = 4;  // in one chunk

const OptimizerKernels& kernelsFor(DType dtype) {
  if (!isFloating(dtype)) {
    fail(ErrorKind::dtype, "optimizer: expected parameters of a floating-point type, got %s",
         dtypeName(dtype));
  }
  return optimizerTable().byDType[static_cast<int>(dtype)];
}

void* at(const View& x, int64_t i) {
  return x.data ? x.as<char>() + i * static_cast<int64_t>(itemSize(x.dtype)) : nullptr;
}

// Calls update(entry, begin, end) for blocks of the elements of all entries.
template <class Entry, class F>
void forEachBlock(const std::vector<Entry>& entries, const F& update) {
  std::vector<int64_t> firstBlock(entries.size() + 1, 0);
  for (size_t e = 0; e < entries.size(); e++) {
    firstBlock[e + 1] = firstBlock[e] + (entries[e].param.numel() + kBlock - 1) / kBlock;
  }
  parallelFor(firstBlock.back(), kTaskBlocks, [&](int64_t begin, int64_t end) {
    size_t e = std::upper_bound(firstBlock.begin(), firstBlock.end(), begin) - firstBlock.begin();
    for (e--; begin < end; begin++) {
      while (begin >= firstBlock[e + 1]) e++;
      const int64_t first = (begin - firstBlock[e]) * kBlock;
      update(entries[e], first, std::min(entries[e].param.numel(), first + kBlock));
    }
  });
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
  struct Entry {
    View param;
  };
  std::vector<Entry> entries;
  for (const View& grad : grads) {
    kernelsFor(grad.dtype);
    entries.push_back({grad});
  }
  std::atomic<bool> isFinite{true};
  forEachBlock(entries, [&](const Entry& e, int64_t begin, int64_t end) {
    const OptimizerKernels& kernels = kernelsFor(e.param.dtype);
    if (!kernels.unscale(at(e.param, begin), end - begin, factor)) isFinite = false;
  });
  if (!isFinite) *found.as<float>() = 1;
}

}  // namespace adjoint::backend
