// Reading and adding at indices along one axis. A slice along the axis is an index that is expanded
// over the other axes by stride 0, so indexSelect is gather and indexAdd is scatterAdd; runs with
// one index move or add whole rows.
#include "contract.h"
#include "cpu/blocks.h"
#include "cpu/kernels/elementwise.h"
#include "shared/convert.h"
#include "shared/functors.h"
#include "shared/index_views.h"

namespace adjoint::cpu {
namespace {

int64_t checkedIndex(const char* name, int64_t i, int64_t size) {
  if (i < 0 || i >= size) {
    fail(ErrorKind::index, "%s: expected indices in [0, %lld), got %lld", name,
         static_cast<long long>(size), static_cast<long long>(i));
  }
  return i;
}

// All of them, before an in-place sum begins: an error leaves the sum as it was.
void checkIndices(const char* name, const View& index, int64_t size) {
  checkIndexType(name, index);
  const Plan<1> plan = makePlan<1>({&index});
  Cursor at(plan, 0);
  while (at.linear() < plan.numel) {
    const auto* i = static_cast<const int64_t*>(plan.data[0]) + at.offset(plan.stride[0]);
    const int64_t n = at.leftInRow();
    for (int64_t j = 0; j < n; j++) checkedIndex(name, i[j * plan.innerStride(0)], size);
    at.advance(n);
  }
}

// The size and stride of an axis; a 0-d tensor has one element along its only place.
struct Axis {
  int64_t size, stride;
  Axis(const View& v, int axis)
      : size(v.ndim ? v.size[axis] : 1), stride(v.ndim ? v.stride[axis] : 0) {}
};

void gatherAlong(const char* name, const View& y, const View& x, const View& index, int axis) {
  checkIndexedTypes(name, y, x, index);
  const View source = alongIndex(name, x, index, axis, true);
  const View target = alongIndex(name, y, index, axis, false);
  const Axis from(x, axis);
  const Plan<3> plan = makePlan<3>({&target, &source, &index});
  visitSize(y.dtype, [&](auto element) {
    using T = decltype(element);
    const int64_t sy = plan.innerStride(0), sx = plan.innerStride(1), si = plan.innerStride(2);
    parallelFor(plan.numel, kGrain, [&](int64_t begin, int64_t end) {
      Cursor at(plan, begin);
      while (at.linear() < end) {
        const int64_t n = std::min(at.leftInRow(), end - at.linear());
        T* to = static_cast<T*>(plan.data[0]) + at.offset(plan.stride[0]);
        const T* base = static_cast<const T*>(plan.data[1]) + at.offset(plan.stride[1]);
        const int64_t* i = static_cast<const int64_t*>(plan.data[2]) + at.offset(plan.stride[2]);
        if (si == 0) {
          const T* row = base + checkedIndex(name, *i, from.size) * from.stride;
          if (sy == 1 && sx == 1) {
            std::memcpy(to, row, static_cast<size_t>(n) * sizeof(T));
          } else {
            for (int64_t j = 0; j < n; j++) to[j * sy] = row[j * sx];
          }
        } else {
          for (int64_t j = 0; j < n; j++) {
            to[j * sy] = base[j * sx + checkedIndex(name, i[j * si], from.size) * from.stride];
          }
        }
        at.advance(n);
      }
    });
  });
}

// y += x for one element, in the type of computation.
template <class S>
void addTo(S& y, S x) {
  using T = std::conditional_t<
      std::is_same<S, double>::value, double,
      std::conditional_t<std::is_integral<S>::value || std::is_same<S, Boolean>::value, int64_t,
                         float>>;
  y = convert<S>(plus(convert<T>(y), convert<T>(x)));
}

// y[.., index, ..] += source along `axis`: the other axes are cut into tiles, each of which one
// thread walks along the axis in order.
void addAlong(const char* name, const View& y, const View& index, const View& source, int axis) {
  checkIndexedTypes(name, y, source, index);
  for (int64_t i = 0; i < index.ndim; i++) {
    if (index.size[i] == 0) return;
  }
  const Axis to(y, axis), indices(index, axis), from(source, axis);
  View target = alongIndex(name, y, index, axis, true);
  View values = alongIndex(name, source, index, axis, false), places = index;
  for (View* v : {&target, &values, &places}) {
    if (v->ndim) v->size[axis] = 1;
  }
  const Plan<3> plan = makePlan<3>({&target, &values, &places});
  const int64_t sy = plan.innerStride(0), ss = plan.innerStride(1), si = plan.innerStride(2);
  const auto addRow =
      elementwiseTable()
          .binary[static_cast<int>(computeType(y.dtype))][static_cast<int>(BinaryOp::add)];
  const bool wholeRows = si == 0 && sy == 1 && ss == 1 && y.dtype == storedAs(computeType(y.dtype));
  constexpr int64_t kColumns = 64;  // a row long enough for a vector loop
  const int64_t grain = std::max(kColumns, kGrain / indices.size);
  visitDType(y.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    parallelFor(plan.numel, grain, [&](int64_t begin, int64_t end) {
      Cursor at(plan, begin);
      while (at.linear() < end) {
        const int64_t n = std::min({at.leftInRow(), kBlock, end - at.linear()});
        S* base = static_cast<S*>(plan.data[0]) + at.offset(plan.stride[0]);
        const S* x = static_cast<const S*>(plan.data[1]) + at.offset(plan.stride[1]);
        const int64_t* i = static_cast<const int64_t*>(plan.data[2]) + at.offset(plan.stride[2]);
        for (int64_t r = 0; r < indices.size; r++, x += from.stride, i += indices.stride) {
          if (wholeRows) {
            S* row = base + *i * to.stride;
            addRow(row, row, x, n);
            continue;
          }
          for (int64_t j = 0; j < n; j++) {
            addTo(base[j * sy + i[j * si] * to.stride], x[j * ss]);
          }
        }
        at.advance(n);
      }
    });
  });
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void gather(const View& y, const View& x, const View& index, int axis) {
  gatherAlong("gather", y, x, index, axis);
}

void scatterAdd(const View& y, const View& index, const View& source, int axis) {
  checkIndices("scatterAdd", index, Axis(y, axis).size);
  addAlong("scatterAdd", y, index, source, axis);
}

void indexSelect(const View& y, const View& x, const View& index, int axis) {
  gatherAlong("indexSelect", y, x, expandIndex(index, y, axis), axis);
}

void indexAdd(const View& y, const View& index, const View& source, int axis) {
  checkIndices("indexAdd", index, Axis(y, axis).size);
  addAlong("indexAdd", y, expandIndex(index, source, axis), source, axis);
}

void accumulateOverlapping(const View& y, const View& x) {
  if (y.dtype != x.dtype) {
    fail(ErrorKind::dtype, "accumulateOverlapping: expected one dtype, got %s and %s",
         dtypeName(y.dtype), dtypeName(x.dtype));
  }
  const Plan<2> plan = makePlan<2>({&x, &y}, AxisOrder::rowMajor);
  const int64_t sx = plan.innerStride(0), sy = plan.innerStride(1);
  visitDType(y.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    Cursor at(plan, 0);
    while (at.linear() < plan.numel) {
      const int64_t n = at.leftInRow();
      const S* values = static_cast<const S*>(plan.data[0]) + at.offset(plan.stride[0]);
      S* target = static_cast<S*>(plan.data[1]) + at.offset(plan.stride[1]);
      for (int64_t j = 0; j < n; j++) addTo(target[j * sy], values[j * sx]);
      at.advance(n);
    }
  });
}

}  // namespace adjoint::backend
