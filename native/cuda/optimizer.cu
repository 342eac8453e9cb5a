// SGD and Adam over all parameters by few launches: a block takes a piece of one parameter, and a
// launch carries as many parameters as fit among its arguments.
#include <cmath>

#include "contract.h"
#include "cuda/elements.h"
#include "cuda/graph.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

constexpr int kOptimizerThreads = 256;
constexpr int64_t kPiece = 16384;  // elements a block takes
constexpr int kMaxEntries = 36, kMaxPieces = 320;

// N buffers for each parameter: the parameter itself, its gradient, then state.
template <int N>
struct Batch {
  void* data[kMaxEntries][N];
  int64_t numel[kMaxEntries];
  int32_t piece[kMaxPieces];  // which of its entry's a block takes
  uint8_t entry[kMaxPieces];
  DType dtype[kMaxEntries];
  bool vectors[kMaxEntries];  // all buffers are aligned for them
  int entries, pieces;
};
static_assert(sizeof(Batch<5>) <= 3900, "a kernel's arguments end at 4 KiB");

// update(x, hasLast) changes the N values of one element; the gradient (1) is not written back. The
// last buffer may be missing.
template <class T, int N, class Update>
__global__ void __launch_bounds__(kOptimizerThreads)
    optimizerKernel(const Batch<N> batch, const Changing<Update> changing) {
  const Update update = changing.get();
  const int e = batch.entry[blockIdx.x];
  const DType dtype = batch.dtype[e];
  const bool hasLast = batch.data[e][N - 1] != nullptr;
  const int64_t begin = int64_t(batch.piece[blockIdx.x]) * kPiece;
  const int64_t end = begin + kPiece < batch.numel[e] ? begin + kPiece : batch.numel[e];
  const int64_t vectorEnd = batch.vectors[e] ? begin + (end - begin) / kVector * kVector : begin;
  for (int64_t i = begin + threadIdx.x * kVector; i < vectorEnd; i += blockDim.x * kVector) {
    T rows[N][kVector] = {};
    for (int k = 0; k < N; k++) {
      if (batch.data[e][k]) loadVector(batch.data[e][k], dtype, i, rows[k]);
    }
    for (int j = 0; j < kVector; j++) {
      T x[N];
      for (int k = 0; k < N; k++) x[k] = rows[k][j];
      update(x, hasLast);
      for (int k = 0; k < N; k++) rows[k][j] = x[k];
    }
    for (int k = 0; k < N; k++) {
      if (k != 1 && batch.data[e][k]) storeVector(batch.data[e][k], dtype, i, rows[k]);
    }
  }
  for (int64_t i = vectorEnd + threadIdx.x; i < end; i += blockDim.x) {
    T x[N] = {};
    for (int k = 0; k < N; k++) {
      if (batch.data[e][k]) x[k] = loadAs<T>(batch.data[e][k], dtype, i);
    }
    update(x, hasLast);
    for (int k = 0; k < N; k++) {
      if (k != 1 && batch.data[e][k]) storeAs(batch.data[e][k], dtype, i, x[k]);
    }
  }
}

// g = grad + weightDecay p; b = momentum b + (1 - dampening) g; p -= lr (nesterov ? g + momentum b
// : b), or p -= lr g without momentum
template <class T>
struct SgdUpdate {
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

// Collects entries of one compute type until a launch is full.
template <class T, int N, class Update>
class Launcher {
 public:
  explicit Launcher(const Update& update) : update_(changing(update)) {}

  void add(const View* const (&views)[N]) {
    const int64_t numel = views[0]->numel(), pieces = ceilDiv(numel, kPiece);
    for (int64_t piece = 0; piece < pieces; piece++) {
      if (batch_.pieces == kMaxPieces || (piece == 0 && batch_.entries == kMaxEntries)) flush();
      if (piece == 0 || batch_.entries == 0) addEntry(views, numel);
      batch_.entry[batch_.pieces] = static_cast<uint8_t>(batch_.entries - 1);
      batch_.piece[batch_.pieces++] = static_cast<int32_t>(piece);
    }
  }
  void flush() {
    if (batch_.pieces > 0) {
      launch(static_cast<unsigned>(batch_.pieces), kOptimizerThreads, 0, stream(),
             optimizerKernel<T, N, Update>, batch_, update_);
    }
    batch_.entries = batch_.pieces = 0;
  }

 private:
  void addEntry(const View* const (&views)[N], int64_t numel) {
    const int e = batch_.entries++;
    batch_.dtype[e] = views[0]->dtype;
    batch_.numel[e] = numel;
    batch_.vectors[e] = true;
    for (int k = 0; k < N; k++) {
      batch_.data[e][k] = views[k]->data;
      batch_.vectors[e] = batch_.vectors[e] && isVectorAligned(views[k]->data, batch_.dtype[e]);
    }
  }

  Batch<N> batch_{};
  Changing<Update> update_;
};

template <template <class> class Update, int N, class Make, class Entries, class ViewsOf>
void updateAll(const Entries& entries, const Make& make, const ViewsOf& viewsOf) {
  Launcher<float, N, Update<float>> narrow(make(float()));
  Launcher<double, N, Update<double>> wide(make(double()));
  if (isRenewing()) return;
  for (const auto& entry : entries) {
    viewsOf(entry, [&](const View* const(&views)[N]) {
      if (entry.param.dtype == DType::float64) {
        wide.add(views);
      } else {
        narrow.add(views);
      }
    });
  }
  narrow.flush();
  wide.flush();
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

}  // namespace adjoint
