// Layer norm and RMS norm. Rows that fit into registers are read once; their statistics are taken
// from there in two passes.
#include "contract.h"
#include "cuda/layer_norm.h"
#include "cuda/moments.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

// x, y [rows, length]; weight, bias [length] or nullptr; mean, rstd [rows].
template <class S, class W>
struct NormRows {
  using T = ComputeOf<S>;
  S* y;
  const S* x;
  const W *weight, *bias;
  T *mean, *rstd;
  int64_t rows;
  int length, lanes;
  T eps;
};

// For which registers are enough.
template <class S>
constexpr int kMostNormLanes = sizeof(S) == 4 ? 1024 : 512;

// mean and var (biased) over a row; rstd = 1 / sqrt(var + eps); y = (x - mean) rstd w + b
//   d = x - m with m = sum(x) / C as rounded; mean = m + sum(d) / C;
//   var = sum(d^2) / C - (sum(d) / C)^2: what rounding took from m is given back
// RMS norm: y = x rstd w, rstd = 1 / sqrt(sum(x^2) / C + eps)
template <class S, class W, int V, int K, bool centred>
__global__ void __launch_bounds__(kMostNormLanes<S>, ADJOINT_ROOM_FOR(1))
    layerNormKernel(const NormRows<S, W> a) {
  using T = ComputeOf<S>;
  ADJOINT_SHARED(T, sharedSum, kMaxWarps);
  ADJOINT_SHARED(T, sharedSquares, 2 * kMaxWarps);
  const int lanes = a.lanes, lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int rowsPerBlock = static_cast<int>(blockDim.x) / lanes;
  const T count = static_cast<T>(a.length);
  bool odd = false;  // rows that follow each other in a block use different arrays
  for (int64_t first = int64_t(blockIdx.x) * rowsPerBlock; first < a.rows;
       first += int64_t(gridDim.x) * rowsPerBlock, odd = !odd) {
    const int64_t row = first + static_cast<int>(threadIdx.x) / lanes;
    const int length = row < a.rows ? a.length : 0;
    T x[K][V];
    loadRow(a.x + row * a.length, x, lane, lanes, length);
    T shift = T(0), variance;
    if constexpr (centred) {
      T sum[1] = {T(0)};
      for (int k = 0; k < K; k++) {
        for (int j = 0; j < V; j++) sum[0] += x[k][j];
      }
      sumLanes(sum, sharedSum, lanes);
      const T rounded = sum[0] / count;
      T sums[2] = {T(0), T(0)};  // of d and of d^2
      for (int k = 0; k < K; k++) {
        if ((lane + k * lanes) * V >= length) continue;
        for (int j = 0; j < V; j++) {
          x[k][j] -= rounded;
          sums[0] += x[k][j];
          sums[1] += x[k][j] * x[k][j];
        }
      }
      sumLanes(sums, sharedSquares, lanes);
      shift = sums[0] / count;
      variance = sums[1] / count - shift * shift;
      if (variance < T(0)) variance = T(0);
      if (lane == 0 && length > 0) a.mean[row] = rounded + shift;
    } else {
      T squares[1] = {T(0)};
      for (int k = 0; k < K; k++) {
        for (int j = 0; j < V; j++) squares[0] += x[k][j] * x[k][j];
      }
      sumLanes(squares, odd ? sharedSum : sharedSquares, lanes);
      variance = squares[0] / count;
    }
    const T rstd = T(1) / Math<T>::sqrt(variance + a.eps);
    if (lane == 0 && length > 0) a.rstd[row] = rstd;
    for (int k = 0; k < K; k++) {
      const int at = (lane + k * lanes) * V;
      if (at >= length) continue;
      for (int j = 0; j < V; j++) x[k][j] = (x[k][j] - shift) * rstd;
      if (a.weight) {
        T w[V];
        loadFrom(a.weight + at, w);
        for (int j = 0; j < V; j++) x[k][j] *= w[j];
      }
      if (centred && a.bias) {
        T b[V];
        loadFrom(a.bias + at, b);
        for (int j = 0; j < V; j++) x[k][j] += b[j];
      }
      storeTo(a.y + row * a.length + at, x[k]);
    }
  }
}

// The same for rows of any length, which are read twice: a block takes one row at a time.
template <class S, class W, bool centred>
__global__ void __launch_bounds__(kGroupThreads) longLayerNormKernel(const NormRows<S, W> a) {
  using T = ComputeOf<S>;
  ADJOINT_SHARED(Moments<T>, shared, kGroupThreads);
  const MomentsCombiner<T> combiner;
  constexpr int kRun = 4;  // elements whose moments are taken at a time
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const S* x = a.x + row * a.length;
    Moments<T> total{T(0), T(0), T(0)};
    for (int begin = static_cast<int>(threadIdx.x); begin < a.length;
         begin += kRun * kGroupThreads) {
      T run[kRun], sum = T(0), squares = T(0), count = T(0);
      for (int j = 0; j < kRun; j++) {
        const int at = begin + j * kGroupThreads;
        run[j] = at < a.length ? convert<T>(x[at]) : T(0);
        count += at < a.length ? T(1) : T(0);
        sum += run[j];
      }
      const T mean = centred ? sum / count : T(0);
      for (int j = 0; j < kRun; j++) {
        const T d = run[j] - mean;
        squares += begin + j * kGroupThreads < a.length ? d * d : T(0);
      }
      total = combiner.combine(total, {count, mean, squares});
    }
    total = combineGroup(combiner, total, shared, kGroupThreads, true);
    const T rstd = T(1) / Math<T>::sqrt(total.squares / static_cast<T>(a.length) + a.eps);
    if (threadIdx.x == 0) {
      a.rstd[row] = rstd;
      if (centred) a.mean[row] = total.mean;
    }
    for (int at = static_cast<int>(threadIdx.x); at < a.length; at += kGroupThreads) {
      T value = (convert<T>(x[at]) - total.mean) * rstd;
      if (a.weight) value *= convert<T>(a.weight[at]);
      if (centred && a.bias) value += convert<T>(a.bias[at]);
      a.y[row * a.length + at] = convert<S>(value);
    }
  }
}

template <class S, class W, bool centred>
void launchRows(NormRows<S, W> a) {
  const int wide = kPerAccess<S>;
  const bool isAligned = isWideAligned(uint64_t(a.length) * sizeof(S)) && isWideAligned(a.x) &&
                         isWideAligned(a.y) && isWideAligned(a.weight) && isWideAligned(a.bias);
  const RowShape shape = rowShape(a.length, isAligned ? wide : 1);
  if (shape.lanes > kMostNormLanes<S>) {
    launch(gridFor(a.rows, 1), kGroupThreads, 0, stream(), longLayerNormKernel<S, W, centred>, a);
    return;
  }
  a.lanes = shape.lanes;
  const int threads = shape.lanes > 128 ? shape.lanes : 128;
  visitRowShape<wide>(shape, [&](auto width, auto count) {
    launch(gridFor(a.rows, threads / shape.lanes), static_cast<unsigned>(threads), 0, stream(),
           layerNormKernel<S, W, width(), count(), centred>, a);
  });
}

}  // namespace
}  // namespace cuda

void backend::layerNorm(const LayerNormArgs& a) {
  using namespace cuda;
  if (a.x.numel() == 0) {
    // The mean of nothing.
    fill(a.rstd, Scalar::of(std::nan("")));
    if (a.mean) fill(*a.mean, Scalar::of(std::nan("")));
    return;
  }
  const int64_t rows = a.rstd.numel(), length = a.x.numel() / rows;
  if (length > 0x3fffffff) fail(ErrorKind::shape, "layerNorm: expected rows of less than 2^30");
  const DType form = coefficientType(a.x.dtype, a.weight, a.bias);
  const Stand x = denseInput(a.x, a.x.dtype), y = denseOutput(a.y, a.x.dtype);
  const std::optional<Stand> weight = denseCoefficients(a.weight, form);
  const std::optional<Stand> bias = denseCoefficients(a.bias, form);
  visitNormTypes(a.x.dtype, form, [&](auto stored, auto coefficient) {
    using S = typename decltype(stored)::type;
    using W = typename decltype(coefficient)::type;
    using T = ComputeOf<S>;
    const NormRows<S, W> r{y.view().as<S>(),
                           x.view().as<S>(),
                           weight ? weight->view().as<W>() : nullptr,
                           bias ? bias->view().as<W>() : nullptr,
                           a.mean ? a.mean->as<T>() : nullptr,
                           a.rstd.as<T>(),
                           rows,
                           static_cast<int>(length),
                           0,
                           static_cast<T>(a.eps)};
    a.mean ? launchRows<S, W, true>(r) : launchRows<S, W, false>(r);
  });
  y.finish();
}

}  // namespace adjoint
