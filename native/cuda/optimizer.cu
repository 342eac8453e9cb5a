// SGD and Adam over all parameters by few launches: a block takes a piece of one parameter, and a
// launch carries as many parameters of one dtype as fit among its arguments.
#include <cmath>

#include "contract.h"
#include "cuda/elements.h"
#include "cuda/graph.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

constexpr int kOptimizerThreads = 256;
constexpr int64_t kPiece = 4096;  // elements a block takes
constexpr int kMaxEntries = 72;
constexpr int kFloatOne = 0x3f800000;  // the bits of 1.f

// N buffers for each parameter: the parameter itself, its gradient, then state.
template <int N>
struct Batch {
  void* data[kMaxEntries][N];
  int64_t numel[kMaxEntries];
  int32_t end[kMaxEntries];   // how many blocks this entry and those before it take
  bool vectors[kMaxEntries];  // all buffers are aligned for them
  int entries;
};
static_assert(sizeof(Batch<5>) <= 3900, "a kernel's arguments end at 4 KiB");

// The entry of a block.
template <int N>
ADJOINT_DEVICE int entryOf(const Batch<N>& batch, int block) {
  int low = 0, high = batch.entries - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (block < batch.end[middle]) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// update(x, hasLast) changes the N values of one element; the gradient (1) is not written back. The
// last buffer may be missing. S: what is stored.
template <class S, int N, class Update>
__global__ void __launch_bounds__(kOptimizerThreads)
    optimizerKernel(const Batch<N> batch, const Changing<Update> changing) {
  using T = typename Update::Type;
  const Update update = changing.get();
  const int block = static_cast<int>(blockIdx.x), e = entryOf(batch, block);
  S* data[N];
  for (int k = 0; k < N; k++) data[k] = static_cast<S*>(batch.data[e][k]);
  const bool hasLast = data[N - 1] != nullptr;
  const int64_t begin = int64_t(block - (e > 0 ? batch.end[e - 1] : 0)) * kPiece;
  const int64_t end = begin + kPiece < batch.numel[e] ? begin + kPiece : batch.numel[e];
  const int64_t vectorEnd = batch.vectors[e] ? begin + (end - begin) / kVector * kVector : begin;
  for (int64_t i = begin + threadIdx.x * kVector; i < vectorEnd; i += kOptimizerThreads * kVector) {
    Pack<S> rows[N] = {};
    for (int k = 0; k < N; k++) {
      if (k < N - 1 || hasLast) rows[k] = reinterpret_cast<const Pack<S>*>(data[k])[i / kVector];
    }
    for (int j = 0; j < kVector; j++) {
      T x[N];
      for (int k = 0; k < N; k++) x[k] = convert<T>(rows[k].value[j]);
      update(x, hasLast);
      for (int k = 0; k < N; k++) rows[k].value[j] = convert<S>(x[k]);
    }
    for (int k = 0; k < N; k++) {
      if (k != 1 && (k < N - 1 || hasLast)) {
        reinterpret_cast<Pack<S>*>(data[k])[i / kVector] = rows[k];
      }
    }
  }
  for (int64_t i = vectorEnd + threadIdx.x; i < end; i += kOptimizerThreads) {
    T x[N];
    for (int k = 0; k < N; k++) x[k] = k < N - 1 || hasLast ? convert<T>(data[k][i]) : T(0);
    update(x, hasLast);
    for (int k = 0; k < N; k++) {
      if (k != 1 && (k < N - 1 || hasLast)) data[k][i] = convert<S>(x[k]);
    }
  }
}

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

// Collects entries of one dtype until a launch is full.
template <class S, int N, class Update>
class Launcher {
 public:
  explicit Launcher(const Changing<Update>& update) : update_(update) {}

  void add(const View* const (&views)[N]) {
    const int64_t numel = views[0]->numel();
    if (numel == 0) return;
    const int e = batch_.entries++;
    const int32_t before = e > 0 ? batch_.end[e - 1] : 0;
    batch_.end[e] = before + static_cast<int32_t>(ceilDiv(numel, kPiece));
    batch_.numel[e] = numel;
    batch_.vectors[e] = true;
    for (int k = 0; k < N; k++) {
      batch_.data[e][k] = views[k]->data;
      batch_.vectors[e] = batch_.vectors[e] && isVectorAligned(views[k]->data, views[0]->dtype);
    }
    if (batch_.entries == kMaxEntries) flush();
  }
  void flush() {
    if (batch_.entries > 0) {
      launch(static_cast<unsigned>(batch_.end[batch_.entries - 1]), kOptimizerThreads, 0, stream(),
             optimizerKernel<S, N, Update>, batch_, update_);
    }
    batch_.entries = 0;
  }

 private:
  Batch<N> batch_{};
  Changing<Update> update_;
};

template <template <class> class Update, int N, class Make, class Entries, class ViewsOf>
void updateAll(const Entries& entries, const Make& make, const ViewsOf& viewsOf) {
  const Changing<Update<float>> narrow = changing(make(float()));
  const Changing<Update<double>> wide = changing(make(double()));
  if (isRenewing()) return;
  Launcher<float, N, Update<float>> float32(narrow);
  Launcher<double, N, Update<double>> float64(wide);
  Launcher<BFloat16, N, Update<float>> bfloat16(narrow);
  Launcher<Float16, N, Update<float>> float16(narrow);
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
