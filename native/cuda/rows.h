// Dense rows, each kept in the registers of the lanes that share it, so that it is read from memory
// once.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/vectors.h"

namespace adjoint::cuda {

constexpr int kMaxWarps = 32;  // of a block

// How a row lies in registers: `count` accesses of `width` elements by each of `lanes` neighbouring
// threads (a power of two). Depends on the shape alone, so results do not depend on the device.
struct RowShape {
  int width, count, lanes;
};

// Accesses that a lane makes at most, of 16 bytes or of one element.
constexpr int kMostWide = 4, kMostNarrow = 8;

inline RowShape rowShape(int64_t length, int width) {
  const int most = width > 1 ? kMostWide : kMostNarrow;
  int lanes = 8, count = width > 1 ? 1 : 4;
  while (int64_t(lanes) * width * most < length) lanes *= 2;
  while (int64_t(lanes) * width * count < length) count *= 2;
  return {width, count, lanes};
}

// Calls f(width, count) with them as constants.
template <int kWide, class F>
void visitRowShape(const RowShape& shape, const F& f) {
  using One = std::integral_constant<int, 1>;
  using Wide = std::integral_constant<int, kWide>;
  if (shape.width == 1) {
    if (shape.count == 4) return f(One(), std::integral_constant<int, 4>());
    return f(One(), std::integral_constant<int, 8>());
  }
  if (shape.count == 1) return f(Wide(), One());
  if (shape.count == 2) return f(Wide(), std::integral_constant<int, 2>());
  return f(Wide(), std::integral_constant<int, 4>());
}

// The sums of N values over the lanes of each row, known to all of them; every thread of the block
// takes part. `shared` has N * kMaxWarps elements; the next call needs another array.
template <int N, class T>
ADJOINT_DEVICE void sumLanes(T (&value)[N], T* shared, int lanes) {
  for (int d = (lanes < kWarp ? lanes : kWarp) / 2; d > 0; d /= 2) {
    for (int n = 0; n < N; n++) value[n] += __shfl_xor_sync(kAllLanes, value[n], d);
  }
  if (lanes <= kWarp) return;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, warps = lanes / kWarp;
  if (thread % kWarp == 0) {
    for (int n = 0; n < N; n++) shared[n * kMaxWarps + warp] = value[n];
  }
  __syncthreads();
  const int first = warp & ~(warps - 1);
  for (int n = 0; n < N; n++) {
    value[n] = shared[n * kMaxWarps + first];
    for (int w = 1; w < warps; w++) value[n] += shared[n * kMaxWarps + first + w];
  }
}

// Elements (lane + k lanes) width … of a row; those beyond its end are 0.
template <int V, int K, class T, class S>
ADJOINT_DEVICE void loadRow(const S* row, T (&x)[K][V], int lane, int lanes, int length) {
  for (int k = 0; k < K; k++) {
    const int at = (lane + k * lanes) * V;
    for (int j = 0; j < V; j++) x[k][j] = T(0);
    if (at < length) loadFrom(row + at, x[k]);
  }
}

}  // namespace adjoint::cuda
