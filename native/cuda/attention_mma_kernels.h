// The kernels of attention on tensor cores (Dao 2023, "FlashAttention-2"): weights stay in the
// registers of the warp that multiplies with them. A tile of queries meets one tile of keys after
// another.
#pragma once
#include "cuda/attention_mma.h"

namespace adjoint::cuda {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Scores in units of 1 / Mma::kUnit. `isWhole`: the warp's queries see all keys of the tile, and
// there is no mask.
template <class Mma, int kColumns, class S>
ADJOINT_DEVICE void scale(MmaSums<kColumns>& s, const Scores<float, S>& scores, const char* mask,
                          int query, int key, bool isWhole, const MmaPlace& at) {
  const float factor = scores.scale * Mma::kUnit;
  ADJOINT_UNROLL
  for (int n = 0; n < kColumns / 8; n++) {
    ADJOINT_UNROLL
    for (int i = 0; i < 4; i++) {
      s[n][i] = isWhole ? s[n][i] * factor
                        : scores.score(s[n][i], mask, query + at.row(i), key + at.column(n, i)) *
                              Mma::kUnit;
    }
  }
}

// One step of the online softmax, as attention.cu has it.
template <class Mma, int kColumns, int kWidth>
ADJOINT_DEVICE void accumulate(MmaSums<kColumns>& s, float (&m)[2], float (&l)[2],
                               MmaSums<kWidth>& o) {
  ADJOINT_UNROLL
  for (int half = 0; half < 2; half++) {
    float most = -kInfinity;
    ADJOINT_UNROLL
    for (int n = 0; n < kColumns / 8; n++) {
      ADJOINT_UNROLL
      for (int i = 2 * half; i < 2 * half + 2; i++) most = s[n][i] > most ? s[n][i] : most;
    }
    // The four lanes that share a row
    ADJOINT_UNROLL
    for (int d = 1; d <= 2; d *= 2) {
      const float other = __shfl_xor_sync(kAllLanes, most, d);
      most = other > most ? other : most;
    }
    most = m[half] > most ? m[half] : most;
    const float shift = most == -kInfinity ? 0 : most;
    const float rescale = m[half] == most ? 1 : Mma::exp(m[half] - shift);
    m[half] = most;
    float sum = 0;
    ADJOINT_UNROLL
    for (int n = 0; n < kColumns / 8; n++) {
      ADJOINT_UNROLL
      for (int i = 2 * half; i < 2 * half + 2; i++) {
        s[n][i] = Mma::exp(s[n][i] - shift);
        sum += s[n][i];
      }
    }
    l[half] = rescale * l[half] + sum;
    ADJOINT_UNROLL
    for (int n = 0; n < kWidth / 8; n++) {
      ADJOINT_UNROLL
      for (int i = 2 * half; i < 2 * half + 2; i++) o[n][i] *= rescale;
    }
  }
}

// What a block's own rows keep of shared memory.
template <class Mma, int kWidth>
constexpr int kOwnElements =
    Mma::kRowsStay ? kMmaRows* kMmaStride<typename Mma::Element, kWidth> : 0;

// Waits for the copies of all the block's threads.
ADJOINT_DEVICE void awaitTiles() {
  waitForCopies<0>();
  __syncthreads();
}

// The keys that a tile of queries from `query` on meets.
ADJOINT_DEVICE int keysOf(const AttentionSizes& size, bool isCausal, int query) {
  return isCausal && query + kMmaRows < size.tk ? query + kMmaRows : size.tk;
}

// Blocks that a multiprocessor is to have room for in the forward pass: as many as registers allow,
// of which ptxas needs more before compute capability 9.0.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kNeedsMore = true;
#else
constexpr bool kNeedsMore = false;
#endif
template <class Mma, int kWidth, bool kMasked>
constexpr int kMmaBlocks = kWidth > 64 || (Mma::kRowsStay && kWidth > 32 && (kMasked || kNeedsMore))
                               ? 2
                               : 3;

template <class Mma, int kWidth, bool kMasked>
__global__ void __launch_bounds__(kMmaThreads, kMmaBlocks<Mma, kWidth, kMasked>)
    attentionMmaKernel(const ForwardOperands<typename Mma::Element> a) {
  using S = typename Mma::Element;
  ADJOINT_DYNAMIC_SHARED(S, shared);
  constexpr int kRows = Mma::template kTileRows<kWidth>;
  S *const own = shared, *const keys = shared + kOwnElements<Mma, kWidth>,
           *const values = keys + kRows * kMmaStride<S, kWidth>;
  const MmaPlace at;
  // The last queries come first: under a causal mask they have the most keys.
  const int tile = a.tiles - 1 - static_cast<int>(blockIdx.x) % a.tiles;
  const int index = static_cast<int>(blockIdx.x) / a.tiles;
  const int batch = index / a.size.heads, head = index % a.size.heads, query = tile * kMmaRows;
  const auto q = tileSource(a.q, batch, head, a.size.tq, a.size.d);
  const auto k = tileSource(a.k, batch, head, a.size.tk, a.size.d);
  const auto v = tileSource(a.v, batch, head, a.size.tk, a.size.e);
  const char* mask = kMasked ? a.scores.headMask(batch, head) : nullptr;
  typename Mma::template Rows<kWidth> queries;
  loadMmaTile<kMmaRows, kWidth>(own, q, query);
  commitCopies();
  awaitTiles();
  queries.take(own, at);
  __syncthreads();
  const int seen = keysOf(a.size, a.scores.isCausal, query);
  loadMmaTile<kRows, kWidth>(keys, k, 0);
  commitCopies();

  float m[2] = {-kInfinity, -kInfinity}, l[2] = {0, 0};
  MmaSums<kWidth> o;
  clear<kWidth>(o);
  for (int key = 0; key < seen; key += kRows) {
    // Values arrive during the first product and the softmax, the next keys during the second.
    awaitTiles();
    loadMmaTile<kRows, kWidth>(values, v, key);
    commitCopies();
    MmaSums<kRows> s;
    multiplyTile<Mma, kWidth, kRows>(s, queries, keys, at);
    const bool isWhole = !kMasked && key + kRows <= a.size.tk &&
                         (!a.scores.isCausal || key + kRows <= query + at.warp * 16 + 1);
    scale<Mma, kRows>(s, a.scores, mask, query, key, isWhole, at);
    accumulate<Mma, kRows, kWidth>(s, m, l, o);
    awaitTiles();
    if (key + kRows < seen) loadMmaTile<kRows, kWidth>(keys, k, key + kRows);
    commitCopies();
    Mma::template addWeighted<kWidth, kRows>(o, s, values, at);
  }

  float factor[2];
  ADJOINT_UNROLL
  for (int half = 0; half < 2; half++) {
    float sum = l[half];
    ADJOINT_UNROLL
    for (int d = 1; d <= 2; d *= 2) sum += __shfl_xor_sync(kAllLanes, sum, d);
    factor[half] = sum == 0 ? 0 : 1 / sum;
    const int row = query + at.row(2 * half);
    if (at.lane % 4 == 0 && row < a.size.tq) {
      a.lse[int64_t(index) * a.size.tq + row] = sum == 0 ? kInfinity : Mma::logSumExp(m[half], sum);
    }
  }
  Mma::template store<kWidth>(a.y, batch, head, query, a.size.tq, a.size.e, o, factor, at);
}

// p = exp(s - lse), lse in the same units: s becomes p, and dp becomes p (dp - delta); both are 0
// where a key is not seen.
template <class Mma>
ADJOINT_DEVICE void differentiate(float& s, float& dp, float lse, float delta) {
  const bool isSeen = s != -kInfinity;
  s = isSeen ? Mma::exp(s - lse) : 0;
  dp = isSeen ? s * (dp - delta) : 0;
}

// dq = scale times the sum over keys of ds k
template <class Mma, int kWidth, bool kMasked>
__global__ void __launch_bounds__(kMmaThreads, 2)
    attentionMmaQueryKernel(const BackwardOperands<typename Mma::Element> a) {
  using S = typename Mma::Element;
  ADJOINT_DYNAMIC_SHARED(S, shared);
  constexpr int kRows = Mma::template kBackwardRows<kWidth>, kStride = kMmaStride<S, kWidth>;
  S *const own = shared, *const ownGradients = own + kMmaRows * kStride;
  S *const keys = shared + 2 * kOwnElements<Mma, kWidth>, *const values = keys + kRows * kStride;
  constexpr int kColumns = Mma::template kBackwardColumns<kWidth, 1>;
  const MmaPlace at;
  const int tile = a.tiles - 1 - static_cast<int>(blockIdx.x) % a.tiles;
  const int index = static_cast<int>(blockIdx.x) / a.tiles;
  const int batch = index / a.size.heads, head = index % a.size.heads, query = tile * kMmaRows;
  const auto q = tileSource(a.q, batch, head, a.size.tq, a.size.d);
  const auto k = tileSource(a.k, batch, head, a.size.tk, a.size.d);
  const auto v = tileSource(a.v, batch, head, a.size.tk, a.size.e);
  const auto dy = tileSource(a.dy, batch, head, a.size.tq, a.size.e);
  const char* mask = kMasked ? a.scores.headMask(batch, head) : nullptr;
  typename Mma::template Rows<kWidth> queries, gradients;
  loadMmaTile<kMmaRows, kWidth>(own, q, query);
  loadMmaTile<kMmaRows, kWidth>(ownGradients, dy, query);
  commitCopies();
  awaitTiles();
  queries.take(own, at);
  gradients.take(ownGradients, at);
  float lse[2], delta[2];
  ADJOINT_UNROLL
  for (int half = 0; half < 2; half++) {
    const int row = query + at.row(2 * half);
    const int64_t place = int64_t(index) * a.size.tq + row;
    lse[half] = row < a.size.tq ? a.lse[place] * Mma::kUnit : 0;
    delta[half] = row < a.size.tq ? a.delta[place] : 0;
  }

  MmaSums<kWidth> dq;
  clear<kWidth>(dq);
  const int seen = keysOf(a.size, a.scores.isCausal, query);
  for (int key = 0; key < seen; key += kRows) {
    __syncthreads();
    loadMmaTile<kRows, kWidth>(keys, k, key);
    loadMmaTile<kRows, kWidth>(values, v, key);
    commitCopies();
    awaitTiles();
    ADJOINT_ROLLED
    for (int part = 0; part < kRows; part += kColumns) {
      const S *someKeys = keys + part * kStride, *someValues = values + part * kStride;
      MmaSums<kColumns> s, dp;
      multiplyTile<Mma, kWidth, kColumns>(s, queries, someKeys, at);
      multiplyTile<Mma, kWidth, kColumns>(dp, gradients, someValues, at);
      const int first = key + part;
      const bool isWhole = !kMasked && first + kColumns <= a.size.tk &&
                           (!a.scores.isCausal || first + kColumns <= query + at.warp * 16 + 1);
      scale<Mma, kColumns>(s, a.scores, mask, query, first, isWhole, at);
      ADJOINT_UNROLL
      for (int n = 0; n < kColumns / 8; n++) {
        ADJOINT_UNROLL
        for (int i = 0; i < 4; i++) differentiate<Mma>(s[n][i], dp[n][i], lse[i / 2], delta[i / 2]);
      }
      Mma::template addWeighted<kWidth, kColumns>(dq, dp, someKeys, at);
    }
  }
  const float factor[2] = {a.scores.scale, a.scores.scale};
  Mma::template store<kWidth>(a.dq, batch, head, query, a.size.tq, a.size.d, dq, factor, at);
}

// dv = sum over queries of p dy, dk = scale times the sum over queries of ds q: the rows of a tile
// are keys. Where registers do not hold both sums, one kernel makes each.
enum class KeyGradients { both, values, keys };

template <class Mma, int kWidth, bool kMasked, KeyGradients which>
__global__ void __launch_bounds__(kMmaThreads, 2)
    attentionMmaKeyKernel(const BackwardOperands<typename Mma::Element> a) {
  using S = typename Mma::Element;
  ADJOINT_DYNAMIC_SHARED(S, shared);
  constexpr int kRows = Mma::template kBackwardRows<kWidth>, kStride = kMmaStride<S, kWidth>;
  ADJOINT_SHARED(float, lse, kRows);
  ADJOINT_SHARED(float, delta, kRows);
  S *const own = shared, *const ownValues = own + kMmaRows * kStride;
  S *const queries = shared + 2 * kOwnElements<Mma, kWidth>, *const gradients =
                                                                 queries + kRows * kStride;
  const MmaPlace at;
  constexpr bool ofValues = which != KeyGradients::keys, ofKeys = which != KeyGradients::values;
  constexpr int kColumns = Mma::template kBackwardColumns<kWidth, ofValues + ofKeys>;
  const int tile = static_cast<int>(blockIdx.x) % a.tiles;
  const int index = static_cast<int>(blockIdx.x) / a.tiles;
  const int batch = index / a.size.heads, head = index % a.size.heads, key = tile * kMmaRows;
  const auto q = tileSource(a.q, batch, head, a.size.tq, a.size.d);
  const auto k = tileSource(a.k, batch, head, a.size.tk, a.size.d);
  const auto v = tileSource(a.v, batch, head, a.size.tk, a.size.e);
  const auto dy = tileSource(a.dy, batch, head, a.size.tq, a.size.e);
  const char* mask = kMasked ? a.scores.headMask(batch, head) : nullptr;
  typename Mma::template Rows<kWidth> keys, values;
  loadMmaTile<kMmaRows, kWidth>(own, k, key);
  if constexpr (ofKeys) loadMmaTile<kMmaRows, kWidth>(ownValues, v, key);
  commitCopies();
  awaitTiles();
  keys.take(own, at);
  if constexpr (ofKeys) values.take(ownValues, at);

  MmaSums<kWidth> sums[ofValues && ofKeys ? 2 : 1];
  for (auto& sum : sums) clear<kWidth>(sum);
  for (int query = a.scores.isCausal ? key : 0; query < a.size.tq; query += kRows) {
    __syncthreads();
    loadMmaTile<kRows, kWidth>(queries, q, query);
    loadMmaTile<kRows, kWidth>(gradients, dy, query);
    commitCopies();
    const int i = static_cast<int>(threadIdx.x);
    if (i < kRows) {
      const int64_t place = int64_t(index) * a.size.tq + query + i;
      lse[i] = query + i < a.size.tq ? a.lse[place] * Mma::kUnit : 0;
      delta[i] = query + i < a.size.tq ? a.delta[place] : 0;
    }
    awaitTiles();
    ADJOINT_ROLLED
    for (int part = 0; part < kRows; part += kColumns) {
      const S *someQueries = queries + part * kStride, *someGradients = gradients + part * kStride;
      MmaSums<kColumns> s, dp;
      multiplyTile<Mma, kWidth, kColumns>(s, keys, someQueries, at);
      if constexpr (ofKeys) {
        multiplyTile<Mma, kWidth, kColumns>(dp, values, someGradients, at);
      } else {
        clear<kColumns>(dp);
      }
      // The last of the warp's keys is seen by the first query, and there are no more than these.
      const int first = query + part;
      const bool isWhole = !kMasked && first + kColumns <= a.size.tq &&
                           key + kMmaRows <= a.size.tk &&
                           (!a.scores.isCausal || key + at.warp * 16 + 15 <= first);
      ADJOINT_UNROLL
      for (int n = 0; n < kColumns / 8; n++) {
        ADJOINT_UNROLL
        for (int j = 0; j < 4; j++) {
          const int column = at.column(n, j);
          s[n][j] =
              isWhole ? s[n][j] * (a.scores.scale * Mma::kUnit)
                      : a.scores.score(s[n][j], mask, first + column, key + at.row(j)) * Mma::kUnit;
          differentiate<Mma>(s[n][j], dp[n][j], lse[part + column], delta[part + column]);
        }
      }
      if constexpr (ofValues) {
        Mma::template addWeighted<kWidth, kColumns>(sums[0], s, someGradients, at);
      }
      if constexpr (ofKeys) {
        Mma::template addWeighted<kWidth, kColumns>(sums[ofValues ? 1 : 0], dp, someQueries, at);
      }
    }
  }
  if constexpr (ofValues) {
    const float factor[2] = {1, 1};
    Mma::template store<kWidth>(a.dv, batch, head, key, a.size.tk, a.size.e, sums[0], factor, at);
  }
  if constexpr (ofKeys) {
    const float factor[2] = {a.scores.scale, a.scores.scale};
    Mma::template store<kWidth>(a.dk, batch, head, key, a.size.tk, a.size.d, sums[ofValues ? 1 : 0],
                                factor, at);
  }
}

// Of two tiles, and of so many of the block's own
template <class Mma, int kWidth>
constexpr size_t mmaSharedBytes(int own, int rows) {
  using S = typename Mma::Element;
  return sizeof(S) * (own * kOwnElements<Mma, kWidth> + 2 * rows * kMmaStride<S, kWidth>);
}

template <class Mma>
bool launchMma(ForwardOperands<typename Mma::Element> a) {
  return visitMma(a.size, a.scores.mask, [&](auto width, auto masked) {
    constexpr int kWidth = decltype(width)::value;
    constexpr bool kMasked = decltype(masked)::value;
    a.tiles = static_cast<int>(ceilDiv(a.size.tq, kMmaRows));
    launch(attentionGrid(a.tiles, a.size.count(), 1, 1), kMmaThreads,
           mmaSharedBytes<Mma, kWidth>(1, Mma::template kTileRows<kWidth>), stream(),
           attentionMmaKernel<Mma, kWidth, kMasked>, a);
  });
}

template <class Mma>
bool launchMmaBackward(BackwardOperands<typename Mma::Element> a) {
  return visitMma(a.size, a.scores.mask, [&](auto width, auto masked) {
    constexpr int kWidth = decltype(width)::value;
    constexpr bool kMasked = decltype(masked)::value;
    const auto launchTiles = [&](int length, auto kernel) {
      if (length == 0) return;
      a.tiles = static_cast<int>(ceilDiv(length, kMmaRows));
      launch(attentionGrid(a.tiles, a.size.count(), 1, 1), kMmaThreads,
             mmaSharedBytes<Mma, kWidth>(2, Mma::template kBackwardRows<kWidth>), stream(), kernel,
             a);
    };
    launchTiles(a.size.tq, attentionMmaQueryKernel<Mma, kWidth, kMasked>);
    if constexpr (kWidth > 64) {
      launchTiles(a.size.tk, attentionMmaKeyKernel<Mma, kWidth, kMasked, KeyGradients::values>);
      launchTiles(a.size.tk, attentionMmaKeyKernel<Mma, kWidth, kMasked, KeyGradients::keys>);
    } else {
      launchTiles(a.size.tk, attentionMmaKeyKernel<Mma, kWidth, kMasked, KeyGradients::both>);
    }
  });
}

}  // namespace adjoint::cuda
