#include "cpu/kernels/optimizer.h"

#include "cpu/kernels/lanes.h"
#include "shared/convert.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// S is stored, T is computed in. The buffers are of different tensors, so the loops' iterations are
// independent.

// g += weightDecay p; b = momentum b + (1 - dampening) g; g = nesterov ? g + momentum b : b;
// p -= lr g
template <class S, class T>
void sgd(void* param, const void* grad, void* momentum, int64_t n, const SgdStep& step) {
  S* __restrict p = static_cast<S*>(param);
  const S* __restrict gs = static_cast<const S*>(grad);
  S* __restrict b = static_cast<S*>(momentum);
  const T lr = static_cast<T>(step.lr), decay = static_cast<T>(step.weightDecay);
  const T sign = step.maximize ? T(-1) : T(1);
  const T kept = static_cast<T>(step.isFirst ? 0 : step.momentum);
  const T added = static_cast<T>(step.isFirst ? 1 : 1 - step.dampening);
  const T ahead = static_cast<T>(step.momentum);
  const bool decays = step.weightDecay != 0, first = step.isFirst, nesterov = step.nesterov;
  if (!b) {
    for (int64_t i = 0; i < n; i++) {
      const T x = convert<T>(p[i]);
      T g = sign * convert<T>(gs[i]);
      if (decays) g += decay * x;
      p[i] = convert<S>(x - lr * g);
    }
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    const T x = convert<T>(p[i]);
    T g = sign * convert<T>(gs[i]);
    if (decays) g += decay * x;
    // The first time the buffer holds nothing, not even a number.
    const T velocity = first ? g : kept * convert<T>(b[i]) + added * g;
    b[i] = convert<S>(velocity);
    p[i] = convert<S>(x - lr * (nesterov ? g + ahead * velocity : velocity));
  }
}

// m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
// p = decay p - stepSize m / (sqrt(v) / rootCorrection + eps)
template <class S, class T, bool Amsgrad>
ADJOINT_INLINE void adamLoop(S* __restrict p, const S* __restrict gs, S* __restrict ms,
                             S* __restrict vs, S* __restrict vMaxs, int64_t n,
                             const AdamStep& step) {
  const T size = static_cast<T>(step.stepSize), eps = static_cast<T>(step.eps);
  const T beta1 = static_cast<T>(step.beta1), rest1 = static_cast<T>(1 - step.beta1);
  const T beta2 = static_cast<T>(step.beta2), rest2 = static_cast<T>(1 - step.beta2);
  const T decay = static_cast<T>(step.decay), l2 = static_cast<T>(step.weightDecay);
  const T scale = static_cast<T>(1 / step.rootCorrection);
  const T sign = step.maximize ? T(-1) : T(1);
  const bool hasL2 = step.weightDecay != 0;
  for (int64_t i = 0; i < n; i++) {
    const T x = convert<T>(p[i]);
    T g = sign * convert<T>(gs[i]);
    if (hasL2) g += l2 * x;
    const T m = beta1 * convert<T>(ms[i]) + rest1 * g;
    const T v = beta2 * convert<T>(vs[i]) + rest2 * g * g;
    ms[i] = convert<S>(m);
    vs[i] = convert<S>(v);
    T second = v;
    if constexpr (Amsgrad) {
      const T before = convert<T>(vMaxs[i]);
      second = v > before || v != v ? v : before;  // NaN wins
      vMaxs[i] = convert<S>(second);
    }
    p[i] = convert<S>(decay * x - size * m / (squareRoot(second) * scale + eps));
  }
}

template <class S, class T>
void adam(void* param, const void* grad, void* m, void* v, void* vMax, int64_t n,
          const AdamStep& step) {
  S* p = static_cast<S*>(param);
  const S* g = static_cast<const S*>(grad);
  if (vMax) {
    adamLoop<S, T, true>(p, g, static_cast<S*>(m), static_cast<S*>(v), static_cast<S*>(vMax), n,
                         step);
  } else {
    adamLoop<S, T, false>(p, g, static_cast<S*>(m), static_cast<S*>(v), nullptr, n, step);
  }
}

template <class S, class T>
bool unscale(void* grad, int64_t n, double factor) {
  S* g = static_cast<S*>(grad);
  const T by = static_cast<T>(factor);
  int bad = 0;
  for (int64_t i = 0; i < n; i++) {
    const T x = convert<T>(g[i]);
    bad |= !(x - x == T(0));  // 0 for all that is finite
    g[i] = convert<S>(by * x);
  }
  return bad == 0;
}

template <class S, class T>
constexpr OptimizerKernels kernelsOf() {
  return {sgd<S, T>, adam<S, T>, unscale<S, T>};
}

}  // namespace

const OptimizerTable optimizerTable = {{kernelsOf<float, float>(), kernelsOf<double, double>(),
                                        kernelsOf<BFloat16, float>(), kernelsOf<Float16, float>()}};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
