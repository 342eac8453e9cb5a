#include "cuda/keyed_sum.h"
#include "cuda/wide.h"
#include "shared/functors.h"

namespace adjoint::cuda {
namespace {

constexpr int kThreads = 256;
constexpr uint32_t kNone = 0xffffffffu;  // no key
constexpr int kTile = 32;                // rows that a thread adds up one after another

__global__ void __launch_bounds__(kThreads)
    indexKeysKernel(uint32_t* keys, uint32_t* positions, uint32_t n, uint32_t limit,
                    const int64_t* index, const Walk<1> walk, const Divider length, int64_t skipped,
                    const IndexGuard guard) {
  for (uint32_t e = blockIdx.x * blockDim.x + threadIdx.x; e < n; e += gridDim.x * blockDim.x) {
    int64_t at[1];
    walk.offsets(e, at);
    const int64_t i = index[at[0]];
    const bool counts = guard.admits(i, e) && i != skipped;
    const uint32_t line = length.quotient(e);
    keys[e] = counts ? line * static_cast<uint32_t>(guard.size) + static_cast<uint32_t>(i) : limit;
    positions[e] = e;
  }
}

// One pass over sorted keys. The first and the last run of a tile may go on in its neighbours, so
// their sums become rows of the next pass, two for each tile; those between are whole.
struct Pass {
  const uint32_t *keys, *positions;
  const void* sums;  // of the pass before, dense
  uint32_t* nextKeys;
  void* nextSums;
  int64_t n, tiles, lanes;
  uint32_t limit;
};
struct Rows {
  Walk<1> target, source;
  Walk<2> lanes;
  void* y;
  const void* x;
  bool overwrites;
};

template <class Access, int V, bool isFirstPass>
__global__ void __launch_bounds__(kThreads)
    keyedSumKernel(const Access access, const Pass p, const Rows rows) {
  using T = typename Access::Compute;
  constexpr int kBatch = std::is_integral<T>::value ? 1 : 4;  // rows that are read at a time
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t task = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; task < p.tiles * p.lanes;
       task += threads) {
    const int64_t tile = task / p.lanes, lane = task - tile * p.lanes;
    int64_t along[2];
    rows.lanes.offsets(static_cast<uint32_t>(lane), along);
    const int64_t begin = tile * kTile, end = begin + kTile < p.n ? begin + kTile : p.n;
    uint32_t current = kNone;
    bool isFirstRun = true;
    T sum[V] = {};

    auto toNext = [&](int64_t row) {
      Wide<T, V> wide;
      for (int j = 0; j < V; j++) wide.value[j] = sum[j];
      static_cast<Wide<T, V>*>(p.nextSums)[row * p.lanes + lane] = wide;
      if (lane == 0) p.nextKeys[row] = current;
    };
    auto toTarget = [&] {
      int64_t at[1];
      rows.target.offsets(current, at);
      at[0] += along[0];
      T y[V];
      if (!rows.overwrites) {
        access.load(rows.y, at[0], y);
        for (int j = 0; j < V; j++) sum[j] = plus(y[j], sum[j]);
      }
      access.store(rows.y, at[0], sum);
    };

    for (int64_t e = begin; e < end; e += kBatch) {
      uint32_t key[kBatch];
      T x[kBatch][V];
      ADJOINT_UNROLL
      for (int b = 0; b < kBatch; b++) key[b] = e + b < end ? p.keys[e + b] : kNone;
      ADJOINT_UNROLL
      for (int b = 0; b < kBatch; b++) {
        if (key[b] >= p.limit) continue;
        if constexpr (isFirstPass) {
          int64_t at[1];
          rows.source.offsets(p.positions[e + b], at);
          access.load(rows.x, at[0] + along[1], x[b]);
        } else {
          const auto wide = static_cast<const Wide<T, V>*>(p.sums)[(e + b) * p.lanes + lane];
          for (int j = 0; j < V; j++) x[b][j] = wide.value[j];
        }
      }
      ADJOINT_UNROLL
      for (int b = 0; b < kBatch; b++) {
        if (key[b] >= p.limit) continue;
        const bool goesOn = key[b] == current;
        if (!goesOn && current != kNone) {
          if (isFirstRun && p.nextKeys) {
            toNext(2 * tile);
          } else {
            toTarget();
          }
          isFirstRun = false;
        }
        for (int j = 0; j < V; j++) sum[j] = goesOn ? plus(sum[j], x[b][j]) : x[b][j];
        current = key[b];
      }
    }
    if (!p.nextKeys) {
      if (current != kNone) toTarget();
      continue;
    }
    if (current != kNone) toNext(2 * tile + !isFirstRun);
    if (lane == 0 && isFirstRun) {
      p.nextKeys[2 * tile + 1] = kNone;
      if (current == kNone) p.nextKeys[2 * tile] = kNone;
    }
  }
}

template <bool isFirstPass, class Access, class Width>
void runPasses(const Access& access, Width width, Pass pass, const Rows& rows) {
  using T = typename Access::Compute;
  constexpr int v = Width::value;
  pass.tiles = ceilDiv(pass.n, kTile);
  const auto run = [&] {
    launch(gridFor(pass.tiles * pass.lanes, kThreads), kThreads, 0, stream(),
           keyedSumKernel<Access, v, isFirstPass>, access, pass, rows);
  };
  if (pass.tiles == 1) return run();
  const auto next = static_cast<size_t>(2 * pass.tiles);
  const Workspace keys(next * sizeof(uint32_t));
  const Workspace sums(next * static_cast<size_t>(pass.lanes) * sizeof(Wide<T, v>));
  pass.nextKeys = static_cast<uint32_t*>(keys.data());
  pass.nextSums = sums.data();
  run();
  pass.keys = pass.nextKeys;
  pass.sums = pass.nextSums;
  pass.n = 2 * pass.tiles;
  pass.nextKeys = nullptr;
  runPasses<false>(access, width, pass, rows);
}

uint32_t checkedLimit(int64_t limit) {
  if (limit >= int64_t(kNone)) {
    fail(ErrorKind::shape, "kernel: expected fewer than 2^32 - 1 places to add to, got %lld",
         static_cast<long long>(limit));
  }
  return static_cast<uint32_t>(limit);
}

}  // namespace

Keys::Keys(int64_t n, int64_t limit)
    : n_(n),
      apart_(ceilDiv(n, kWarp) * kWarp),
      limit_(checkedLimit(limit)),
      workspace_(static_cast<size_t>(apart_) * 2 * sizeof(uint32_t)),
      unsorted_(static_cast<uint32_t*>(workspace_.data())) {}

void Keys::fillIndices(const IndexGuard& guard, const int64_t* index, const Walk<1>& walk,
                       int64_t length, int64_t skipped) const {
  launch(gridFor(n_, kThreads), kThreads, 0, stream(), indexKeysKernel, keys(), positions(),
         static_cast<uint32_t>(n_), limit_, index, walk, Divider(static_cast<uint32_t>(length)),
         skipped, guard);
}

void Keys::add(const KeyedSum& sum) const {
  const Workspace workspace(static_cast<size_t>(apart_) * 2 * sizeof(uint32_t));
  auto* const sorted = static_cast<uint32_t*>(workspace.data());
  int bits = 1;
  while (bits < 32 && limit_ >> bits) bits++;
  sortPairs({keys(), positions(), sorted, sorted + apart_, n_, bits}, stream());
  const size_t bytes = itemSize(sum.dtype);
  forEachPiece(sum.row, {bytes, bytes}, [&](const Plan<2>& piece) {
    // Rows start at multiples of a stride, so they may move in wide accesses if strides do.
    int64_t apart[2 * kMaxDims] = {};
    for (int axis = 0; axis < kMaxDims; axis++) {
      if (axis < sum.target.ndim) apart[2 * axis] = sum.target.stride[0][axis];
      if (axis < sum.source.ndim) apart[2 * axis + 1] = sum.source.stride[0][axis];
    }
    const int fits = widthOf(piece, {0, 1}, bytes, apart);
    visitStored(sum.dtype, [&](auto access) {
      constexpr int widest = decltype(access)::widest;
      const auto run = [&](auto width) {
        const Plan<2> lanes = byWidth(piece, width.value);
        const Rows rows{sum.target,    sum.source,    makeWalk(lanes),
                        lanes.data[0], lanes.data[1], sum.overwrites};
        const Pass pass{sorted, sorted + apart_, nullptr, nullptr, nullptr, n_,
                        0,      lanes.numel,     limit_};
        runPasses<true>(access, width, pass, rows);
      };
      if (widest > 1 && fits == widest) return run(std::integral_constant<int, widest>());
      run(std::integral_constant<int, 1>());
    });
  });
}

}  // namespace adjoint::cuda
