// The seam to sorting by CUB's radix sort (Merrill & Grimshaw 2011), which is stable.
#include <cub/device/device_radix_sort.cuh>

#include "cuda/sort.h"
#include "cuda/workspace.h"

namespace adjoint::cuda {

void sortPairs(const SortPairs& s, cudaStream_t stream) {
  const auto sort = [&](void* scratch, size_t& bytes) {
    ADJOINT_CUDA(cub::DeviceRadixSort::SortPairs(scratch, bytes, s.keys, s.sortedKeys, s.values,
                                                 s.sortedValues, static_cast<int32_t>(s.n), 0,
                                                 s.bits, stream));
  };
  size_t bytes = 0;
  sort(nullptr, bytes);
  const Workspace scratch(bytes > 0 ? bytes : 1);
  sort(scratch.data(), bytes);
}

}  // namespace adjoint::cuda
