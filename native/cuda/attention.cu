// Attention blocked over the sequence (Dao et al. 2022): a block of threads takes a tile of queries
// past one tile of keys after another, with an online softmax, so that the scores are never held.
#include "cuda/attention.h"
#include "cuda/attention_tiles.h"

namespace adjoint {
namespace cuda {
namespace {

int checkedSize(const char* name, int64_t size) {
  if (size > kMaxAttentionSize) {
    fail(ErrorKind::shape, "%s: expected sizes of at most %d, got %lld", name, kMaxAttentionSize,
         static_cast<long long>(size));
  }
  return static_cast<int>(size);
}

}  // namespace

AttentionInputs::AttentionInputs(const char* name, const View& q, const View& k, const View& v,
                                 const View* mask)
    : AttentionChecks(name, q, k, v, mask) {
  sizes_ = {checkedSize(name, q.size[0]), checkedSize(name, q.size[1]),
            checkedSize(name, q.size[2]), checkedSize(name, k.size[2]),
            checkedSize(name, q.size[3]), checkedSize(name, v.size[3])};
  checkedSize(name, q.size[0] * q.size[1]);
}

namespace {

constexpr int kRowsPerThread = 8;
constexpr int kQueries = kRowsPerThread * kRowGroups;

// One step of the online softmax (Milakov & Gimelshein 2018) for rows whose maximum so far is m and
// whose sum of exponentials is l, of which a thread holds a share:
//   m' = max(m, s), p = exp(s - m'), l = exp(m - m') l + sum(p), o = exp(m - m') o
// s becomes p. A NaN passes by the maximum and makes l NaN.
template <class T, int R, int C>
ADJOINT_DEVICE void accumulate(T (&s)[R][kWide<T>], T (&m)[R], T (&l)[R], T (&o)[R][C]) {
  const T lowest = -std::numeric_limits<T>::infinity();
  ADJOINT_UNROLL
  for (int r = 0; r < R; r++) {
    T most = lowest;
    ADJOINT_UNROLL
    for (int c = 0; c < kWide<T>; c++) most = s[r][c] > most ? s[r][c] : most;
    ADJOINT_UNROLL
    for (int d = kColumnThreads / 2; d > 0; d /= 2) {
      const T other = __shfl_xor_sync(kAllLanes, most, d);
      most = other > most ? other : most;
    }
    most = m[r] > most ? m[r] : most;
    // Where all is masked so far, exp(-inf - 0) is the 0 that exp(-inf + inf) is not.
    const T shift = most == lowest ? T(0) : most;
    const T rescale = m[r] == most ? T(1) : Math<T>::exp(m[r] - shift);
    m[r] = most;
    T sum = T(0);
    ADJOINT_UNROLL
    for (int c = 0; c < kWide<T>; c++) {
      s[r][c] = Math<T>::exp(s[r][c] - shift);
      sum += s[r][c];
    }
    l[r] = rescale * l[r] + sum;
    ADJOINT_UNROLL
    for (int c = 0; c < C; c++) o[r][c] *= rescale;
  }
}

template <class S, int kTile>
__global__ void __launch_bounds__(kTileThreads, kBlocksAtOnce<S, kTile>)
    attentionKernel(const ForwardOperands<S> a, int residentStride) {
  using T = ComputeOf<S>;
  constexpr int R = kRowsPerThread, W = kWide<T>;
  ADJOINT_DYNAMIC_SHARED(T, shared);
  T* const weights = shared;
  T* const staging = weights + kQueries * kWeightStride<T>;
  T* const resident = residentStride > 0 ? staging + kStagingElements<T, R, kTile>() : nullptr;

  // The last queries come first: under a causal mask they have the most keys.
  const int tile = a.tiles - 1 - static_cast<int>(blockIdx.x) % a.tiles;
  const int index = static_cast<int>(blockIdx.x) / a.tiles;
  const int batch = index / a.size.heads, head = index % a.size.heads;
  const int query = tile * kQueries, column = static_cast<int>(blockIdx.y) * kTile;
  const auto q = tileSource(a.q, batch, head, a.size.tq, a.size.d);
  const auto k = tileSource(a.k, batch, head, a.size.tk, a.size.d);
  const auto v = tileSource(a.v, batch, head, a.size.tk, a.size.e);
  const char* mask = a.scores.headMask(batch, head);
  for (int d = 0; resident && d < a.size.d; d += kChunk<T>) {
    loadTile<kQueries, kChunk<T>>(resident + d, residentStride, q, query, d);
  }

  T m[R], l[R], o[R][kTile / kColumnThreads];
  ADJOINT_UNROLL
  for (int r = 0; r < R; r++) {
    m[r] = -std::numeric_limits<T>::infinity();
    l[r] = T(0);
    ADJOINT_UNROLL
    for (int c = 0; c < kTile / kColumnThreads; c++) o[r][c] = T(0);
  }
  const int row = query + firstRow<R>();
  const int seen = a.scores.isCausal && query + kQueries < a.size.tk ? query + kQueries : a.size.tk;
  for (int key = 0; key < seen; key += kScoreColumns<T>) {
    T s[R][W];
    multiplyRows<R>(s, staging, q, query, k, key, resident, residentStride);
    ADJOINT_UNROLL
    for (int r = 0; r < R; r++) {
      ADJOINT_UNROLL
      for (int c = 0; c < W; c++) {
        s[r][c] = a.scores.score(s[r][c], mask, row + r, key + scoreColumn(c));
      }
    }
    accumulate(s, m, l, o);
    storeWeights<T, R>(weights, s);
    addWeighted<kTile>(o, weights, staging, v, key, column);
  }

  ADJOINT_UNROLL
  for (int r = 0; r < R; r++) {
    T sum = l[r];
    ADJOINT_UNROLL
    for (int d = kColumnThreads / 2; d > 0; d /= 2) sum += __shfl_xor_sync(kAllLanes, sum, d);
    if (row + r >= a.size.tq) continue;
    const bool isEmpty = sum == T(0);
    if (scoreColumn(0) == 0 && blockIdx.y == 0) {
      a.lse[int64_t(index) * a.size.tq + row + r] =
          isEmpty ? std::numeric_limits<T>::infinity() : m[r] + Math<T>::log(sum);
    }
    const T factor = T(1) / sum;
    ADJOINT_UNROLL
    for (int c = 0; c < kTile / kColumnThreads; c++) o[r][c] = isEmpty ? T(0) : o[r][c] * factor;
    storeSum<kTile>(a.y.at(batch, head), a.y, row + r, column, a.size.e, o[r]);
  }
}

template <class S>
void launchForward(const ForwardOperands<S>& a) {
  using T = ComputeOf<S>;
  visitTile<T>(a.size.e, [&](auto width) {
    constexpr int kTile = decltype(width)::value;
    size_t elements = kQueries * kWeightStride<T> + kStagingElements<T, kRowsPerThread, kTile>();
    const int64_t stride = ceilDiv(a.size.d, kChunk<T>) * kChunk<T> + kWide<T>;
    const size_t resident = static_cast<size_t>(stride) * kQueries;
    const bool isResident = (elements + resident) * sizeof(T) <= kSharedBytes;
    if (isResident) elements += resident;
    launch(attentionGrid(a.tiles, a.size.count(), a.size.e, kTile), kTileThreads,
           elements * sizeof(T), stream(), attentionKernel<S, kTile>, a,
           isResident ? static_cast<int>(stride) : 0);
  });
}

}  // namespace

dim3 attentionGrid(int64_t tiles, int64_t heads, int64_t width, int64_t tileWidth) {
  const int64_t columns = width > tileWidth ? ceilDiv(width, tileWidth) : 1;
  if (tiles * heads > kMaxAttentionSize || columns > 65535) {
    fail(ErrorKind::shape, "attention: expected smaller operands");
  }
  return dim3(static_cast<unsigned>(tiles * heads), static_cast<unsigned>(columns));
}

}  // namespace cuda

void backend::attention(const View& y, const View& lse, const View& q, const View& k, const View& v,
                        const View* mask, double scale, bool isCausal) {
  using namespace cuda;
  const AttentionInputs in("attention", q, k, v, mask);
  in.check("y", y, q.size[2], v.size[3]);
  in.checkStatistics(lse);
  const AttentionSizes& size = in.sizes();
  if (size.count() == 0 || size.tq == 0) return;
  if (isHalf(q.dtype) && !mask && attentionByLibrary(y, lse, q, k, v, scale, isCausal)) return;
  visitFloats("attention", q.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using T = ComputeOf<S>;
    ForwardOperands<S> a{};
    a.q = headsOf<const S>(q);
    a.k = headsOf<const S>(k);
    a.v = headsOf<const S>(v);
    a.y = headsOf<S>(y);
    a.lse = lse.as<T>();
    a.size = size;
    a.scores = {AttentionMask(mask), static_cast<T>(scale), isCausal, size.tq, size.tk};
    if constexpr (sizeof(S) <= 4) {
      if (attentionOnTensorCores(a)) return;
    }
    a.tiles = static_cast<int>(ceilDiv(size.tq, kQueries));
    launchForward(a);
  });
}

}  // namespace adjoint
