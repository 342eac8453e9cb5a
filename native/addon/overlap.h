// Whether elements of views share memory.
#pragma once
#include <cstdlib>
#include <utility>

#include "../shared/view.h"

namespace adjoint {

// Whether two elements of one view certainly share memory (an expanded axis).
inline bool selfOverlaps(const View& v) {
  if (v.numel() == 0) return false;
  for (int i = 0; i < v.ndim; i++) {
    if (v.size[i] > 1 && v.stride[i] == 0) return true;
  }
  return false;
}

inline bool sameView(const View& a, const View& b) {
  if (a.data != b.data || a.dtype != b.dtype || a.ndim != b.ndim) return false;
  for (int i = 0; i < a.ndim; i++) {
    if (a.size[i] != b.size[i]) return false;
    if (a.size[i] > 1 && a.stride[i] != b.stride[i]) return false;
  }
  return true;
}

// Whether `distance` = sum of k_i stride_i with |k_i| < size_i has a solution, for strides sorted
// from the largest and nested (each at least the span of the smaller ones): then k_i is one of the
// two quotients next to distance / stride_i.
inline bool reachable(int64_t distance, const int64_t* size, const int64_t* stride, int n) {
  if (n == 0) return distance == 0;
  int64_t floor = distance / stride[0];
  if (distance % stride[0] < 0) floor--;
  for (int64_t k : {floor, floor + 1}) {
    if (std::llabs(k) < size[0] &&
        reachable(distance - k * stride[0], size + 1, stride + 1, n - 1)) {
      return true;
    }
  }
  return false;
}

// Whether views of one storage share memory without being the same view. Exact for views of equal
// sizes and nested strides (slices of one tensor); otherwise by their extents, which may say yes
// where the truth is no.
inline bool overlapsPartly(const View& a, const View& b) {
  if (sameView(a, b) || a.numel() == 0 || b.numel() == 0) return false;
  int64_t item = static_cast<int64_t>(itemSize(a.dtype));
  auto extent = [item](const View& v, int64_t* low, int64_t* high) {
    *low = *high = static_cast<int64_t>(reinterpret_cast<intptr_t>(v.data));
    for (int i = 0; i < v.ndim; i++) {
      int64_t reach = (v.size[i] - 1) * v.stride[i] * item;
      (reach < 0 ? *low : *high) += reach;
    }
  };
  int64_t lowA, highA, lowB, highB;
  extent(a, &lowA, &highA);
  extent(b, &lowB, &highB);
  if (highA < lowB || highB < lowA) return false;
  if (a.dtype != b.dtype || a.ndim != b.ndim) return true;

  struct Axis {
    int64_t stride, size;
  } axes[kMaxDims];
  int n = 0;
  for (int i = 0; i < a.ndim; i++) {
    if (a.size[i] != b.size[i] || (a.size[i] > 1 && a.stride[i] != b.stride[i])) return true;
    if (a.size[i] > 1) axes[n++] = {std::llabs(a.stride[i]), a.size[i]};
  }
  for (int i = 1; i < n; i++) {  // by stride, the largest first
    for (int j = i; j > 0 && axes[j - 1].stride < axes[j].stride; j--) {
      std::swap(axes[j - 1], axes[j]);
    }
  }
  int64_t span = 1;
  for (int i = n - 1; i >= 0; i--) {
    if (axes[i].stride < span) return true;  // not nested
    span += (axes[i].size - 1) * axes[i].stride;
  }
  int64_t size[kMaxDims], stride[kMaxDims];
  for (int i = 0; i < n; i++) {
    size[i] = axes[i].size;
    stride[i] = axes[i].stride;
  }
  int64_t bytes = static_cast<const char*>(a.data) - static_cast<const char*>(b.data);
  return reachable(bytes / item, size, stride, n);
}

}  // namespace adjoint
