// What the kernels of cross entropy share: rows of logits that start anywhere, as a vocabulary of
// odd size has them, and their targets.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda/elements.h"
#include "cuda/index_guard.h"
#include "cuda/vectors.h"
#include "shared/functors.h"

namespace adjoint::cuda {

constexpr int kMostLossLanes = 512;

// e^x for x that is not much above 0, where the processor's own function has all its digits: the
// error is |x| units of the last place, and e^x is small where |x| is large.
ADJOINT_DEVICE float expSmall(float x) {
#if defined(__CUDA_ARCH__)
  return __expf(x);
#else
  return Math<float>::exp(x);
#endif
}
ADJOINT_DEVICE double expSmall(double x) {
  return Math<double>::exp(x);
}

// n neighbouring elements, cut at multiples of 16 bytes: access v holds elements v V - skew ….
template <class S>
struct UnevenRow {
  static constexpr int V = kPerAccess<S>;
  S* data;
  int n, skew;

  ADJOINT_DEVICE UnevenRow(S* data, int n)
      : data(data),
        n(n),
        skew(static_cast<int>(reinterpret_cast<uintptr_t>(data) / sizeof(S) % V)) {}
  ADJOINT_DEVICE int accesses() const { return n > 0 ? (skew + n - 1) / V + 1 : 0; }
  ADJOINT_DEVICE int first(int v) const { return v * V - skew; }
  ADJOINT_DEVICE bool isWhole(int v) const { return first(v) >= 0 && first(v) + V <= n; }
  ADJOINT_DEVICE bool has(int v, int j) const { return first(v) + j >= 0 && first(v) + j < n; }

  // As stored: a caller that converts only after its last load waits for memory once.
  using Access = Vector<typename std::remove_const<S>::type, V>;
  ADJOINT_DEVICE Access load(int v, float otherwise) const {
    if (isWhole(v)) return *reinterpret_cast<const Access*>(data + first(v));
    Access x;
    for (int j = 0; j < V; j++) {
      x.value[j] =
          has(v, j) ? data[first(v) + j] : convert<typename std::remove_const<S>::type>(otherwise);
    }
    return x;
  }
};

// logits [rows, classes]; neighbouring classes are neighbours.
template <class S>
struct LossRows {
  const S* logits;
  int64_t rowStride, rows;
  int classes, lanes;  // lanes share a row: a power of two
  StridedVector target;
  int64_t ignoreIndex;
  IndexGuard guard;
};

// About eight accesses a lane.
template <class S>
int lossLanes(int64_t classes) {
  int lanes = 8;
  while (lanes < kMostLossLanes && int64_t(lanes) * kPerAccess<S> * 8 < classes) lanes *= 2;
  return lanes;
}

}  // namespace adjoint::cuda
