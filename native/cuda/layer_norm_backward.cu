// The gradients of layer norm and RMS norm. A block takes a chunk of rows, each of which is read
// once: its lanes hold the row of x and dy, and their columns' shares of dweight and dbias until
// the chunk ends. A second kernel adds up the chunks. Which rows form a chunk depends on the shape
// alone.
#include "contract.h"
#include "cuda/elements.h"
#include "cuda/layer_norm.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

constexpr int kBackwardThreads = 256, kMostBackwardLanes = 512;
// Of a lane, which holds four values for each.
template <class S>
constexpr int kMostElements = sizeof(S) == 8 ? 8 : 16;
constexpr int64_t kMostChunks = 1024, kFewChunks = 256, kChunkRows = 16;

// x, dy, dx [rows, length]; weight [length] or nullptr; mean (nullptr: RMS norm), rstd [rows];
// partial [chunks, 1 or 2 (dweight, dbias), length].
template <class S, class W>
struct NormGradient {
  using T = ComputeOf<S>;
  S* dx;
  const S *dy, *x;
  const W* weight;
  const T *mean, *rstd;
  T* partial;
  int64_t rows, chunkRows;
  int length, lanes;
};

// The sums over the groups of lanes of a block, in order; `partial` takes the row's columns.
template <int V, int K, class T>
ADJOINT_DEVICE void writeColumnSums(T* partial, const T (&sum)[K][V], T* shared, int lanes,
                                    int length) {
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  for (int k = 0; k < K; k++) {
    __syncthreads();
    for (int j = 0; j < V; j++) shared[j * threads + thread] = sum[k][j];
    __syncthreads();
    const int at = (thread + k * lanes) * V;
    if (thread >= lanes || at >= length) continue;
    for (int j = 0; j < V; j++) {
      T total = shared[j * threads + thread];
      for (int other = thread + lanes; other < threads; other += lanes) {
        total += shared[j * threads + other];
      }
      partial[at + j] = total;
    }
  }
}

// xhat = (x - mean) rstd; g = dy w; dx = rstd (g - (sum(g) + xhat sum(g xhat)) / C), without
// sum(g) for RMS norm; dweight = sum(dy xhat), dbias = sum(dy) over the rows of the chunk
template <class S, class W, int V, int K, bool centred>
__global__ void __launch_bounds__(kMostBackwardLanes, ADJOINT_ROOM_FOR(1))
    layerNormBackwardKernel(const NormGradient<S, W> a) {
  using T = ComputeOf<S>;
  ADJOINT_SHARED(T, sharedSums, 2 * 2 * kMaxWarps);
  ADJOINT_DYNAMIC_SHARED(T, sharedColumns);  // V for each thread
  const int lanes = a.lanes, lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int group = static_cast<int>(threadIdx.x) / lanes;
  const int groups = static_cast<int>(blockDim.x) / lanes;
  const int64_t begin = int64_t(blockIdx.x) * a.chunkRows;
  const int64_t end = begin + a.chunkRows < a.rows ? begin + a.chunkRows : a.rows;
  T dweight[K][V] = {}, dbias[K][V] = {};
  int parity = 0;  // rows that follow each other use different parts of sharedSums
  for (int64_t first = begin; first < end; first += groups, parity ^= 1) {
    const int64_t row = first + group;
    const int length = row < end ? a.length : 0;
    const T mean = centred && length > 0 ? a.mean[row] : T(0);
    const T rstd = length > 0 ? a.rstd[row] : T(0);
    T xhat[K][V], g[K][V];
    loadRow(a.x + row * a.length, xhat, lane, lanes, length);
    loadRow(a.dy + row * a.length, g, lane, lanes, length);
    T sums[2] = {T(0), T(0)};
    for (int k = 0; k < K; k++) {
      const int at = (lane + k * lanes) * V;
      if (at >= length) continue;
      for (int j = 0; j < V; j++) {
        xhat[k][j] = (xhat[k][j] - mean) * rstd;
        dweight[k][j] += g[k][j] * xhat[k][j];
        if (centred) dbias[k][j] += g[k][j];
      }
      if (a.weight) {
        T w[V];
        loadFrom(a.weight + at, w);
        for (int j = 0; j < V; j++) g[k][j] *= w[j];
      }
      for (int j = 0; j < V; j++) {
        if (centred) sums[0] += g[k][j];
        sums[1] += g[k][j] * xhat[k][j];
      }
    }
    sumLanes(sums, sharedSums + parity * 2 * kMaxWarps, lanes);
    const T offset = sums[0] / static_cast<T>(a.length), slope = sums[1] / static_cast<T>(a.length);
    for (int k = 0; k < K; k++) {
      const int at = (lane + k * lanes) * V;
      if (at >= length) continue;
      for (int j = 0; j < V; j++) g[k][j] = rstd * (g[k][j] - offset - xhat[k][j] * slope);
      storeTo(a.dx + row * a.length + at, g[k]);
    }
  }
  T* partial = a.partial + int64_t(blockIdx.x) * (centred ? 2 : 1) * a.length;
  writeColumnSums<V, K>(partial, dweight, sharedColumns, lanes, a.length);
  if (centred) writeColumnSums<V, K>(partial + a.length, dbias, sharedColumns, lanes, a.length);
}

// dx for rows of any length, which are read twice: a block takes one row at a time.
template <class S, class W, bool centred>
__global__ void __launch_bounds__(kMostBackwardLanes)
    longLayerNormBackwardKernel(const NormGradient<S, W> a) {
  using T = ComputeOf<S>;
  ADJOINT_SHARED(T, sharedSums, 2 * 2 * kMaxWarps);
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  int parity = 0;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x, parity ^= 1) {
    const S *x = a.x + row * a.length, *dy = a.dy + row * a.length;
    const T mean = centred ? a.mean[row] : T(0), rstd = a.rstd[row];
    auto gradient = [&](int at) {
      const T g = convert<T>(dy[at]);
      return a.weight ? g * convert<T>(a.weight[at]) : g;
    };
    T sums[2] = {T(0), T(0)};
    for (int at = thread; at < a.length; at += threads) {
      const T g = gradient(at);
      if (centred) sums[0] += g;
      sums[1] += g * ((convert<T>(x[at]) - mean) * rstd);
    }
    sumLanes(sums, sharedSums + parity * 2 * kMaxWarps, threads);
    const T offset = sums[0] / static_cast<T>(a.length), slope = sums[1] / static_cast<T>(a.length);
    for (int at = thread; at < a.length; at += threads) {
      const T xhat = (convert<T>(x[at]) - mean) * rstd;
      a.dx[row * a.length + at] = convert<S>(rstd * (gradient(at) - offset - xhat * slope));
    }
  }
}

// The partial sums of dweight and dbias alone: blocks of 32 columns and 8 rows go down a chunk.
constexpr int kSumLanes = 8;

template <class S, class W, bool centred>
__global__ void __launch_bounds__(kWarp* kSumLanes)
    longColumnSumsKernel(const NormGradient<S, W> a) {
  using T = ComputeOf<S>;
  ADJOINT_SHARED(T, shared, 2 * kWarp * kSumLanes);
  const int thread = static_cast<int>(threadIdx.x), lane = thread / kWarp;
  const int column = static_cast<int>(blockIdx.x) * kWarp + thread % kWarp;
  const int64_t begin = int64_t(blockIdx.y) * a.chunkRows;
  const int64_t end = begin + a.chunkRows < a.rows ? begin + a.chunkRows : a.rows;
  T dweight = T(0), dbias = T(0);
  for (int64_t row = begin + lane; row < end && column < a.length; row += kSumLanes) {
    const T mean = centred ? a.mean[row] : T(0), dy = convert<T>(a.dy[row * a.length + column]);
    dweight += dy * ((convert<T>(a.x[row * a.length + column]) - mean) * a.rstd[row]);
    dbias += dy;
  }
  shared[thread] = dweight;
  shared[kWarp * kSumLanes + thread] = dbias;
  __syncthreads();
  if (lane > 0 || column >= a.length) return;
  for (int l = 1; l < kSumLanes; l++) {
    dweight += shared[l * kWarp + thread];
    dbias += shared[(kSumLanes + l) * kWarp + thread];
  }
  T* partial = a.partial + int64_t(blockIdx.y) * (centred ? 2 : 1) * a.length;
  partial[column] = dweight;
  if (centred) partial[a.length + column] = dbias;
}

// y0, y1 [length] = the sums of partial [chunks, columns] over the chunks; columns is length or
// 2 length. Warps go down the chunks side by side.
template <class T>
__global__ void __launch_bounds__(kWarp* kMaxWarps)
    sumChunksKernel(void* y0, DType dtype0, void* y1, DType dtype1, const T* partial, int chunks,
                    int length, int columns) {
  ADJOINT_SHARED(T, shared, kWarp * kMaxWarps);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const int column = static_cast<int>(blockIdx.x) * kWarp + thread % kWarp;
  T chain[4] = {T(0), T(0), T(0), T(0)};
  if (column < columns) {
    const T* p = partial + column;
    int chunk = warp;
    for (; chunk + 3 * warps < chunks; chunk += 4 * warps) {
      for (int j = 0; j < 4; j++) chain[j] += p[int64_t(chunk + j * warps) * columns];
    }
    for (; chunk < chunks; chunk += warps) chain[0] += p[int64_t(chunk) * columns];
  }
  shared[thread] = (chain[0] + chain[1]) + (chain[2] + chain[3]);
  for (int half = warps / 2; half > 0; half /= 2) {
    __syncthreads();
    if (warp < half) shared[thread] += shared[thread + half * kWarp];
  }
  if (warp > 0 || column >= columns) return;
  if (column < length) {
    storeAs(y0, dtype0, column, shared[thread]);
  } else {
    storeAs(y1, dtype1, column - length, shared[thread]);
  }
}

// Chunks enough to fill a large device, of rows enough that their sums are few beside the rows.
int64_t chunkRowsFor(int64_t rows, int groups) {
  const int64_t few = ceilDiv(rows, kFewChunks), many = ceilDiv(rows, kMostChunks);
  int64_t wanted = few < kChunkRows ? few : kChunkRows;
  if (wanted < many) wanted = many;
  return wanted < groups ? groups : wanted;
}

template <class S, class W, bool centred>
void launchGradient(NormGradient<S, W> a, const View& dweight, const View* dbias) {
  using T = ComputeOf<S>;
  const int wide = kPerAccess<S>;
  const bool isAligned = isWideAligned(uint64_t(a.length) * sizeof(S)) && isWideAligned(a.x) &&
                         isWideAligned(a.dy) && isWideAligned(a.dx) && isWideAligned(a.weight);
  RowShape shape = rowShape(a.length, isAligned ? wide : 1);
  if (shape.width * shape.count > kMostElements<S>) {
    shape.lanes *= 2;
    shape.count /= 2;
  }
  const bool isLong = shape.lanes > kMostBackwardLanes;
  const int threads = shape.lanes > kBackwardThreads ? shape.lanes : kBackwardThreads;
  a.lanes = shape.lanes;
  a.chunkRows = chunkRowsFor(a.rows, isLong ? kSumLanes : threads / shape.lanes);
  const int64_t chunks = ceilDiv(a.rows, a.chunkRows), columns = (centred ? 2 : 1) * a.length;
  const Workspace partial(static_cast<size_t>(chunks * columns) * sizeof(T));
  a.partial = static_cast<T*>(partial.data());
  if (isLong) {
    launch(gridFor(a.rows, 1), kMostBackwardLanes, 0, stream(),
           longLayerNormBackwardKernel<S, W, centred>, a);
    const dim3 grid(static_cast<unsigned>(ceilDiv(a.length, kWarp)), static_cast<unsigned>(chunks));
    launch(grid, kWarp * kSumLanes, 0, stream(), longColumnSumsKernel<S, W, centred>, a);
  } else {
    visitRowShape<wide>(shape, [&](auto width, auto count) {
      if constexpr (width() * count() <= kMostElements<S>) {
        launch(static_cast<unsigned>(chunks), static_cast<unsigned>(threads),
               static_cast<size_t>(threads) * width() * sizeof(T), stream(),
               layerNormBackwardKernel<S, W, width(), count(), centred>, a);
      }
    });
  }
  const int most = chunks >= kMaxWarps * 4 ? kMaxWarps : 8;
  launch(static_cast<unsigned>(ceilDiv(columns, kWarp)), static_cast<unsigned>(kWarp * most), 0,
         stream(), sumChunksKernel<T>, dweight.data, dweight.dtype, dbias ? dbias->data : nullptr,
         dbias ? dbias->dtype : dweight.dtype, a.partial, static_cast<int>(chunks), a.length,
         static_cast<int>(columns));
}

}  // namespace
}  // namespace cuda

void backend::layerNormBackward(const LayerNormBackwardArgs& a) {
  using namespace cuda;
  if (a.x.numel() == 0) {
    fill(a.dweight, Scalar::of(0.0));
    if (a.dbias) fill(*a.dbias, Scalar::of(0.0));
    return;
  }
  const int64_t rows = a.rstd.numel(), length = a.x.numel() / rows;
  if (length > 0x3fffffff) fail(ErrorKind::shape, "layerNorm: expected rows of less than 2^30");
  const DType dtype = a.x.dtype, wide = computeDType(dtype);
  const DType form = coefficientType(dtype, a.weight, nullptr);
  const Stand x = denseInput(a.x, dtype), dy = denseInput(a.dy, dtype);
  const Stand rstd = denseInput(a.rstd, wide), dx = denseOutput(a.dx, dtype);
  const std::optional<Stand> weight = denseCoefficients(a.weight, form);
  const std::optional<Stand> mean = denseCoefficients(a.mean, wide);
  const Stand dweight = denseOutput(a.dweight, a.dweight.dtype);
  std::optional<Stand> dbias;
  if (a.dbias) dbias.emplace(denseOutput(*a.dbias, a.dbias->dtype));
  visitNormTypes(dtype, form, [&](auto stored, auto coefficient) {
    using S = typename decltype(stored)::type;
    using W = typename decltype(coefficient)::type;
    using T = ComputeOf<S>;
    const NormGradient<S, W> g{dx.view().as<S>(),
                               dy.view().as<S>(),
                               x.view().as<S>(),
                               weight ? weight->view().as<W>() : nullptr,
                               mean ? mean->view().as<T>() : nullptr,
                               rstd.view().as<T>(),
                               nullptr,
                               rows,
                               0,
                               static_cast<int>(length),
                               0};
    const View* bias = dbias ? &dbias->view() : nullptr;
    mean ? launchGradient<S, W, true>(g, dweight.view(), bias)
         : launchGradient<S, W, false>(g, dweight.view(), bias);
  });
  dx.finish();
  dweight.finish();
  if (dbias) dbias->finish();
}

}  // namespace adjoint
