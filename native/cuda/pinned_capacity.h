// Pinning memory takes longer than a copy, so pinned buffers are kept: powers of two, up to so many
// bytes that nobody uses.
#pragma once
#include <cstddef>

namespace adjoint::cuda {

constexpr size_t kPinnedKept = size_t(256) << 20;

inline size_t pinnedCapacity(size_t bytes) {
  size_t capacity = size_t(4) << 10;
  while (capacity < bytes) capacity *= 2;
  return capacity;
}

}  // namespace adjoint::cuda
