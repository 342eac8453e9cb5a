// The twin of native/cuda/sort_cub.cu: sorts on the host.
#include <algorithm>
#include <numeric>
#include <vector>

#include "cuda/sort.h"
#include "emulation/emulation.h"

namespace adjoint::cuda {

void sortPairs(const SortPairs& s, cudaStream_t stream) {
  emulation::enqueueHost(stream, [s] {
    // As a radix sort does, other bits than the lowest are not looked at.
    const uint64_t mask = (uint64_t(1) << s.bits) - 1;
    std::vector<uint32_t> order(static_cast<size_t>(s.n));
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return (s.keys[a] & mask) < (s.keys[b] & mask);
    });
    for (size_t i = 0; i < order.size(); i++) {
      s.sortedKeys[i] = s.keys[order[i]];
      s.sortedValues[i] = s.values[order[i]];
    }
  });
}

}  // namespace adjoint::cuda
