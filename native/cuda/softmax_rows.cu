// softmax, logSoftmax and their gradients for dense rows: each is read once and kept in registers.
#include "cuda/rows.h"
#include "cuda/softmax_rows.h"
#include "shared/functors.h"

namespace adjoint::cuda {
namespace {

constexpr int kMostSoftmaxLanes = 512;

// data[0] is written; N operands in all, [rows, length].
template <class S, int N>
struct DenseRows {
  S* data[N];
  int64_t rows;
  int length, lanes;
};

// Calls body(row, its length, or 0 beyond the last row) for the rows of this thread's block; every
// thread comes along.
template <class S, int N, class Body>
ADJOINT_DEVICE void forEachDenseRow(const DenseRows<S, N>& a, const Body& body) {
  const int perBlock = static_cast<int>(blockDim.x) / a.lanes;
  for (int64_t first = int64_t(blockIdx.x) * perBlock; first < a.rows;
       first += int64_t(gridDim.x) * perBlock) {
    const int64_t row = first + static_cast<int>(threadIdx.x) / a.lanes;
    body(row, row < a.rows ? a.length : 0);
  }
}

// The largest value over the lanes of each row (NaN wins), known to all of them. `shared` has
// kMaxWarps elements.
template <class T>
ADJOINT_DEVICE T maxOverLanes(T value, T* shared, int lanes) {
  for (int d = (lanes < kWarp ? lanes : kWarp) / 2; d > 0; d /= 2) {
    value = maximumOf(value, __shfl_xor_sync(kAllLanes, value, d));
  }
  if (lanes <= kWarp) return value;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, warps = lanes / kWarp;
  if (thread % kWarp == 0) shared[warp] = value;
  __syncthreads();
  const int first = warp & ~(warps - 1);
  value = shared[first];
  for (int w = 1; w < warps; w++) value = maximumOf(value, shared[first + w]);
  return value;
}

// y = exp(x - max) / sum, or x - max - log(sum)
template <class S, int V, int K, bool logarithm>
__global__ void __launch_bounds__(kMostSoftmaxLanes) softmaxRowsKernel(const DenseRows<S, 2> a) {
  using T = ComputeOf<S>;
  ADJOINT_SHARED(T, sharedMax, kMaxWarps);
  ADJOINT_SHARED(T, sharedSum, kMaxWarps);
  const int lanes = a.lanes, lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  forEachDenseRow(a, [&](int64_t row, int length) {
    T x[K][V], max = -T(HUGE_VALF), sum[1] = {T(0)};
    loadRow(a.data[1] + row * a.length, x, lane, lanes, length);
    for (int k = 0; k < K; k++) {
      if ((lane + k * lanes) * V >= length) continue;
      for (int j = 0; j < V; j++) max = maximumOf(max, x[k][j]);
    }
    max = maxOverLanes(max, sharedMax, lanes);
    for (int k = 0; k < K; k++) {
      if ((lane + k * lanes) * V >= length) continue;
      for (int j = 0; j < V; j++) {
        x[k][j] -= max;
        const T e = Math<T>::exp(x[k][j]);
        sum[0] += e;
        if (!logarithm) x[k][j] = e;
      }
    }
    sumLanes(sum, sharedSum, lanes);
    const T factor = logarithm ? Math<T>::log(sum[0]) : T(1) / sum[0];
    for (int k = 0; k < K; k++) {
      const int at = (lane + k * lanes) * V;
      if (at >= length) continue;
      for (int j = 0; j < V; j++) x[k][j] = logarithm ? x[k][j] - factor : x[k][j] * factor;
      storeTo(a.data[0] + row * a.length + at, x[k]);
    }
  });
}

// dx = y (dy - sum(dy y)), or dy - exp(y) sum(dy) for the logarithm
template <class S, int V, int K, bool logarithm>
__global__ void __launch_bounds__(kMostSoftmaxLanes)
    softmaxRowsBackwardKernel(const DenseRows<S, 3> a) {
  using T = ComputeOf<S>;
  ADJOINT_SHARED(T, sharedEven, kMaxWarps);
  ADJOINT_SHARED(T, sharedOdd, kMaxWarps);
  const int lanes = a.lanes, lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  bool odd = false;  // rows that follow each other use different arrays
  forEachDenseRow(a, [&](int64_t row, int length) {
    T dy[K][V], y[K][V], sum[1] = {T(0)};
    loadRow(a.data[1] + row * a.length, dy, lane, lanes, length);
    loadRow(a.data[2] + row * a.length, y, lane, lanes, length);
    for (int k = 0; k < K; k++) {
      for (int j = 0; j < V; j++) sum[0] += logarithm ? dy[k][j] : dy[k][j] * y[k][j];
    }
    sumLanes(sum, odd ? sharedOdd : sharedEven, lanes);
    odd = !odd;
    for (int k = 0; k < K; k++) {
      const int at = (lane + k * lanes) * V;
      if (at >= length) continue;
      for (int j = 0; j < V; j++) {
        dy[k][j] =
            logarithm ? dy[k][j] - Math<T>::exp(y[k][j]) * sum[0] : y[k][j] * (dy[k][j] - sum[0]);
      }
      storeTo(a.data[0] + row * a.length + at, dy[k]);
    }
  });
}

// Calls f(DenseRows<S, N>, width, count) where the views are dense rows that registers can hold.
template <int N, class F>
bool visitDenseRows(const View* const (&views)[N], int axis, const F& f) {
  const View& y = *views[0];
  if (y.ndim == 0 || axis != y.ndim - 1) return false;
  const int64_t length = y.size[axis];
  for (const View* v : views) {
    if (v->dtype != y.dtype || !v->isContiguous()) return false;
  }
  if (y.numel() == 0 || length > (int64_t(1) << 20) || !isFloating(y.dtype)) return false;
  bool fits = false;
  visitFloats("softmax", y.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    DenseRows<S, N> a{};
    bool isAligned = isWideAligned(uint64_t(length) * sizeof(S));
    for (int k = 0; k < N; k++) {
      a.data[k] = views[k]->template as<S>();
      isAligned = isAligned && isWideAligned(a.data[k]);
    }
    const RowShape shape = rowShape(length, isAligned ? kPerAccess<S> : 1);
    fits = shape.lanes <= kMostSoftmaxLanes;
    if (!fits) return;
    a.rows = y.numel() / length;
    a.length = static_cast<int>(length);
    a.lanes = shape.lanes;
    visitRowShape<kPerAccess<S>>(shape, [&](auto width, auto count) { f(a, width, count); });
  });
  return fits;
}

template <class S, int N>
void launchDense(void (*kernel)(DenseRows<S, N>), const DenseRows<S, N>& a) {
  const int threads = a.lanes > 128 ? a.lanes : 128;
  launch(gridFor(a.rows, threads / a.lanes), static_cast<unsigned>(threads), 0, stream(), kernel,
         a);
}

}  // namespace

bool softmaxRows(const View& y, const View& x, int axis, bool logarithm) {
  return visitDenseRows<2>({&y, &x}, axis, [&](const auto& a, auto width, auto count) {
    using S = std::remove_pointer_t<std::remove_reference_t<decltype(*a.data)>>;
    constexpr int V = decltype(width)::value, K = decltype(count)::value;
    launchDense<S>(logarithm ? softmaxRowsKernel<S, V, K, true> : softmaxRowsKernel<S, V, K, false>,
                   a);
  });
}

bool softmaxRowsBackward(const View& dx, const View& dy, const View& y, int axis, bool logarithm) {
  return visitDenseRows<3>({&dx, &dy, &y}, axis, [&](const auto& a, auto width, auto count) {
    using S = std::remove_pointer_t<std::remove_reference_t<decltype(*a.data)>>;
    constexpr int V = decltype(width)::value, K = decltype(count)::value;
    launchDense<S>(logarithm ? softmaxRowsBackwardKernel<S, V, K, true>
                             : softmaxRowsBackwardKernel<S, V, K, false>,
                   a);
  });
}

}  // namespace adjoint::cuda
