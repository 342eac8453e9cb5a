// Optimizer steps: one call for all parameters. The row has the gradients, then for each parameter
// its own buffers, then the hyperparameters; what changes from step to step is read from slots.
#include "../call.h"

namespace adjoint {
namespace {

constexpr int64_t kMaxEntries = 1 << 20;

int64_t entryCount(Call& c) {
  int64_t n = c.integer();
  if (n < 0 || n > kMaxEntries) fail(ErrorKind::internal, "optimizer: expected a count");
  return n;
}

// The kernels run over flat memory.
View flat(const View& v, const View& like) {
  if (!v.isContiguous() || v.numel() != like.numel()) {
    fail(ErrorKind::internal, "optimizer: expected contiguous buffers of the gradient's size");
  }
  return v;
}

const Family family({
    {"sgd",
     [](Call& c) {
       std::vector<backend::SgdEntry> entries(entryCount(c));
       bool hasMomentum = c.flag();
       for (auto& e : entries) {
         const View& grad = c.input();
         e.grad = flat(grad, grad);
       }
       for (auto& e : entries) {
         e.param = flat(c.inPlace(), e.grad);
         if (hasMomentum) e.momentum = flat(c.inPlace(), e.grad);
       }
       backend::SgdArgs a;
       a.lr = c.slot();
       a.momentum = c.number();
       a.dampening = c.number();
       a.weightDecay = c.number();
       a.nesterov = c.flag();
       a.maximize = c.flag();
       a.firstStep = c.slot() == 1;
       backend::sgd(entries, a);
     }},
    {"adam",
     [](Call& c) {
       std::vector<backend::AdamEntry> entries(entryCount(c));
       bool amsgrad = c.flag();
       for (auto& e : entries) {
         const View& grad = c.input();
         e.grad = flat(grad, grad);
       }
       for (auto& e : entries) {
         e.param = flat(c.inPlace(), e.grad);
         e.m = flat(c.inPlace(), e.grad);
         e.v = flat(c.inPlace(), e.grad);
         if (amsgrad) e.vMax = flat(c.inPlace(), e.grad);
       }
       backend::AdamArgs a;
       a.lr = c.slot();
       a.step = static_cast<int64_t>(c.slot());
       a.beta1 = c.number();
       a.beta2 = c.number();
       a.eps = c.number();
       a.weightDecay = c.number();
       a.decoupledDecay = c.flag();
       a.maximize = c.flag();
       backend::adam(entries, a);
     }},
    {"unscale",
     [](Call& c) {
       std::vector<View> grads(entryCount(c));
       for (View& grad : grads) {
         const View& g = c.inPlace();
         grad = flat(g, g);
       }
       const View& found = c.inPlace();
       if (found.dtype != DType::float32 || found.numel() != 1) {
         fail(ErrorKind::internal, "unscale: expected a float32 that says what was found");
       }
       backend::unscale(grads, c.slot(), found);
     }},
});

}  // namespace
}  // namespace adjoint
