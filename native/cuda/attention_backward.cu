// The gradients of attention (Dao et al. 2022, algorithm 4): the scores of a tile are computed
// again, from q, k and the log-sum-exp of each row. One kernel sums dk and dv over the queries,
// another dq over the keys, so that no sum needs more than one block and its order is fixed.
#include <memory>

#include "cuda/attention.h"
#include "cuda/attention_tiles.h"
#include "cuda/workspace.h"

namespace adjoint {
namespace cuda {
namespace {

// ---------------------------------------------------------------- delta = sum(dy y) of each row
constexpr int kDeltaLanes = 8;

template <class S>
__global__ void __launch_bounds__(kTileThreads) attentionDeltaKernel(const BackwardOperands<S> a) {
  using T = ComputeOf<S>;
  const int lane = static_cast<int>(threadIdx.x) % kDeltaLanes;
  const int64_t rows = int64_t(a.size.count()) * a.size.tq;
  const int64_t row = (int64_t(blockIdx.x) * kTileThreads + threadIdx.x) / kDeltaLanes;
  T sum = T(0);
  if (row < rows) {
    const int index = static_cast<int>(row / a.size.tq), i = static_cast<int>(row % a.size.tq);
    const int batch = index / a.size.heads, head = index % a.size.heads;
    const S* dy = a.dy.at(batch, head) + i * a.dy.row;
    const S* y = a.y.at(batch, head) + i * a.y.row;
    const bool isVector = a.dy.isVector && a.y.isVector;
    for (int e = lane * kVector; e < a.size.e; e += kDeltaLanes * kVector) {
      if (isVector && e + kVector <= a.size.e) {
        const Pack<S> left = *reinterpret_cast<const Pack<S>*>(dy + e);
        const Pack<S> right = *reinterpret_cast<const Pack<S>*>(y + e);
        for (int j = 0; j < kVector; j++) {
          sum += convert<T>(left.value[j]) * convert<T>(right.value[j]);
        }
      } else {
        for (int j = e; j < e + kVector && j < a.size.e; j++) {
          sum += convert<T>(dy[j * a.dy.column]) * convert<T>(y[j * a.y.column]);
        }
      }
    }
  }
  for (int d = kDeltaLanes / 2; d > 0; d /= 2) sum += __shfl_xor_sync(kAllLanes, sum, d);
  if (lane == 0 && row < rows) a.delta[row] = sum;
}

// ---------------------------------------------------------------- gradients
// p = exp(score - lse): s becomes p, and dp becomes ds = p (dp - delta) scale; both are 0 where a
// key is not seen.
template <class T, class S>
ADJOINT_DEVICE void differentiate(T& s, T& dp, const Scores<T, S>& scores, const char* mask,
                                  int query, int key, T lse, T delta) {
  const T score = scores.score(s, mask, query, key);
  const bool isSeen = score != -std::numeric_limits<T>::infinity();
  s = isSeen ? Math<T>::exp(score - lse) : T(0);
  dp = isSeen ? s * (dp - delta) * scores.scale : T(0);
}

template <class T, int R, int C>
ADJOINT_DEVICE void clear(T (&sum)[R][C]) {
  ADJOINT_UNROLL
  for (int r = 0; r < R; r++) {
    ADJOINT_UNROLL
    for (int c = 0; c < C; c++) sum[r][c] = T(0);
  }
}

// dq = sum over keys of ds k
template <class S, int R, int kTile>
__global__ void __launch_bounds__(kTileThreads, kBlocksAtOnce<S, kTile>)
    attentionQueryKernel(const BackwardOperands<S> a) {
  using T = ComputeOf<S>;
  constexpr int W = kWide<T>, kQueries = R * kRowGroups;
  ADJOINT_DYNAMIC_SHARED(T, shared);
  T* const weights = shared;
  T* const staging = weights + kQueries * kWeightStride<T>;

  const int tile = a.tiles - 1 - static_cast<int>(blockIdx.x) % a.tiles;
  const int index = static_cast<int>(blockIdx.x) / a.tiles;
  const int batch = index / a.size.heads, head = index % a.size.heads;
  const int query = tile * kQueries, column = static_cast<int>(blockIdx.y) * kTile;
  const auto q = tileSource(a.q, batch, head, a.size.tq, a.size.d);
  const auto k = tileSource(a.k, batch, head, a.size.tk, a.size.d);
  const auto v = tileSource(a.v, batch, head, a.size.tk, a.size.e);
  const auto dy = tileSource(a.dy, batch, head, a.size.tq, a.size.e);
  const char* mask = a.scores.headMask(batch, head);

  const int row = query + firstRow<R>();
  T lse[R], delta[R], dq[R][kTile / kColumnThreads];
  ADJOINT_UNROLL
  for (int r = 0; r < R; r++) {
    const int64_t at = int64_t(index) * a.size.tq + row + r;
    lse[r] = row + r < a.size.tq ? a.lse[at] : T(0);
    delta[r] = row + r < a.size.tq ? a.delta[at] : T(0);
  }
  clear(dq);
  const int seen = a.scores.isCausal && query + kQueries < a.size.tk ? query + kQueries : a.size.tk;
  for (int key = 0; key < seen; key += kScoreColumns<T>) {
    T s[R][W], dp[R][W];
    multiplyRows<R>(s, staging, q, query, k, key);
    multiplyRows<R>(dp, staging, dy, query, v, key);
    ADJOINT_UNROLL
    for (int r = 0; r < R; r++) {
      ADJOINT_UNROLL
      for (int c = 0; c < W; c++) {
        differentiate(s[r][c], dp[r][c], a.scores, mask, row + r, key + scoreColumn(c), lse[r],
                      delta[r]);
      }
    }
    storeWeights<T, R>(weights, dp);
    addWeighted<kTile>(dq, weights, staging, k, key, column);
  }
  ADJOINT_UNROLL
  for (int r = 0; r < R; r++) {
    if (row + r < a.size.tq) {
      storeSum<kTile>(a.dq.at(batch, head), a.dq, row + r, column, a.size.d, dq[r]);
    }
  }
}

// dv = sum over queries of p dy, dk = sum over queries of ds q: the rows of a tile are keys.
template <class S, int R, int kTile>
__global__ void __launch_bounds__(kTileThreads, 2) attentionKeyKernel(const BackwardOperands<S> a) {
  using T = ComputeOf<S>;
  constexpr int W = kWide<T>, kKeys = R * kRowGroups;
  ADJOINT_DYNAMIC_SHARED(T, shared);
  T* const weights = shared;
  T* const staging = weights + kKeys * kWeightStride<T>;

  // The first keys come first: under a causal mask they are seen by the most queries.
  const int tile = static_cast<int>(blockIdx.x) % a.tiles;
  const int index = static_cast<int>(blockIdx.x) / a.tiles;
  const int batch = index / a.size.heads, head = index % a.size.heads;
  const int key = tile * kKeys, column = static_cast<int>(blockIdx.y) * kTile;
  const auto q = tileSource(a.q, batch, head, a.size.tq, a.size.d);
  const auto k = tileSource(a.k, batch, head, a.size.tk, a.size.d);
  const auto v = tileSource(a.v, batch, head, a.size.tk, a.size.e);
  const auto dy = tileSource(a.dy, batch, head, a.size.tq, a.size.e);
  const char* mask = a.scores.headMask(batch, head);

  const int row = key + firstRow<R>();
  T dk[R][kTile / kColumnThreads], dv[R][kTile / kColumnThreads];
  clear(dk);
  clear(dv);
  for (int query = a.scores.isCausal ? key : 0; query < a.size.tq; query += kScoreColumns<T>) {
    T s[R][W], dp[R][W], lse[W], delta[W];
    multiplyRows<R>(s, staging, k, key, q, query);
    multiplyRows<R>(dp, staging, v, key, dy, query);
    ADJOINT_UNROLL
    for (int c = 0; c < W; c++) {
      const int i = query + scoreColumn(c);
      lse[c] = i < a.size.tq ? a.lse[int64_t(index) * a.size.tq + i] : T(0);
      delta[c] = i < a.size.tq ? a.delta[int64_t(index) * a.size.tq + i] : T(0);
    }
    ADJOINT_UNROLL
    for (int r = 0; r < R; r++) {
      ADJOINT_UNROLL
      for (int c = 0; c < W; c++) {
        differentiate(s[r][c], dp[r][c], a.scores, mask, query + scoreColumn(c), row + r, lse[c],
                      delta[c]);
      }
    }
    storeWeights<T, R>(weights, s);
    addWeighted<kTile>(dv, weights, staging, dy, query, column);
    __syncthreads();
    storeWeights<T, R>(weights, dp);
    addWeighted<kTile>(dk, weights, staging, q, query, column);
  }
  ADJOINT_UNROLL
  for (int r = 0; r < R; r++) {
    if (row + r >= a.size.tk) continue;
    storeSum<kTile>(a.dk.at(batch, head), a.dk, row + r, column, a.size.d, dk[r]);
    storeSum<kTile>(a.dv.at(batch, head), a.dv, row + r, column, a.size.e, dv[r]);
  }
}

template <class T, int R, int kTile>
constexpr size_t sharedBytes() {
  return sizeof(T) * (R * kRowGroups * kWeightStride<T> + kStagingElements<T, R, kTile>());
}

template <class S>
void launchBackward(BackwardOperands<S> a) {
  using T = ComputeOf<S>;
  const int heads = a.size.count();
  const int64_t rows = int64_t(heads) * a.size.tq;
  if (rows > 0) {
    launch(static_cast<unsigned>(ceilDiv(rows, kTileThreads / kDeltaLanes)), kTileThreads, 0,
           stream(), attentionDeltaKernel<S>, a);
  }
  if constexpr (sizeof(S) <= 4) {
    if (attentionBackwardOnTensorCores(a)) return;
  }
  visitTile<T>(a.size.d, [&](auto width) {
    constexpr int kTile = decltype(width)::value, R = sizeof(T) == 8 ? 4 : 8;
    if (a.size.tq == 0) return;
    a.tiles = static_cast<int>(ceilDiv(a.size.tq, R * kRowGroups));
    launch(attentionGrid(a.tiles, heads, a.size.d, kTile), kTileThreads, sharedBytes<T, R, kTile>(),
           stream(), attentionQueryKernel<S, R, kTile>, a);
  });
  const int wider = a.size.d > a.size.e ? a.size.d : a.size.e;
  visitTile<T>(wider, [&](auto width) {
    // Two sums for each row: fewer rows where the sums are wide.
    constexpr int kTile = decltype(width)::value, R = sizeof(T) == 8 || kTile == 128 ? 4 : 8;
    if (a.size.tk == 0) return;
    a.tiles = static_cast<int>(ceilDiv(a.size.tk, R * kRowGroups));
    launch(attentionGrid(a.tiles, heads, wider, kTile), kTileThreads, sharedBytes<T, R, kTile>(),
           stream(), attentionKeyKernel<S, R, kTile>, a);
  });
}

// The statistics as the kernels read them: dense, of the type of computation.
class Statistics {
 public:
  Statistics(const View& lse, DType dtype) : view_(lse) {
    if (lse.dtype == dtype && lse.isContiguous()) return;
    view_.dtype = dtype;
    int64_t stride = 1;
    for (int axis = view_.ndim - 1; axis >= 0; axis--) {
      view_.stride[axis] = stride;
      stride *= view_.size[axis];
    }
    memory_ = std::make_unique<Workspace>(static_cast<size_t>(stride) * itemSize(dtype));
    view_.data = memory_->data();
    backend::copy(view_, lse);
  }
  const View& view() const { return view_; }

 private:
  View view_;
  std::unique_ptr<Workspace> memory_;
};

}  // namespace
}  // namespace cuda

void backend::attentionBackward(const AttentionBackwardArgs& args) {
  using namespace cuda;
  const AttentionInputs in("attentionBackward", args.q, args.k, args.v, args.mask);
  const AttentionSizes& size = in.sizes();
  in.check("dq", args.dq, size.tq, size.d);
  in.check("dk", args.dk, size.tk, size.d);
  in.check("dv", args.dv, size.tk, size.e);
  in.check("dy", args.dy, size.tq, size.e);
  in.check("y", args.y, size.tq, size.e);
  if (size.count() == 0) return;
  const Statistics lse(args.lse, computeDType(args.q.dtype));
  in.checkStatistics(lse.view());
  if (isHalf(args.q.dtype) && !args.mask &&
      attentionBackwardByLibrary(args, lse.view(), deterministicAlgorithms())) {
    return;
  }
  visitFloats("attention", args.q.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using T = ComputeOf<S>;
    const Workspace delta(static_cast<size_t>(int64_t(size.count()) * size.tq) * sizeof(T) + 1);
    BackwardOperands<S> a{};
    a.q = headsOf<const S>(args.q);
    a.k = headsOf<const S>(args.k);
    a.v = headsOf<const S>(args.v);
    a.y = headsOf<const S>(args.y);
    a.dy = headsOf<const S>(args.dy);
    a.dq = headsOf<S>(args.dq);
    a.dk = headsOf<S>(args.dk);
    a.dv = headsOf<S>(args.dv);
    a.lse = lse.view().as<const T>();
    a.delta = static_cast<T*>(delta.data());
    a.size = size;
    a.scores = {AttentionMask(args.mask), static_cast<T>(args.scale), args.isCausal, size.tq,
                size.tk};
    launchBackward(a);
  });
}

}  // namespace adjoint
