// Attention of 16-bit types on tensor cores (Dao 2023, "FlashAttention-2"): weights stay in the
// registers of the warp that multiplies with them. A tile of queries meets one tile of keys after
// another.
#include "cuda/attention_mma.h"

namespace adjoint::cuda {
namespace {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.69314718f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Scores in units of log2(e), so that exp2 gives the weights. `isWhole`: the warp's queries see all
// keys of the tile, and there is no mask.
template <int kColumns, class S>
ADJOINT_DEVICE void scale(MmaSums<kColumns>& s, const Scores<float, S>& scores, const char* mask,
                          int query, int key, bool isWhole, const MmaPlace& at) {
  const float factor = scores.scale * kLog2E;
  ADJOINT_UNROLL
  for (int n = 0; n < kColumns / 8; n++) {
    ADJOINT_UNROLL
    for (int i = 0; i < 4; i++) {
      s[n][i] =
          isWhole ? s[n][i] * factor
                  : scores.score(s[n][i], mask, query + at.row(i), key + at.column(n, i)) * kLog2E;
    }
  }
}

// One step of the online softmax, as attention.cu has it.
template <int kWidth>
ADJOINT_DEVICE void accumulate(MmaSums<kMmaRows>& s, float (&m)[2], float (&l)[2],
                               MmaSums<kWidth>& o) {
  ADJOINT_UNROLL
  for (int half = 0; half < 2; half++) {
    float most = -kInfinity;
    ADJOINT_UNROLL
    for (int n = 0; n < kMmaRows / 8; n++) {
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
    const float rescale = m[half] == most ? 1 : Math<float>::exp2(m[half] - shift);
    m[half] = most;
    float sum = 0;
    ADJOINT_UNROLL
    for (int n = 0; n < kMmaRows / 8; n++) {
      ADJOINT_UNROLL
      for (int i = 2 * half; i < 2 * half + 2; i++) {
        s[n][i] = Math<float>::exp2(s[n][i] - shift);
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

// Waits for the copies of all the block's threads.
ADJOINT_DEVICE void awaitTiles() {
  waitForCopies<0>();
  __syncthreads();
}

// The keys that a tile of queries from `query` on meets.
ADJOINT_DEVICE int keysOf(const AttentionSizes& size, bool isCausal, int query) {
  return isCausal && query + kMmaRows < size.tk ? query + kMmaRows : size.tk;
}

template <class S, int kWidth, bool kMasked>
__global__ void __launch_bounds__(kMmaThreads, kWidth > 64 ? 2 : 3)
    attentionHalfKernel(const ForwardOperands<S> a) {
  ADJOINT_DYNAMIC_SHARED(S, shared);
  S *const keys = shared, *const values = shared + kMmaRows * kMmaStride<kWidth>;
  const MmaPlace at;
  // The last queries come first: under a causal mask they have the most keys.
  const int tile = a.tiles - 1 - static_cast<int>(blockIdx.x) % a.tiles;
  const int index = static_cast<int>(blockIdx.x) / a.tiles;
  const int batch = index / a.size.heads, head = index % a.size.heads, query = tile * kMmaRows;
  const auto q = tileSource(a.q, batch, head, a.size.tq, a.size.d);
  const auto k = tileSource(a.k, batch, head, a.size.tk, a.size.d);
  const auto v = tileSource(a.v, batch, head, a.size.tk, a.size.e);
  const char* mask = kMasked ? a.scores.headMask(batch, head) : nullptr;
  MmaRows<kWidth> queries;
  loadMmaTile<kWidth>(keys, q, query);
  commitCopies();
  awaitTiles();
  takeRows<kWidth>(queries, keys, at);
  __syncthreads();
  const int seen = keysOf(a.size, a.scores.isCausal, query);
  loadMmaTile<kWidth>(keys, k, 0);
  commitCopies();

  float m[2] = {-kInfinity, -kInfinity}, l[2] = {0, 0};
  MmaSums<kWidth> o;
  clear<kWidth>(o);
  for (int key = 0; key < seen; key += kMmaRows) {
    // Values arrive during the first product and the softmax, the next keys during the second.
    awaitTiles();
    loadMmaTile<kWidth>(values, v, key);
    commitCopies();
    MmaSums<kMmaRows> s;
    multiplyTile<kWidth, kMmaRows>(s, queries, keys, at);
    const bool isWhole = !kMasked && key + kMmaRows <= a.size.tk &&
                         (!a.scores.isCausal || key + kMmaRows <= query + at.warp * 16 + 1);
    scale<kMmaRows>(s, a.scores, mask, query, key, isWhole, at);
    accumulate<kWidth>(s, m, l, o);
    awaitTiles();
    if (key + kMmaRows < seen) loadMmaTile<kWidth>(keys, k, key + kMmaRows);
    commitCopies();
    addWeightedTile<kWidth, kMmaRows>(o, s, values, at);
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
      a.lse[int64_t(index) * a.size.tq + row] =
          sum == 0 ? kInfinity : (m[half] + Math<float>::log2(sum)) * kLn2;
    }
  }
  storeMmaSums<kWidth>(a.y, batch, head, query, a.size.tq, a.size.e, o, factor, at);
}

// p = exp2(s - lse), lse in the same units: s becomes p, and dp becomes p (dp - delta); both are 0
// where a key is not seen.
ADJOINT_DEVICE void differentiate(float& s, float& dp, float lse, float delta) {
  const bool isSeen = s != -kInfinity;
  s = isSeen ? Math<float>::exp2(s - lse) : 0;
  dp = isSeen ? s * (dp - delta) : 0;
}

// Scores that are in registers at a time: fewer where sums and operands are wide.
template <int kWidth>
constexpr int kBackwardColumns = kWidth > 64 ? kMmaRows / 2 : kMmaRows;

// dq = scale times the sum over keys of ds k
template <class S, int kWidth, bool kMasked>
__global__ void __launch_bounds__(kMmaThreads, 2)
    attentionHalfQueryKernel(const BackwardOperands<S> a) {
  ADJOINT_DYNAMIC_SHARED(S, shared);
  S *const keys = shared, *const values = shared + kMmaRows * kMmaStride<kWidth>;
  constexpr int kColumns = kBackwardColumns<kWidth>;
  const MmaPlace at;
  const int tile = a.tiles - 1 - static_cast<int>(blockIdx.x) % a.tiles;
  const int index = static_cast<int>(blockIdx.x) / a.tiles;
  const int batch = index / a.size.heads, head = index % a.size.heads, query = tile * kMmaRows;
  const auto q = tileSource(a.q, batch, head, a.size.tq, a.size.d);
  const auto k = tileSource(a.k, batch, head, a.size.tk, a.size.d);
  const auto v = tileSource(a.v, batch, head, a.size.tk, a.size.e);
  const auto dy = tileSource(a.dy, batch, head, a.size.tq, a.size.e);
  const char* mask = kMasked ? a.scores.headMask(batch, head) : nullptr;
  MmaRows<kWidth> queries, gradients;
  loadMmaTile<kWidth>(keys, q, query);
  loadMmaTile<kWidth>(values, dy, query);
  commitCopies();
  awaitTiles();
  takeRows<kWidth>(queries, keys, at);
  takeRows<kWidth>(gradients, values, at);
  float lse[2], delta[2];
  ADJOINT_UNROLL
  for (int half = 0; half < 2; half++) {
    const int row = query + at.row(2 * half);
    const int64_t place = int64_t(index) * a.size.tq + row;
    lse[half] = row < a.size.tq ? a.lse[place] * kLog2E : 0;
    delta[half] = row < a.size.tq ? a.delta[place] : 0;
  }

  MmaSums<kWidth> dq;
  clear<kWidth>(dq);
  const int seen = keysOf(a.size, a.scores.isCausal, query);
  for (int key = 0; key < seen; key += kMmaRows) {
    __syncthreads();
    loadMmaTile<kWidth>(keys, k, key);
    loadMmaTile<kWidth>(values, v, key);
    commitCopies();
    awaitTiles();
    ADJOINT_ROLLED
    for (int part = 0; part < kMmaRows; part += kColumns) {
      const S *someKeys = keys + part * kMmaStride<kWidth>,
              *someValues = values + part * kMmaStride<kWidth>;
      MmaSums<kColumns> s, dp;
      multiplyTile<kWidth, kColumns>(s, queries, someKeys, at);
      multiplyTile<kWidth, kColumns>(dp, gradients, someValues, at);
      const int first = key + part;
      const bool isWhole = !kMasked && first + kColumns <= a.size.tk &&
                           (!a.scores.isCausal || first + kColumns <= query + at.warp * 16 + 1);
      scale<kColumns>(s, a.scores, mask, query, first, isWhole, at);
      ADJOINT_UNROLL
      for (int n = 0; n < kColumns / 8; n++) {
        ADJOINT_UNROLL
        for (int i = 0; i < 4; i++) differentiate(s[n][i], dp[n][i], lse[i / 2], delta[i / 2]);
      }
      addWeightedTile<kWidth, kColumns>(dq, dp, someKeys, at);
    }
  }
  const float factor[2] = {a.scores.scale, a.scores.scale};
  storeMmaSums<kWidth>(a.dq, batch, head, query, a.size.tq, a.size.d, dq, factor, at);
}

// dv = sum over queries of p dy, dk = scale times the sum over queries of ds q: the rows of a tile
// are keys. Where registers do not hold both sums, one kernel makes each.
enum class KeyGradients { both, values, keys };

template <class S, int kWidth, bool kMasked, KeyGradients which>
__global__ void __launch_bounds__(kMmaThreads, 2)
    attentionHalfKeyKernel(const BackwardOperands<S> a) {
  ADJOINT_DYNAMIC_SHARED(S, shared);
  ADJOINT_SHARED(float, lse, kMmaRows);
  ADJOINT_SHARED(float, delta, kMmaRows);
  S *const queries = shared, *const gradients = shared + kMmaRows * kMmaStride<kWidth>;
  constexpr int kColumns = kBackwardColumns<kWidth>;
  const MmaPlace at;
  constexpr bool ofValues = which != KeyGradients::keys, ofKeys = which != KeyGradients::values;
  const int tile = static_cast<int>(blockIdx.x) % a.tiles;
  const int index = static_cast<int>(blockIdx.x) / a.tiles;
  const int batch = index / a.size.heads, head = index % a.size.heads, key = tile * kMmaRows;
  const auto q = tileSource(a.q, batch, head, a.size.tq, a.size.d);
  const auto k = tileSource(a.k, batch, head, a.size.tk, a.size.d);
  const auto v = tileSource(a.v, batch, head, a.size.tk, a.size.e);
  const auto dy = tileSource(a.dy, batch, head, a.size.tq, a.size.e);
  const char* mask = kMasked ? a.scores.headMask(batch, head) : nullptr;
  MmaRows<kWidth> keys, values;
  loadMmaTile<kWidth>(queries, k, key);
  if constexpr (ofKeys) loadMmaTile<kWidth>(gradients, v, key);
  commitCopies();
  awaitTiles();
  takeRows<kWidth>(keys, queries, at);
  if constexpr (ofKeys) takeRows<kWidth>(values, gradients, at);

  MmaSums<kWidth> sums[ofValues && ofKeys ? 2 : 1];
  for (auto& sum : sums) clear<kWidth>(sum);
  for (int query = a.scores.isCausal ? key : 0; query < a.size.tq; query += kMmaRows) {
    __syncthreads();
    loadMmaTile<kWidth>(queries, q, query);
    loadMmaTile<kWidth>(gradients, dy, query);
    commitCopies();
    const int i = static_cast<int>(threadIdx.x);
    if (i < kMmaRows) {
      const int64_t place = int64_t(index) * a.size.tq + query + i;
      lse[i] = query + i < a.size.tq ? a.lse[place] * kLog2E : 0;
      delta[i] = query + i < a.size.tq ? a.delta[place] : 0;
    }
    awaitTiles();
    ADJOINT_ROLLED
    for (int part = 0; part < kMmaRows; part += kColumns) {
      const S *someQueries = queries + part * kMmaStride<kWidth>,
              *someGradients = gradients + part * kMmaStride<kWidth>;
      MmaSums<kColumns> s, dp;
      multiplyTile<kWidth, kColumns>(s, keys, someQueries, at);
      if constexpr (ofKeys) {
        multiplyTile<kWidth, kColumns>(dp, values, someGradients, at);
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
          s[n][j] = isWhole
                        ? s[n][j] * (a.scores.scale * kLog2E)
                        : a.scores.score(s[n][j], mask, first + column, key + at.row(j)) * kLog2E;
          differentiate(s[n][j], dp[n][j], lse[part + column], delta[part + column]);
        }
      }
      if constexpr (ofValues) addWeightedTile<kWidth, kColumns>(sums[0], s, someGradients, at);
      if constexpr (ofKeys) {
        addWeightedTile<kWidth, kColumns>(sums[ofValues ? 1 : 0], dp, someQueries, at);
      }
    }
  }
  if constexpr (ofValues) {
    const float factor[2] = {1, 1};
    storeMmaSums<kWidth>(a.dv, batch, head, key, a.size.tk, a.size.e, sums[0], factor, at);
  }
  if constexpr (ofKeys) {
    const float factor[2] = {a.scores.scale, a.scores.scale};
    storeMmaSums<kWidth>(a.dk, batch, head, key, a.size.tk, a.size.d, sums[ofValues ? 1 : 0],
                         factor, at);
  }
}

template <class S, int kWidth>
constexpr size_t sharedBytes() {
  return sizeof(S) * 2 * kMmaRows * kMmaStride<kWidth>;
}

constexpr int kLeastCapability = 80;

}  // namespace

template <class S>
bool attentionOnTensorCores(ForwardOperands<S> a) {
  if (computeCapability() < kLeastCapability) return false;
  return visitMma(a.size, a.scores.mask, [&](auto width, auto masked) {
    constexpr int kWidth = decltype(width)::value;
    constexpr bool kMasked = decltype(masked)::value;
    a.tiles = static_cast<int>(ceilDiv(a.size.tq, kMmaRows));
    launch(attentionGrid(a.tiles, a.size.count(), 1, 1), kMmaThreads, sharedBytes<S, kWidth>(),
           stream(), attentionHalfKernel<S, kWidth, kMasked>, a);
  });
}

template <class S>
bool attentionBackwardOnTensorCores(BackwardOperands<S> a) {
  if (computeCapability() < kLeastCapability) return false;
  return visitMma(a.size, a.scores.mask, [&](auto width, auto masked) {
    constexpr int kWidth = decltype(width)::value;
    constexpr bool kMasked = decltype(masked)::value;
    if (a.size.tq > 0) {
      a.tiles = static_cast<int>(ceilDiv(a.size.tq, kMmaRows));
      launch(attentionGrid(a.tiles, a.size.count(), 1, 1), kMmaThreads, sharedBytes<S, kWidth>(),
             stream(), attentionHalfQueryKernel<S, kWidth, kMasked>, a);
    }
    if (a.size.tk == 0) return;
    a.tiles = static_cast<int>(ceilDiv(a.size.tk, kMmaRows));
    const auto launchKeys = [&](auto kernel) {
      launch(attentionGrid(a.tiles, a.size.count(), 1, 1), kMmaThreads, sharedBytes<S, kWidth>(),
             stream(), kernel, a);
    };
    if constexpr (kWidth > 64) {
      launchKeys(attentionHalfKeyKernel<S, kWidth, kMasked, KeyGradients::values>);
      launchKeys(attentionHalfKeyKernel<S, kWidth, kMasked, KeyGradients::keys>);
    } else {
      launchKeys(attentionHalfKeyKernel<S, kWidth, kMasked, KeyGradients::both>);
    }
  });
}

template bool attentionOnTensorCores(ForwardOperands<BFloat16>);
template bool attentionOnTensorCores(ForwardOperands<Float16>);
template bool attentionBackwardOnTensorCores(BackwardOperands<BFloat16>);
template bool attentionBackwardOnTensorCores(BackwardOperands<Float16>);

}  // namespace adjoint::cuda
