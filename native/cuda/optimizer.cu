// SGD, Adam and the unscaling of gradients over all parameters by few launches (multi_tensor.h).
#include <cmath>

#include "contract.h"
#include "cuda/multi_tensor.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

constexpr int kFloatOne = 0x3f800000;  // the bits of 1.f

// g = grad + weightDecay p; b = momentum b + (1 - dampening) g; p -= lr (nesterov ? g + momentum b
// : b), or p -= lr g without momentum
template <class T>
struct SgdUpdate {
  using Type = T;
  T lr, momentum, keptGradient, weightDecay, sign;
  bool nesterov, firstStep;

  ADJOINT_DEVICE void operator()(T (&x)[3], bool hasMomentum) const {
    T g = sign * x[1];
    if (weightDecay != T(0)) g += weightDecay * x[0];
    if (hasMomentum) {
      x[2] = firstStep ? g : momentum * x[2] + keptGradient * g;
      g = nesterov ? g + momentum * x[2] : x[2];
    }
    x[0] -= lr * g;
  }
};

// m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
// p -= lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps), v the largest so far for amsgrad
template <class T>
struct AdamUpdate {
  using Type = T;
  T beta1, newM, beta2, newV, eps, l2, decay, stepSize, rootCorrection, sign;

  ADJOINT_DEVICE void operator()(T (&x)[5], bool amsgrad) const {
    T g = sign * x[1];
    if (l2 != T(0)) g += l2 * x[0];
    x[2] = beta1 * x[2] + newM * g;
    x[3] = beta2 * x[3] + newV * g * g;
    x[4] = amsgrad ? maximumOf(x[4], x[3]) : x[3];
    const T root = Math<T>::sqrt(x[4]) / rootCorrection + eps;
    x[0] = x[0] * decay - stepSize * x[2] / root;
  }
};

// g = factor g; who meets an infinity or a NaN says so.
template <class T>
struct UnscaleUpdate {
  using Type = T;
  T factor;
  float* found;

  ADJOINT_DEVICE void operator()(T (&x)[1], bool) const {
    // x - x is 0 for all that is finite.
    if (!(x[0] - x[0] == T(0))) atomicExch(reinterpret_cast<int*>(found), kFloatOne);
    x[0] *= factor;
  }
};

template <template <class> class Update, int N, class Make, class Entries, class ViewsOf>
void updateAll(const Entries& entries, const Make& make, const ViewsOf& viewsOf) {
  const Changing<Update<float>> narrow = changing(make(float()));
  const Changing<Update<double>> wide = changing(make(double()));
  if (isRenewing()) return;
  auto float32 = updatesOf<float, N>(narrow);
  auto float64 = updatesOf<double, N>(wide);
  auto bfloat16 = updatesOf<BFloat16, N>(narrow);
  auto float16 = updatesOf<Float16, N>(narrow);
  for (const auto& entry : entries) {
    viewsOf(entry, [&](const View* const(&views)[N]) {
      switch (entry.param.dtype) {
        case DType::float32:
          return float32.add(views);
        case DType::float64:
          return float64.add(views);
        case DType::bfloat16:
          return bfloat16.add(views);
        case DType::float16:
          return float16.add(views);
        default:
          fail(ErrorKind::dtype, "optimizer: expected parameters of a floating-point type, got %s",
               dtypeName(entry.param.dtype));
      }
    });
  }
  float32.flush();
  float64.flush();
  bfloat16.flush();
  float16.flush();
}

}  // namespace
}  // namespace cuda

void backend::sgd(const std::vector<SgdEntry>& entries, const SgdArgs& a) {
  auto make = [&](auto zero) {
    using T = decltype(zero);
    return cuda::SgdUpdate<T>{static_cast<T>(a.lr),
                              static_cast<T>(a.momentum),
                              static_cast<T>(1 - a.dampening),
                              static_cast<T>(a.weightDecay),
                              static_cast<T>(a.maximize ? -1 : 1),
                              a.nesterov,
                              a.firstStep};
  };
  cuda::updateAll<cuda::SgdUpdate, 3>(entries, make, [](const SgdEntry& e, const auto& add) {
    add({&e.param, &e.grad, &e.momentum});
  });
}

void backend::adam(const std::vector<AdamEntry>& entries, const AdamArgs& a) {
  auto make = [&](auto zero) {
    using T = decltype(zero);
    const auto step = static_cast<double>(a.step);
    return cuda::AdamUpdate<T>{static_cast<T>(a.beta1),
                               static_cast<T>(1 - a.beta1),
                               static_cast<T>(a.beta2),
                               static_cast<T>(1 - a.beta2),
                               static_cast<T>(a.eps),
                               static_cast<T>(a.decoupledDecay ? 0 : a.weightDecay),
                               static_cast<T>(a.decoupledDecay ? 1 - a.lr * a.weightDecay : 1),
                               static_cast<T>(a.lr / (1 - std::pow(a.beta1, step))),
                               static_cast<T>(std::sqrt(1 - std::pow(a.beta2, step))),
                               static_cast<T>(a.maximize ? -1 : 1)};
  };
  cuda::updateAll<cuda::AdamUpdate, 5>(entries, make, [](const AdamEntry& e, const auto& add) {
    add({&e.param, &e.grad, &e.m, &e.v, &e.vMax});
  });
}

void backend::unscale(const std::vector<View>& grads, double factor, const View& found) {
  auto make = [&](auto zero) {
    using T = decltype(zero);
    return cuda::UnscaleUpdate<T>{static_cast<T>(factor), found.as<float>()};
  };
  struct Entry {
    View param;
  };
  std::vector<Entry> entries;
  for (const View& grad : grads) entries.push_back({grad});
  cuda::updateAll<cuda::UnscaleUpdate, 1>(entries, make,
                                          [](const Entry& e, const auto& add) { add({&e.param}); });
}

}  // namespace adjoint
