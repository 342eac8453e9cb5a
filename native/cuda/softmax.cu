// softmax, logSoftmax and their gradients, along any axis.
#include "contract.h"
#include "cuda/elements.h"
#include "cuda/group.h"
#include "cuda/softmax_rows.h"
#include "cuda/walk.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

// N operands that have the same rows along one axis.
template <int N>
struct Rows {
  Walk<N> walk;
  void* data[N];
  DType dtype[N];
  int64_t stride[N];  // along the axis
  int64_t count, length;
  GroupShape group;
};

// max and sum(exp(x - max)) over some of a row (Milakov & Gimelshein 2018, "Online normalizer
// calculation for softmax").
template <class T>
struct Normalizer {
  T max, sum;  // sum 0: of no elements
};

template <class T>
ADJOINT_DEVICE Normalizer<T> shuffleXor(Normalizer<T> n, int distance) {
  return {__shfl_xor_sync(kAllLanes, n.max, distance), __shfl_xor_sync(kAllLanes, n.sum, distance)};
}

template <class T>
struct NormalizerCombiner {
  // e^(from - to), where both may be the same infinity
  static ADJOINT_DEVICE T scale(T from, T to) {
    return from == to ? T(1) : Math<T>::exp(from - to);
  }
  ADJOINT_DEVICE Normalizer<T> combine(Normalizer<T> a, Normalizer<T> b) const {
    if (a.sum == T(0)) return b;
    if (b.sum == T(0)) return a;
    const T max = maximumOf(a.max, b.max);
    return {max, a.sum * scale(a.max, max) + b.sum * scale(b.max, max)};
  }
};

template <class T>
struct SumCombiner {
  ADJOINT_DEVICE T combine(T a, T b) const { return a + b; }
};

// Calls body(offsets of the row, lane) for each row of the grid; every thread comes along, with
// `active` false beyond the last row.
template <int N, class Body>
ADJOINT_DEVICE void forEachRow(const Rows<N>& rows, const Body& body) {
  const GroupPlace place = groupPlace(rows.group.lanes, rows.group.alongMemory);
  const int perBlock = kGroupThreads / rows.group.lanes;
  for (int64_t first = int64_t(blockIdx.x) * perBlock; first < rows.count;
       first += int64_t(gridDim.x) * perBlock) {
    const int64_t row = first + place.row;
    const bool active = row < rows.count;
    int64_t base[N] = {};
    if (active) rows.walk.offsets(static_cast<uint32_t>(row), base);
    body(base, active ? int64_t(place.lane) : rows.length);
  }
}

// y = exp(x - max) / sum, or x - max - log(sum)
template <class T, bool logarithm>
__global__ void __launch_bounds__(kGroupThreads) softmaxKernel(const Rows<2> rows) {
  ADJOINT_SHARED(Normalizer<T>, shared, kGroupThreads);
  const NormalizerCombiner<T> combiner;
  const int64_t step = rows.group.lanes;
  forEachRow(rows, [&](const int64_t(&base)[2], int64_t lane) {
    auto x = [&](int64_t i) {
      return loadAs<T>(rows.data[1], rows.dtype[1], base[1] + i * rows.stride[1]);
    };
    Normalizer<T> n{T(0), T(0)};
    for (int64_t i = lane; i < rows.length; i += step) n = combiner.combine(n, {x(i), T(1)});
    n = combineGroup(combiner, n, shared, rows.group.lanes, rows.group.alongMemory);
    // A maximum that is infinite makes the whole row NaN, as the formula does.
    const T sum = n.sum + (n.max - n.max);
    const T logSum = logarithm ? Math<T>::log(sum) : T(0);
    for (int64_t i = lane; i < rows.length; i += step) {
      const T centred = x(i) - n.max;
      storeAs(rows.data[0], rows.dtype[0], base[0] + i * rows.stride[0],
              logarithm ? centred - logSum : Math<T>::exp(centred) / sum);
    }
  });
}

// dx = y (dy - sum(dy y)), or dy - exp(y) sum(dy) for the logarithm
template <class T, bool logarithm>
__global__ void __launch_bounds__(kGroupThreads) softmaxBackwardKernel(const Rows<3> rows) {
  ADJOINT_SHARED(T, shared, kGroupThreads);
  const SumCombiner<T> combiner;
  const int64_t step = rows.group.lanes;
  forEachRow(rows, [&](const int64_t(&base)[3], int64_t lane) {
    auto load = [&](int operand, int64_t i) {
      return loadAs<T>(rows.data[operand], rows.dtype[operand],
                       base[operand] + i * rows.stride[operand]);
    };
    T sum = T(0);
    for (int64_t i = lane; i < rows.length; i += step) {
      sum += logarithm ? load(1, i) : load(1, i) * load(2, i);
    }
    sum = combineGroup(combiner, sum, shared, rows.group.lanes, rows.group.alongMemory);
    for (int64_t i = lane; i < rows.length; i += step) {
      const T dy = load(1, i), y = load(2, i);
      storeAs(rows.data[0], rows.dtype[0], base[0] + i * rows.stride[0],
              logarithm ? dy - Math<T>::exp(y) * sum : y * (dy - sum));
    }
  });
}

template <int N>
Rows<N> makeRows(const View* const (&views)[N], int axis) {
  Rows<N> rows{};
  View first[N];
  const View* reduced[N];
  for (int k = 0; k < N; k++) {
    first[k] = *views[k];
    reduced[k] = &first[k];
    rows.data[k] = views[k]->data;
    rows.dtype[k] = views[k]->dtype;
    if (views[k]->ndim == 0) continue;  // one row of one element
    rows.stride[k] = views[k]->stride[axis];
    first[k].size[axis] = 1;
  }
  rows.length = views[0]->ndim ? views[0]->size[axis] : 1;
  const Plan<N> plan = makePlan(reduced);
  rows.count = plan.numel;
  if (rows.count > kMaxIndex) fail(ErrorKind::shape, "softmax: expected fewer than 2^31 rows");
  rows.walk = makeWalk(plan);
  const int64_t along = rows.stride[1] < 0 ? -rows.stride[1] : rows.stride[1];
  rows.group =
      groupShape(rows.length, along <= 1 || along < detail::magnitude(plan.innerStride(1)));
  return rows;
}

// float32 for float32 and the half types
template <int N, class F>
void launchRows(const View* const (&views)[N], int axis, const F& kernelFor) {
  const Rows<N> rows = makeRows(views, axis);
  if (rows.count == 0 || rows.length == 0) return;
  visitCompute(computeType(views[0]->dtype), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_floating_point<T>::value) {
      launch(gridFor(rows.count, rows.group.rowsPerBlock()), kGroupThreads, 0, stream(),
             kernelFor(tag), rows);
    } else {
      fail(ErrorKind::dtype, "softmax: expected a floating dtype, got %s",
           dtypeName(views[0]->dtype));
    }
  });
}

}  // namespace
}  // namespace cuda

void backend::softmax(const View& y, const View& x, int axis, bool logarithm) {
  if (cuda::softmaxRows(y, x, axis, logarithm)) return;
  cuda::launchRows<2>({&y, &x}, axis, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return logarithm ? cuda::softmaxKernel<T, true> : cuda::softmaxKernel<T, false>;
  });
}

void backend::softmaxBackward(const View& dx, const View& dy, const View& y, int axis,
                              bool logarithm) {
  if (cuda::softmaxRowsBackward(dx, dy, y, axis, logarithm)) return;
  cuda::launchRows<3>({&dx, &dy, &y}, axis, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return logarithm ? cuda::softmaxBackwardKernel<T, true> : cuda::softmaxBackwardKernel<T, false>;
  });
}

}  // namespace adjoint
