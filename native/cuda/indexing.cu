// Reading and adding at indices along one axis. A slice along the axis is an index that is expanded
// over the other axes by stride 0, so indexSelect is gather and indexAdd is scatterAdd.
#include "contract.h"
#include "cuda/indexing.h"
#include "cuda/keyed_sum.h"
#include "cuda/wide.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// A tensor of no axes has one element along its only place.
View withAxes(View v) {
  if (v.ndim > 0) return v;
  v.ndim = 1;
  v.size[0] = 1;
  v.stride[0] = 0;
  return v;
}

// What moves is bits: S has the elements' size, and V of them go at a time. stride: along x's axis.
template <class S, int V>
__global__ void __launch_bounds__(kThreads)
    gatherKernel(const Walk<3> walk, uint32_t count, S* y, const S* x, const int64_t* index,
                 int64_t stride, const IndexGuard guard) {
  for (uint32_t e = blockIdx.x * blockDim.x + threadIdx.x; e < count; e += gridDim.x * blockDim.x) {
    int64_t at[3];
    walk.offsets(e, at);
    const int64_t i = index[at[2]];
    if (!guard.admits(i, e)) continue;
    *reinterpret_cast<Wide<S, V>*>(y + at[0]) =
        *reinterpret_cast<const Wide<S, V>*>(x + at[1] + i * stride);
  }
}

template <class S, int V = kAccessBytes / int(sizeof(S)), class F>
void visitWidth(int width, const F& f) {
  if constexpr (V == 1) {
    f(std::integral_constant<int, 1>());
  } else {
    width == V ? f(std::integral_constant<int, V>()) : visitWidth<S, V / 2>(width, f);
  }
}

// One thread adds up what belongs to a line of y along the axis, in order.
struct Lines {
  Walk<3> walk;  // to the lines of y, of the source and of the indices
  uint32_t count;
  void* y;
  const void* source;
  const int64_t* index;
  int64_t stride[3], length;  // along the axis
};
template <class Access>
__global__ void __launch_bounds__(kThreads)
    addLinesKernel(const Access access, const Lines lines, const IndexGuard guard) {
  using T = typename Access::Compute;
  for (uint32_t e = blockIdx.x * blockDim.x + threadIdx.x; e < lines.count;
       e += gridDim.x * blockDim.x) {
    int64_t at[3];
    lines.walk.offsets(e, at);
    for (int64_t r = 0; r < lines.length; r++) {
      const int64_t i = lines.index[at[2] + r * lines.stride[2]];
      if (!guard.admits(i, r)) continue;
      T x[1], y[1];
      access.load(lines.source, at[1] + r * lines.stride[1], x);
      access.load(lines.y, at[0] + i * lines.stride[0], y);
      y[0] = plus(y[0], x[0]);
      access.store(lines.y, at[0] + i * lines.stride[0], y);
    }
  }
}

// The same shape for all: y's is that of the index but along the axis.
struct Scatter {
  View y, source, index;
  int axis;
  IndexGuard guard;
};

void addByLines(const Scatter& s) {
  View y = s.y, source = s.source, index = s.index;
  for (View* v : {&y, &source, &index}) v->size[s.axis] = 1;
  const size_t bytes[3] = {itemSize(y.dtype), itemSize(y.dtype), sizeof(int64_t)};
  Lines lines{};
  lines.length = s.index.size[s.axis];
  lines.stride[0] = s.y.stride[s.axis];
  lines.stride[1] = s.source.stride[s.axis];
  lines.stride[2] = s.index.stride[s.axis];
  forEachPiece(makePlan<3>({&y, &source, &index}), bytes, [&](const Plan<3>& piece) {
    lines.walk = makeWalk(piece);
    lines.count = static_cast<uint32_t>(piece.numel);
    lines.y = piece.data[0];
    lines.source = piece.data[1];
    lines.index = static_cast<const int64_t*>(piece.data[2]);
    visitStored(y.dtype, [&](auto access) {
      launch(gridFor(lines.count, kThreads), kThreads, 0, stream(),
             addLinesKernel<decltype(access)>, access, lines, s.guard);
    });
  });
}

// The axes of a view that `picks` names, in its order.
View pickAxes(const View& v, const int* picks, int count) {
  View out = v;
  out.ndim = count;
  for (int i = 0; i < count; i++) {
    out.size[i] = v.size[picks[i]];
    out.stride[i] = v.stride[picks[i]];
  }
  return out;
}

Walk<1> rowMajorWalk(const View& v) {
  return makeWalk(makePlan<1>({&v}, AxisOrder::rowMajor));
}

void shift(View& v, int axis, int64_t by) {
  v.data = v.as<char>() + by * v.stride[axis] * static_cast<int64_t>(itemSize(v.dtype));
  v.size[axis] -= by;
}

// By sorted keys. Along axes over which the index is expanded, rows lie.
void addByKeys(const Scatter& s) {
  int keyed[kMaxDims], lanes[kMaxDims], keyedCount = 0, laneCount = 0, longest = -1;
  int64_t lines = 1;
  for (int i = 0; i < s.index.ndim; i++) {
    if (i == s.axis) continue;
    if (s.index.stride[i] == 0 || s.index.size[i] == 1) {
      lanes[laneCount++] = i;
      continue;
    }
    keyed[keyedCount++] = i;
    lines *= s.index.size[i];
    if (longest < 0 || s.index.size[i] > s.index.size[longest]) longest = i;
  }
  keyed[keyedCount++] = s.axis;
  const int64_t n = lines * s.index.size[s.axis], limit = lines * s.y.size[s.axis];
  if (n > kMaxIndex || limit > kMaxIndex) {
    if (longest < 0) {
      fail(ErrorKind::shape, "%s: expected fewer than 2^31 indices and places along an axis",
           s.guard.op);
    }
    Scatter first = s, second = s;
    const int64_t half = s.index.size[longest] / 2;
    for (View* v : {&first.y, &first.source, &first.index}) v->size[longest] = half;
    for (View* v : {&second.y, &second.source, &second.index}) shift(*v, longest, half);
    addByKeys(first);
    return addByKeys(second);
  }
  const Keys keys(n, limit);
  keys.fillIndices(s.guard, s.index.as<int64_t>(),
                   rowMajorWalk(pickAxes(s.index, keyed, keyedCount)), s.index.size[s.axis]);
  const View rowY = pickAxes(s.y, lanes, laneCount), rowX = pickAxes(s.source, lanes, laneCount);
  keys.add({s.y.dtype, rowMajorWalk(pickAxes(s.y, keyed, keyedCount)),
            rowMajorWalk(pickAxes(s.source, keyed, keyedCount)), makePlan<2>({&rowY, &rowX}),
            false});
}

// y[.., index, ..] += source along `axis`
void addAlong(const char* op, View y, View index, View source, int axis) {
  checkIndexedTypes(op, y, source, index);
  for (View* v : {&y, &index, &source}) *v = withAxes(*v);
  const int64_t places = y.size[axis];
  Scatter s{alongIndex(op, y, index, axis, true), alongIndex(op, source, index, axis, false), index,
            axis, indexGuard(op, "indices", places)};
  if (index.numel() == 0) return;
  s.y.size[axis] = places;
  s.y.stride[axis] = y.stride[axis];
  const int64_t length = index.size[axis], lines = index.numel() / length;
  const bool isHalf = isFloating(y.dtype) && itemSize(y.dtype) == 2;
  // Lines are independent. Where they are short or very many, nothing needs sorting; half types
  // would be rounded after every addition.
  const bool byLines = length <= 64 || lines >= 256 * length;
  if (byLines && (length == 1 || !isHalf)) return addByLines(s);
  addByKeys(s);
}

// Whether no two elements of a view share a place: it is enough that every axis steps over what the
// smaller ones reach.
bool isInjective(const View& v) {
  const Plan<1> plan = makePlan<1>({&v});
  int64_t reach = 0;
  for (int axis = plan.ndim - 1; axis >= 0; axis--) {
    const int64_t step = detail::magnitude(plan.stride[0][axis]);
    if (step <= reach) return false;
    reach += (plan.size[axis] - 1) * step;
  }
  return true;
}

// Keys are places in y's memory, counted from the lowest.
__global__ void __launch_bounds__(kThreads)
    placeKeysKernel(uint32_t* keys, uint32_t* positions, uint32_t n, const Walk<1> y,
                    int64_t lowest) {
  for (uint32_t e = blockIdx.x * blockDim.x + threadIdx.x; e < n; e += gridDim.x * blockDim.x) {
    int64_t at[1];
    y.offsets(e, at);
    keys[e] = static_cast<uint32_t>(at[0] - lowest);
    positions[e] = e;
  }
}

// A dense axis of one stride, for keys that are places.
Walk<1> everyPlace(int64_t n) {
  View v;
  v.ndim = 1;
  v.size[0] = n;
  v.stride[0] = 1;
  return rowMajorWalk(v);
}

void accumulatePiece(const Plan<2>& piece, DType dtype) {
  int64_t lowest = 0, highest = 0;
  Walk<1> y, x;
  for (int axis = 0; axis < piece.ndim; axis++) {
    const int64_t reach = (piece.size[axis] - 1) * piece.stride[1][axis];
    (reach < 0 ? lowest : highest) += reach;
  }
  Plan<1> one;
  one.ndim = piece.ndim;
  for (int axis = 0; axis < piece.ndim; axis++) {
    one.size[axis] = piece.size[axis];
    one.stride[0][axis] = piece.stride[0][axis];
    x.addAxis(one, axis);
    one.stride[0][axis] = piece.stride[1][axis];
    y.addAxis(one, axis);
  }
  const auto n = static_cast<uint32_t>(piece.numel);
  const Keys keys(n, highest - lowest + 1);
  launch(gridFor(n, kThreads), kThreads, 0, stream(), placeKeysKernel, keys.keys(),
         keys.positions(), n, y, lowest);
  Plan<2> row;  // of one element
  row.data[0] = static_cast<char*>(piece.data[1]) + lowest * static_cast<int64_t>(itemSize(dtype));
  row.data[1] = piece.data[0];
  keys.add({dtype, everyPlace(highest - lowest + 1), x, row, false});
}

}  // namespace

void gatherAlong(const char* op, const View& toY, const View& fromX, const View& byIndex,
                 int axis) {
  checkIndexedTypes(op, toY, fromX, byIndex);
  const View y = withAxes(toY), x = withAxes(fromX), index = withAxes(byIndex);
  const View source = alongIndex(op, x, index, axis, true);
  const View target = alongIndex(op, y, index, axis, false);
  const IndexGuard guard = indexGuard(op, "indices", x.size[axis]);
  const int64_t stride = x.stride[axis];
  const size_t size = itemSize(y.dtype), bytes[3] = {size, size, sizeof(int64_t)};
  forEachPiece(makePlan<3>({&target, &source, &index}), bytes, [&](const Plan<3>& piece) {
    if (piece.numel == 0) return;
    // One index for a row whose elements are neighbours: it moves in wide accesses.
    const bool byRows = piece.ndim > 0 && piece.stride[2][piece.ndim - 1] == 0;
    const int width = byRows ? widthOf(piece, {0, 1}, size, {stride}) : 1;
    const Plan<3> items = byWidth(piece, width);
    const auto count = static_cast<uint32_t>(items.numel);
    visitSize(y.dtype, [&](auto element) {
      using S = decltype(element);
      visitWidth<S>(width, [&](auto v) {
        launch(gridFor(count, kThreads), kThreads, 0, stream(), gatherKernel<S, v.value>,
               makeWalk(items), count, static_cast<S*>(items.data[0]),
               static_cast<const S*>(items.data[1]), static_cast<const int64_t*>(items.data[2]),
               stride, guard);
      });
    });
  });
}

void selectAlong(const char* op, const View& y, const View& x, const View& index, int axis) {
  gatherAlong(op, y, x, expandIndex(index, y, axis), axis);
}

}  // namespace cuda

namespace backend {

using namespace cuda;

void gather(const View& y, const View& x, const View& index, int axis) {
  gatherAlong("gather", y, x, index, axis);
}

void scatterAdd(const View& y, const View& index, const View& source, int axis) {
  addAlong("scatterAdd", y, index, source, axis);
}

void indexSelect(const View& y, const View& x, const View& index, int axis) {
  selectAlong("indexSelect", y, x, index, axis);
}

void indexAdd(const View& y, const View& index, const View& source, int axis) {
  addAlong("indexAdd", y, expandIndex(index, source, axis), source, axis);
}

void accumulateOverlapping(const View& y, const View& x) {
  if (y.dtype != x.dtype) {
    fail(ErrorKind::dtype, "accumulateOverlapping: expected one dtype, got %s and %s",
         dtypeName(y.dtype), dtypeName(x.dtype));
  }
  const Plan<2> plan = makePlan<2>({&x, &y}, AxisOrder::rowMajor);
  if (plan.numel == 0) return;
  if (isInjective(y)) {
    Operand a, b;
    a.view = y;
    b.view = x;
    return binary(BinaryOp::add, y, a, b, y.dtype);
  }
  const size_t bytes = itemSize(y.dtype);
  forEachPiece(plan, {bytes, bytes},
               [&](const Plan<2>& piece) { accumulatePiece(piece, y.dtype); });
}

}  // namespace backend
}  // namespace adjoint
