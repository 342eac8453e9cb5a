// Cross entropy, fused: one pass over the logits forward (an online maximum and sum), one pass
// backward; no softmax is stored.
#include <initializer_list>

#include "contract.h"
#include "cuda/cross_entropy.h"
#include "cuda/dense.h"
#include "cuda/group.h"
#include "shared/loss_checks.h"

namespace adjoint {
namespace cuda {
namespace {

ADJOINT_DEVICE float larger(float a, float b) {
  return ::fmaxf(a, b);
}
ADJOINT_DEVICE double larger(double a, double b) {
  return ::fmax(a, b);
}

// max and sum(exp(x - max)) over some of a row (Milakov & Gimelshein 2018); of none, -infinity and
// 0. A NaN is not seen by max, but makes the sum NaN.
template <class T>
struct Exponentials {
  T max, sum;

  // What is subtracted before the exponential: an infinity would turn -infinity into NaN.
  ADJOINT_DEVICE T shift() const { return max == -INFINITY ? T(0) : max; }
  ADJOINT_DEVICE void raise(T to) {
    if (!(to > max)) return;
    sum *= expSmall(max - to);
    max = to;
  }
};
template <class T>
ADJOINT_DEVICE Exponentials<T> shuffleXor(Exponentials<T> e, int distance) {
  return {__shfl_xor_sync(kAllLanes, e.max, distance), __shfl_xor_sync(kAllLanes, e.sum, distance)};
}
template <class T>
struct ExponentialsCombiner {
  ADJOINT_DEVICE Exponentials<T> combine(Exponentials<T> a, Exponentials<T> b) const {
    a.raise(b.max);
    b.raise(a.max);
    return {a.max, a.sum + b.sum};
  }
};

// lse = max + log(sum); loss = (max - x[target]) + log(sum), so that a small one is not rounded
// against lse; 0 where the target is ignored
template <class S>
__global__ void __launch_bounds__(kMostLossLanes)
    crossEntropyKernel(const LossRows<S> a, const StridedVector loss, const StridedVector lse) {
  using T = ComputeOf<S>;
  constexpr int V = UnevenRow<S>::V, kMany = sizeof(S) == 8 ? 2 : 4;
  ADJOINT_SHARED(Exponentials<T>, shared, kMostLossLanes / kWarp);
  const int lanes = a.lanes, lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int rowsPerBlock = static_cast<int>(blockDim.x) / lanes;
  for (int64_t first = int64_t(blockIdx.x) * rowsPerBlock; first < a.rows;
       first += int64_t(gridDim.x) * rowsPerBlock) {
    const int64_t row = first + static_cast<int>(threadIdx.x) / lanes;
    const S* data = a.logits + row * a.rowStride;
    const UnevenRow<const S> logits(data, row < a.rows ? a.classes : 0);
    const int accesses = logits.accesses();
    Exponentials<T> total{-INFINITY, T(0)};
    for (int v = lane; v < accesses; v += kMany * lanes) {
      typename UnevenRow<const S>::Access x[kMany];
      // Beyond the last access there are no elements: all are -infinity.
      for (int u = 0; u < kMany; u++) x[u] = logits.load(v + u * lanes, -INFINITY);
      T max = -INFINITY;
      for (int u = 0; u < kMany; u++) {
        for (int j = 0; j < V; j++) max = larger(max, convert<T>(x[u].value[j]));
      }
      total.raise(max);
      const T shift = total.shift();
      for (int u = 0; u < kMany; u++) {
        for (int j = 0; j < V; j++) total.sum += expSmall(convert<T>(x[u].value[j]) - shift);
      }
    }
    total = combineGroup(ExponentialsCombiner<T>(), total, shared, lanes, true);
    if (lane > 0 || row >= a.rows) continue;
    const T logSum = Math<T>::log(total.sum);
    lse.write(row, total.max + logSum);
    const auto target = a.target.template read<int64_t>(row);
    T value = T(0);
    if (target != a.ignoreIndex) {
      value = a.guard.admits(target, row) ? (total.max - convert<T>(data[target])) + logSum
                                          : static_cast<T>(NAN);
    }
    loss.write(row, value);
  }
}

// dlogits = dy (exp(logits - lse) - [c = target]), 0 for ignored rows. Lanes take a segment of a
// row at a time.
constexpr int kSegment = 16;  // accesses of a lane

template <class S>
__global__ void __launch_bounds__(kMostLossLanes, ADJOINT_ROOM_FOR(2))
    crossEntropyBackwardKernel(S* dlogits, int64_t dlogitsStride, const LossRows<S> a,
                               const StridedVector dy, const StridedVector lse, int segments) {
  using T = ComputeOf<S>;
  constexpr int V = UnevenRow<S>::V, kMany = sizeof(S) == 2 ? 2 : 1;
  const int lanes = a.lanes, lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int perBlock = static_cast<int>(blockDim.x) / lanes;
  const int64_t tasks = a.rows * segments, step = int64_t(gridDim.x) * perBlock;
  for (int64_t task = int64_t(blockIdx.x) * perBlock + static_cast<int>(threadIdx.x) / lanes;
       task < tasks; task += step) {
    const int64_t row = task / segments;
    const auto segment = static_cast<int>(task - row * segments);
    const UnevenRow<const S> logits(a.logits + row * a.rowStride, a.classes);
    const UnevenRow<S> out(dlogits + row * dlogitsStride, a.classes);
    const auto target = a.target.template read<int64_t>(row);
    const bool isIgnored = target == a.ignoreIndex;
    if (!isIgnored && lane == 0 && segment == 0) a.guard.admits(target, row);
    const T g = isIgnored ? T(0) : dy.read<T>(row), shift = lse.read<T>(row);
    const int begin = segment * kSegment * lanes + lane;
    const int end =
        begin + kSegment * lanes < logits.accesses() ? begin + kSegment * lanes : logits.accesses();
    for (int at = begin; at < end; at += kMany * lanes) {
      typename UnevenRow<const S>::Access given[kMany];
      if (!isIgnored) {
        for (int u = 0; u < kMany; u++) given[u] = logits.load(at + u * lanes, 0);
      }
      for (int u = 0; u < kMany; u++) {
        const int v = at + u * lanes;
        if (v >= end) continue;
        T x[V];
        // An ignored row is 0 whatever its logits are.
        for (int j = 0; j < V; j++) x[j] = T(0);
        if (!isIgnored) {
          for (int j = 0; j < V; j++) {
            const T p = expSmall(convert<T>(given[u].value[j]) - shift);
            x[j] = g * (p - (logits.first(v) + j == target ? T(1) : T(0)));
          }
        }
        if (logits.isWhole(v) && logits.skew == out.skew) {
          storeTo(out.data + logits.first(v), x);
          continue;
        }
        for (int j = 0; j < V; j++) {
          if (logits.has(v, j)) out.data[logits.first(v) + j] = convert<S>(x[j]);
        }
      }
    }
  }
}

// The sum of losses, and how many targets are not ignored.
template <class T>
struct LossSum {
  T sum;
  int64_t count;
};
template <class T>
ADJOINT_DEVICE LossSum<T> shuffleXor(LossSum<T> s, int distance) {
  return {__shfl_xor_sync(kAllLanes, s.sum, distance),
          __shfl_xor_sync(kAllLanes, s.count, distance)};
}
template <class T>
struct LossSumCombiner {
  ADJOINT_DEVICE LossSum<T> combine(const LossSum<T>& a, const LossSum<T>& b) const {
    return {a.sum + b.sum, a.count + b.count};
  }
};

// A block adds up kMeanRows losses, or sums of such; the last one of all writes
// loss = sum / count and rate = 1 / count.
constexpr int64_t kMeanRows = 32 * kGroupThreads;

template <class T>
__global__ void __launch_bounds__(kGroupThreads)
    lossMeanKernel(const StridedVector loss, const StridedVector rate, LossSum<T>* sums,
                   const LossSum<T>* given, const T* losses, const StridedVector target,
                   int64_t ignoreIndex, int64_t n) {
  ADJOINT_SHARED(LossSum<T>, shared, kGroupWarps);
  const LossSumCombiner<T> combiner;
  const int64_t begin = blockIdx.x * kMeanRows;
  const int64_t end = begin + kMeanRows < n ? begin + kMeanRows : n;
  LossSum<T> total{T(0), 0};
  for (int64_t i = begin + threadIdx.x; i < end; i += kGroupThreads) {
    total = combiner.combine(
        total, given ? given[i] : LossSum<T>{losses[i], target.read<int64_t>(i) != ignoreIndex});
  }
  total = combineGroup(combiner, total, shared, kGroupThreads, true);
  if (threadIdx.x > 0) return;
  if (gridDim.x > 1) {
    sums[blockIdx.x] = total;
    return;
  }
  const auto count = static_cast<T>(total.count);
  loss.write(0, total.sum / count);
  rate.write(0, T(1) / count);
}

// perRow: tensors [N]
void checkArguments(const char* name, const View& logits, const View& target,
                    std::initializer_list<const View*> perRow) {
  checkLossArguments(name, logits, target, perRow);
  if (logits.size[1] > 0x3fffffff) {
    fail(ErrorKind::shape, "%s: expected fewer than 2^30 classes", name);
  }
}

// Rows of neighbouring elements: the matrix itself, or a copy.
Stand neighbouring(const View& matrix, bool isRead) {
  if (matrix.stride[1] == 1 || matrix.size[1] <= 1) return Stand(matrix);
  return Stand(matrix, denseLike(matrix, matrix.dtype), isRead);
}

template <class S>
LossRows<S> lossRows(const char* name, const View& logits, const View& target,
                     int64_t ignoreIndex) {
  const int64_t classes = logits.size[1];
  return {logits.as<S>(),        logits.stride[0],
          logits.size[0],        static_cast<int>(classes),
          lossLanes<S>(classes), StridedVector(target),
          ignoreIndex,           indexGuard(name, "targets", classes)};
}

unsigned blockFor(int lanes) {
  return static_cast<unsigned>(lanes > 128 ? lanes : 128);
}

void launchLosses(const char* name, const StridedVector& loss, const View& lse, const View& logits,
                  const View& target, int64_t ignoreIndex) {
  if (logits.size[0] == 0) return;
  const Stand stand = logits.size[1] > 0 ? neighbouring(logits, true) : Stand(logits);
  visitFloats(name, logits.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    const LossRows<S> rows = lossRows<S>(name, stand.view(), target, ignoreIndex);
    const unsigned threads = blockFor(rows.lanes);
    launch(gridFor(rows.rows, threads / rows.lanes), threads, 0, stream(), crossEntropyKernel<S>,
           rows, loss, StridedVector(lse));
  });
}

template <class T>
void launchMean(const View& loss, const View& rate, const T* losses, const View& target,
                int64_t ignoreIndex) {
  int64_t n = target.size[0], blocks = ceilDiv(n, kMeanRows);
  // Halves take turns: a later pass has fewer blocks.
  const int64_t half = blocks > 1 ? blocks : 1;
  const Workspace space(static_cast<size_t>(2 * half) * sizeof(LossSum<T>));
  auto* sums = static_cast<LossSum<T>*>(space.data());
  const LossSum<T>* given = nullptr;
  for (bool odd = false;; odd = !odd) {
    LossSum<T>* into = sums + (odd ? half : 0);
    launch(static_cast<unsigned>(blocks > 1 ? blocks : 1), kGroupThreads, 0, stream(),
           lossMeanKernel<T>, StridedVector(loss), StridedVector(rate), into, given, losses,
           StridedVector(target), ignoreIndex, n);
    if (blocks <= 1) return;
    given = into;
    n = blocks;
    blocks = ceilDiv(n, kMeanRows);
  }
}

}  // namespace
}  // namespace cuda

void backend::crossEntropy(const View& loss, const View& lse, const View& logits,
                           const View& target, int64_t ignoreIndex) {
  using namespace cuda;
  checkArguments("crossEntropy", logits, target, {&loss, &lse});
  launchLosses("crossEntropy", StridedVector(loss), lse, logits, target, ignoreIndex);
}

void backend::crossEntropyMean(const View& loss, const View& rate, const View& lse,
                               const View& logits, const View& target, int64_t ignoreIndex) {
  using namespace cuda;
  checkArguments("crossEntropyMean", logits, target, {&lse});
  if (loss.numel() != 1 || rate.numel() != 1) {
    fail(ErrorKind::shape, "crossEntropyMean: expected a loss and a rate of one element");
  }
  View losses = denseLike(target, computeDType(logits.dtype));
  const Workspace space(static_cast<size_t>(losses.numel() + 1) * itemSize(losses.dtype));
  losses.data = space.data();
  launchLosses("crossEntropyMean", StridedVector(losses), lse, logits, target, ignoreIndex);
  if (losses.dtype == DType::float64) {
    launchMean(loss, rate, losses.as<double>(), target, ignoreIndex);
  } else {
    launchMean(loss, rate, losses.as<float>(), target, ignoreIndex);
  }
}

void backend::crossEntropyBackward(const View& dlogits, const View& dy, const View& logits,
                                   const View& lse, const View& target, int64_t ignoreIndex) {
  using namespace cuda;
  checkArguments("crossEntropyBackward", logits, target, {&dy, &lse});
  if (dlogits.dtype != logits.dtype) {
    fail(ErrorKind::dtype, "crossEntropyBackward: expected a gradient of %s, got %s",
         dtypeName(logits.dtype), dtypeName(dlogits.dtype));
  }
  if (logits.numel() == 0) return;
  const Stand x = neighbouring(logits, true), dx = neighbouring(dlogits, false);
  visitFloats("crossEntropyBackward", logits.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    const LossRows<S> rows = lossRows<S>("crossEntropyBackward", x.view(), target, ignoreIndex);
    const unsigned threads = blockFor(rows.lanes);
    // One more access than the row needs, for one that starts within an access.
    const int64_t accesses = ceilDiv(rows.classes, kPerAccess<S>) + 1;
    const int64_t segments = ceilDiv(accesses, int64_t(kSegment) * rows.lanes);
    launch(gridFor(rows.rows * segments, threads / rows.lanes), threads, 0, stream(),
           crossEntropyBackwardKernel<S>, dx.view().as<S>(), dx.view().stride[0], rows,
           StridedVector(dy), StridedVector(lse), static_cast<int>(segments));
  });
  dx.finish();
}

}  // namespace adjoint
