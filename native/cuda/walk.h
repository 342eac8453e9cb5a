// From the number of an element to its place in strided memory.
#pragma once
#include <cstdint>

#include "cuda/launch.h"
#include "shared/iterate.h"

namespace adjoint::cuda {

// Kernels number elements with 31 bits; larger work is split (forEachPiece).
constexpr int64_t kMaxIndex = 0x7fffffff;

// Division of n < 2^31 by a fixed divisor d without a division (Granlund & Montgomery 1994):
//   n / d = (n + hi(n m)) >> s,  s = ceil(log2 d),  m = 2^32 (2^s - d) / d + 1
struct Divider {
  uint32_t divisor = 1, multiplier = 1, shift = 0;

  Divider() = default;
  explicit Divider(uint32_t d) : divisor(d) {
    while (shift < 32 && (uint64_t(1) << shift) < d) shift++;
    const uint64_t power = uint64_t(1) << shift;
    multiplier = static_cast<uint32_t>(((power - d) << 32) / d + 1);
  }
  ADJOINT_HD uint32_t quotient(uint32_t n) const {
    const auto high = static_cast<uint32_t>((uint64_t(n) * multiplier) >> 32);
    return (n + high) >> shift;
  }
};

// Some axes of a plan, as a kernel takes them.
template <int N>
struct Walk {
  int ndim = 0;
  Divider size[kMaxDims];
  int64_t stride[N][kMaxDims] = {};

  void addAxis(const Plan<N>& plan, int axis) {
    // An empty axis is never walked along.
    if (plan.size[axis] > 0) size[ndim] = Divider(static_cast<uint32_t>(plan.size[axis]));
    for (int k = 0; k < N; k++) stride[k][ndim] = plan.stride[k][axis];
    ndim++;
  }
  ADJOINT_DEVICE void offsets(uint32_t index, int64_t (&offset)[N]) const {
    for (int k = 0; k < N; k++) offset[k] = 0;
    for (int axis = ndim - 1; axis >= 0; axis--) {
      const uint32_t next = axis > 0 ? size[axis].quotient(index) : 0;
      const int64_t i = index - next * size[axis].divisor;
      for (int k = 0; k < N; k++) offset[k] += i * stride[k][axis];
      index = next;
    }
  }
};

template <int N>
Walk<N> makeWalk(const Plan<N>& plan) {
  Walk<N> walk;
  for (int axis = 0; axis < plan.ndim; axis++) walk.addAxis(plan, axis);
  return walk;
}

// Calls f(piece) with plans of at most `limit` elements that together make up `plan`: the longest
// axis is halved until they are small enough. `bytes` are the operands' element sizes.
template <int N, class F>
void forEachPiece(Plan<N> plan, const size_t (&bytes)[N], const F& f, int64_t limit = kMaxIndex) {
  if (plan.numel <= limit) return f(plan);
  int longest = 0;
  for (int axis = 1; axis < plan.ndim; axis++) {
    if (plan.size[axis] > plan.size[longest]) longest = axis;
  }
  const int64_t whole = plan.size[longest], others = plan.numel / whole;
  // Cut at a multiple of 64 where the axis allows, so that the second half stays aligned.
  const int64_t first = whole >= 128 ? whole / 128 * 64 : whole / 2;
  plan.size[longest] = first;
  plan.numel = others * first;
  forEachPiece(plan, bytes, f, limit);
  for (int k = 0; k < N; k++) {
    const int64_t skipped = first * plan.stride[k][longest] * static_cast<int64_t>(bytes[k]);
    if (plan.data[k]) plan.data[k] = static_cast<char*>(plan.data[k]) + skipped;
  }
  plan.size[longest] = whole - first;
  plan.numel = others * (whole - first);
  forEachPiece(plan, bytes, f, limit);
}

}  // namespace adjoint::cuda
