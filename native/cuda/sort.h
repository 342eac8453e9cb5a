// The seam to sorting: sort_cub.cu calls CUB, native/emulation/sort_host.cpp sorts on the host.
#pragma once
#include <cstdint>

#include "cuda/launch.h"

namespace adjoint::cuda {

// n < 2^31 pairs of a key and a value. Values of equal keys keep their order.
struct SortPairs {
  const uint32_t *keys, *values;
  uint32_t *sortedKeys, *sortedValues;
  int64_t n;
  int bits;  // of a key that count: the others are 0
};

// Queues the sort.
void sortPairs(const SortPairs& s, cudaStream_t stream);

}  // namespace adjoint::cuda
