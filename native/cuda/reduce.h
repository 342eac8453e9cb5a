// Reductions of all kinds: what is accumulated, and how accumulators combine, is the Reducer's.
//   Accumulator identity(), load(x, index), combine(a, b), finish(accumulator, count)
// Each lane of a row adds up a bounded number of elements in four chains, then the lanes combine
// as a tree. Long rows are cut into chunks, whose results are rows of a second pass, and so on: so
// sums are pairwise but for short runs, and their order depends on the shape alone.
#pragma once
#include <cstdint>
#include <optional>

#include "contract.h"
#include "cuda/elements.h"
#include "cuda/group.h"
#include "cuda/vectors.h"
#include "cuda/walk.h"
#include "cuda/workspace.h"

namespace adjoint::cuda {

// Rows of a view: `rows` walks over the rows of operands 0 (x) and 1 (y), `row` along one.
struct ViewRows {
  Walk<2> rows, row;
  const void* x;
  DType dtype;
};

struct ReduceShape {
  int64_t rowCount, length;
  int64_t chunk;   // elements of a row that one block row takes
  int64_t chunks;  // of a row
  int64_t count;   // elements that were reduced in all, for the mean
  GroupShape group;
};

// The result goes to `partial` [rowCount, chunks] where there are several chunks, else to y.
struct ReduceTarget {
  void* partial;
  void* y;
  DType dtype;
  Walk<2> rows;
};

template <class R, bool fromView>
ADJOINT_DEVICE typename R::Accumulator loadElement(const R& reducer, const ViewRows& view,
                                                   const void* partials, const ReduceShape& s,
                                                   int64_t row, int64_t base, int64_t i) {
  if constexpr (fromView) {
    int64_t offset[2];
    view.row.offsets(static_cast<uint32_t>(i), offset);
    return reducer.load(loadAs<typename R::Element>(view.x, view.dtype, base + offset[0]), i);
  } else {
    return static_cast<const typename R::Accumulator*>(partials)[row * s.length + i];
  }
}

template <class R>
ADJOINT_DEVICE void storeTotal(const R& reducer, const ReduceShape& s, const ReduceTarget& target,
                               int64_t row, int64_t chunk, typename R::Accumulator total) {
  if (target.partial) {
    static_cast<typename R::Accumulator*>(target.partial)[row * s.chunks + chunk] = total;
    return;
  }
  int64_t offset[2];
  target.rows.offsets(static_cast<uint32_t>(row), offset);
  storeAs(target.y, target.dtype, offset[1], reducer.finish(total, s.count));
}

// The walk that both kernels share: `sum(row, begin, end, lane)` gives a lane's part of elements
// begin … end of a row, and the lanes' parts are combined and stored.
template <class R, class Sum>
ADJOINT_DEVICE void reduceChunks(const R& reducer, const ReduceShape& s, bool alongMemory,
                                 typename R::Accumulator* shared, const ReduceTarget& target,
                                 const Sum& sum) {
  const GroupPlace place = groupPlace(s.group.lanes, alongMemory);
  const int rowsPerBlock = kGroupThreads / s.group.lanes;
  const int64_t tasks = s.rowCount * s.chunks;
  for (int64_t first = int64_t(blockIdx.x) * rowsPerBlock; first < tasks;
       first += int64_t(gridDim.x) * rowsPerBlock) {
    const int64_t task = first + place.row;
    // Neighbouring tasks are neighbouring rows.
    const int64_t chunk = task / s.rowCount, row = task - chunk * s.rowCount;
    typename R::Accumulator total = R::identity();
    if (task < tasks) {
      const int64_t begin = chunk * s.chunk;
      const int64_t end = begin + s.chunk < s.length ? begin + s.chunk : s.length;
      total = sum(row, begin, end, place.lane);
    }
    total = combineGroup(reducer, total, shared, s.group.lanes, alongMemory);
    if (task < tasks && place.lane == 0) storeTotal(reducer, s, target, row, chunk, total);
  }
}

template <class R, bool fromView>
__global__ void __launch_bounds__(kGroupThreads, ADJOINT_ROOM_FOR(4))
    reduceKernel(const R reducer, const ReduceShape s, const ViewRows view, const void* partials,
                 const ReduceTarget target) {
  using A = typename R::Accumulator;
  ADJOINT_SHARED(A, shared, kGroupThreads);
  const auto sum = [&](int64_t row, int64_t begin, int64_t end, int lane) {
    int64_t offset[2] = {0, 0};
    if constexpr (fromView) view.rows.offsets(static_cast<uint32_t>(row), offset);
    const auto load = [&](int64_t i) {
      return loadElement<R, fromView>(reducer, view, partials, s, row, offset[0], i);
    };
    A chain[4] = {R::identity(), R::identity(), R::identity(), R::identity()};
    const int64_t step = s.group.lanes;
    int64_t i = begin + lane;
    for (; i + 3 * step < end; i += 4 * step) {
      for (int k = 0; k < 4; k++) chain[k] = reducer.combine(chain[k], load(i + k * step));
    }
    for (; i < end; i += step) chain[0] = reducer.combine(chain[0], load(i));
    return reducer.combine(reducer.combine(chain[0], chain[1]),
                           reducer.combine(chain[2], chain[3]));
  };
  reduceChunks(reducer, s, s.group.alongMemory, shared, target, sum);
}

// The same for rows of which neighbours are neighbours in memory, 16 bytes at a time.
template <class R, class S>
__global__ void __launch_bounds__(kGroupThreads)
    denseReduceKernel(const R reducer, const ReduceShape s, const ViewRows view,
                      const ReduceTarget target) {
  using A = typename R::Accumulator;
  constexpr int V = kPerAccess<S>;
  ADJOINT_SHARED(A, shared, kGroupThreads);
  const auto sum = [&](int64_t row, int64_t begin, int64_t end, int lane) {
    int64_t offset[2];
    view.rows.offsets(static_cast<uint32_t>(row), offset);
    const S* x = static_cast<const S*>(view.x) + offset[0];
    A chain[V];
    for (int j = 0; j < V; j++) chain[j] = R::identity();
    const auto add = [&](const A(&value)[V]) {
      for (int j = 0; j < V; j++) chain[j] = reducer.combine(chain[j], reducer.load(value[j], 0));
    };
    const int64_t step = int64_t(s.group.lanes) * V;
    int64_t i = begin + lane * V;
    for (; i + 3 * step < end; i += 4 * step) {
      A value[4][V];  // all loads are on their way before the first is used
      for (int k = 0; k < 4; k++) loadFrom(x + i + k * step, value[k]);
      for (int k = 0; k < 4; k++) add(value[k]);
    }
    for (; i < end; i += step) {
      A value[V];
      loadFrom(x + i, value);
      add(value);
    }
    for (int n = V / 2; n > 0; n /= 2) {
      for (int j = 0; j < n; j++) chain[j] = reducer.combine(chain[j], chain[j + n]);
    }
    return chain[0];
  };
  reduceChunks(reducer, s, true, shared, target, sum);
}

// So many elements a lane adds up one after another: many where rows alone fill a device.
inline int64_t chunkFor(int64_t rowCount, const GroupShape& group) {
  return group.lanes * (rowCount >= 256 ? int64_t(256) : int64_t(16));
}

// Rows whose elements are neighbours, which all begin and end at multiples of 16 bytes.
inline bool hasDenseRows(const ViewRows& view, int64_t length) {
  const auto bytes = static_cast<int64_t>(itemSize(view.dtype));
  if (view.row.ndim != 1 || view.row.stride[0][0] != 1) return false;
  bool isAligned = isWideAligned(view.x) && length * bytes % 16 == 0;
  for (int axis = 0; axis < view.rows.ndim; axis++) {
    isAligned = isAligned && view.rows.stride[0][axis] * bytes % 16 == 0;
  }
  return isAligned;
}

// Like groupShape, with about four accesses of 16 bytes a lane.
inline GroupShape denseGroupShape(int64_t length, int perAccess) {
  int lanes = 8;
  while (lanes < kGroupThreads && int64_t(lanes) * perAccess * 4 < length) lanes *= 2;
  return {lanes, true};
}

// Whether there are kernels for dense rows of this dtype.
template <class R>
bool takesDenseRows(DType dtype) {
  if constexpr (!R::takesDenseRows) return false;
  return isFloating(dtype) && (computeDType(dtype) == DType::float64) ==
                                  std::is_same<typename R::Element, double>::value;
}

template <class R>
void launchDenseReduce(const R& reducer, const ReduceShape& s, const ViewRows& view,
                       const ReduceTarget& target) {
  if constexpr (R::takesDenseRows) {
    visitFloats("reduce", view.dtype, [&](auto tag) {
      using S = typename decltype(tag)::type;
      if constexpr (std::is_same<ComputeOf<S>, typename R::Element>::value) {
        launch(gridFor(s.rowCount * s.chunks, s.group.rowsPerBlock()), kGroupThreads, 0, stream(),
               denseReduceKernel<R, S>, reducer, s, view, target);
      }
    });
  }
}

// One pass over rows that lie in a view or, from the second pass on, in a workspace.
template <class R, bool fromView>
void reducePass(const R& reducer, ReduceShape s, const ViewRows& view, const void* partials,
                bool alongMemory, ReduceTarget target) {
  const bool dense = fromView && takesDenseRows<R>(view.dtype) && hasDenseRows(view, s.length);
  s.group = dense ? denseGroupShape(s.length, static_cast<int>(16 / itemSize(view.dtype)))
                  : groupShape(s.length, alongMemory);
  s.chunk = chunkFor(s.rowCount, s.group);
  s.chunks = s.length > s.chunk ? ceilDiv(s.length, s.chunk) : 1;
  std::optional<Workspace> next;
  ReduceTarget inner = target;
  if (s.chunks > 1) {
    next.emplace(static_cast<size_t>(s.rowCount * s.chunks) * sizeof(typename R::Accumulator));
    inner.partial = next->data();
  }
  if (dense) {
    launchDenseReduce(reducer, s, view, inner);
  } else {
    launch(gridFor(s.rowCount * s.chunks, s.group.rowsPerBlock()), kGroupThreads, 0, stream(),
           reduceKernel<R, fromView>, reducer, s, view, partials, inner);
  }
  if (!next) return;
  s.length = s.chunks;
  reducePass<R, false>(reducer, s, view, next->data(), true, target);
}

// The reduced axes are those of size 1 in y.
template <class R>
void launchReduce(const R& reducer, const View& y, const View& x) {
  const Plan<2> plan = makePlan({&x, &y});
  ReduceShape s{};
  ViewRows view{};
  view.x = x.data;
  view.dtype = x.dtype;
  s.rowCount = s.length = 1;
  for (int axis = 0; axis < plan.ndim; axis++) {
    const bool reduced = plan.stride[1][axis] == 0;
    (reduced ? view.row : view.rows).addAxis(plan, axis);
    (reduced ? s.length : s.rowCount) *= plan.size[axis];
  }
  if (s.rowCount == 0) return;
  if (s.rowCount > kMaxIndex || s.length > kMaxIndex) {
    fail(ErrorKind::shape, "reduce: expected fewer than 2^31 rows and elements a row");
  }
  s.count = s.length;
  const bool alongMemory = plan.ndim == 0 || plan.stride[1][plan.ndim - 1] == 0;
  reducePass<R, true>(reducer, s, view, nullptr, alongMemory,
                      {nullptr, y.data, y.dtype, view.rows});
}

}  // namespace adjoint::cuda
