// How a kernel walks over several views at once. A plan has the shape of views[0]; the others are
// broadcast to it, right-aligned, by stride 0. Axes of size 1 are dropped, the rest are ordered so
// that memory is walked forwards, and neighbours that form one longer axis in every view are
// merged: contiguous operands end as one axis.
#pragma once
#include <cstdint>

#include "shared/error.h"
#include "shared/host_device.h"
#include "shared/view.h"

namespace adjoint {

// rowMajor keeps the order of the axes, where the number of an element matters (random numbers);
// byStride puts the axis with the smallest strides last.
enum class AxisOrder { rowMajor, byStride };

template <int N>
struct Plan {
  int ndim = 0;  // 0: one element, or none if numel == 0
  int64_t numel = 1;
  int64_t size[kMaxDims] = {};       // outermost first
  int64_t stride[N][kMaxDims] = {};  // in elements
  void* data[N] = {};

  int64_t innerSize() const { return ndim ? size[ndim - 1] : 1; }
  int64_t innerStride(int operand) const { return ndim ? stride[operand][ndim - 1] : 1; }
  // Whether an operand is dense in the order in which the plan walks.
  bool isDense(int operand) const {
    int64_t expected = 1;
    for (int i = ndim - 1; i >= 0; i--) {
      if (stride[operand][i] != expected) return false;
      expected *= size[i];
    }
    return true;
  }
  // The offset, in elements, of element `index` in the order of the plan.
  ADJOINT_HD int64_t offset(int operand, int64_t index) const {
    int64_t sum = 0;
    for (int i = ndim - 1; i > 0; i--) {
      const int64_t quotient = index / size[i];
      sum += (index - quotient * size[i]) * stride[operand][i];
      index = quotient;
    }
    return ndim ? sum + index * stride[operand][0] : 0;
  }
};

namespace detail {

// Right-aligned, every size equal or 1. A shape that slipped through the checks above must not
// become a read out of bounds.
inline bool broadcastsTo(const View& shape, const View& view) {
  for (int axis = view.ndim - 1, target = shape.ndim - 1; axis >= 0; axis--, target--) {
    if (view.size[axis] != 1 && (target < 0 || view.size[axis] != shape.size[target])) return false;
  }
  return true;
}

inline int64_t magnitude(int64_t x) {
  return x < 0 ? -x : x;
}

// Whether axis `a` should stand outside axis `b`: the first view that tells them apart decides.
// Stride 0 says nothing.
template <int N>
bool standsOutside(const Plan<N>& p, int a, int b) {
  for (int k = 0; k < N; k++) {
    const int64_t sa = magnitude(p.stride[k][a]), sb = magnitude(p.stride[k][b]);
    if (sa == 0 || sb == 0 || sa == sb) continue;
    return sa > sb;
  }
  return true;
}

template <int N>
void swapAxes(Plan<N>& p, int a, int b) {
  const int64_t size = p.size[a];
  p.size[a] = p.size[b];
  p.size[b] = size;
  for (int k = 0; k < N; k++) {
    const int64_t stride = p.stride[k][a];
    p.stride[k][a] = p.stride[k][b];
    p.stride[k][b] = stride;
  }
}

// Insertion sort: at most eight axes, mostly in order already.
template <int N>
void orderAxes(Plan<N>& p) {
  for (int i = 1; i < p.ndim; i++) {
    for (int j = i; j > 0 && !standsOutside(p, j - 1, j); j--) swapAxes(p, j - 1, j);
  }
}

template <int N>
void mergeAxes(Plan<N>& p) {
  int last = 0;  // the axis that the next one may be merged into
  for (int i = 1; i < p.ndim; i++) {
    bool merges = true;
    for (int k = 0; k < N; k++) {
      merges = merges && p.stride[k][last] == p.stride[k][i] * p.size[i];
    }
    if (!merges) last++;
    p.size[last] = merges ? p.size[last] * p.size[i] : p.size[i];
    for (int k = 0; k < N; k++) p.stride[k][last] = p.stride[k][i];
  }
  if (p.ndim > 0) p.ndim = last + 1;
}

}  // namespace detail

template <int N>
Plan<N> makePlan(const View* const (&views)[N], AxisOrder order = AxisOrder::byStride) {
  Plan<N> p;
  const View& shape = *views[0];
  for (int k = 0; k < N; k++) {
    p.data[k] = views[k]->data;
    if (!detail::broadcastsTo(shape, *views[k])) {
      fail(ErrorKind::shape, "kernel: expected operands that broadcast to the first one's shape");
    }
  }
  for (int axis = 0; axis < shape.ndim; axis++) {
    const int64_t size = shape.size[axis];
    p.numel *= size;
    if (size == 1) continue;
    p.size[p.ndim] = size;
    for (int k = 0; k < N; k++) {
      const int own = axis - (shape.ndim - views[k]->ndim);
      const bool present = own >= 0 && views[k]->size[own] != 1;
      p.stride[k][p.ndim] = present ? views[k]->stride[own] : 0;
    }
    p.ndim++;
  }
  if (order == AxisOrder::byStride) detail::orderAxes(p);
  detail::mergeAxes(p);
  return p;
}

}  // namespace adjoint
