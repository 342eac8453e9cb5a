// Rows and groups: a kernel that combines the elements of many rows (a reduction, a softmax) gives
// each row to a group of lanes within a block. Rows whose elements are neighbours in memory get
// lanes that are neighbours; otherwise neighbouring threads take neighbouring rows, so that both
// read whole lines of memory.
#pragma once
#include <cstdint>

#include "cuda/launch.h"
#include "shared/iterate.h"

namespace adjoint::cuda {

constexpr int kGroupThreads = 256;
constexpr int kGroupWarps = kGroupThreads / kWarp;

struct GroupShape {
  int lanes;         // that share a row: a power of two
  bool alongMemory;  // a row's lanes are neighbouring threads
  int rowsPerBlock() const { return kGroupThreads / lanes; }
};

// `length` elements a row. Depends on the shape alone, so results do not depend on the device.
inline GroupShape groupShape(int64_t length, bool alongMemory) {
  int lanes = 1;
  const int most = alongMemory ? kGroupThreads : kGroupWarps;
  // About four elements a lane before another lane is worth its share of the exchange.
  while (lanes < most && int64_t(lanes) * 4 < length) lanes *= 2;
  if (alongMemory && lanes < 8) lanes = 8;
  return {lanes, alongMemory};
}

// Where a thread stands: its row within the block and its lane within the row.
struct GroupPlace {
  int row, lane;
};
ADJOINT_DEVICE GroupPlace groupPlace(int lanes, bool alongMemory) {
  const int thread = static_cast<int>(threadIdx.x), rows = kGroupThreads / lanes;
  if (alongMemory) return {thread / lanes, thread % lanes};
  return {thread % rows, thread / rows};
}

// Values that are more than a number bring a shuffle of their own.
template <class T>
ADJOINT_DEVICE T shuffleXor(T value, int distance) {
  return __shfl_xor_sync(kAllLanes, value, distance);
}

// The combination of what the lanes of each row bring, known to all of them. Every thread of the
// block takes part. The order of the combinations is fixed. `shared` has kGroupThreads elements.
template <class Combiner, class T>
ADJOINT_DEVICE T combineGroup(const Combiner& combiner, T value, T* shared, int lanes,
                              bool alongMemory) {
  const int thread = static_cast<int>(threadIdx.x);
  if (alongMemory) {
    const int inWarp = lanes < kWarp ? lanes : kWarp;
    for (int d = inWarp / 2; d > 0; d /= 2) {
      // The lower lane comes first on both sides, so both get the same bits.
      const T other = shuffleXor(value, d);
      value = thread & d ? combiner.combine(other, value) : combiner.combine(value, other);
    }
    if (lanes <= kWarp) return value;
    __syncthreads();  // the last call's reads of `shared`
    if (thread % kWarp == 0) shared[thread / kWarp] = value;
    __syncthreads();
    const int warps = lanes / kWarp, first = thread / lanes * warps;
    value = shared[first];
    for (int w = 1; w < warps; w++) value = combiner.combine(value, shared[first + w]);
    return value;
  }
  const int rows = kGroupThreads / lanes;
  __syncthreads();
  shared[thread] = value;
  __syncthreads();
  value = shared[thread % rows];
  for (int l = 1; l < lanes; l++) value = combiner.combine(value, shared[l * rows + thread % rows]);
  return value;
}

}  // namespace adjoint::cuda
