// Mean and sum of squared deviations, of some elements and of all that were combined. No square of
// an element itself is formed, so a large mean costs no digits.
#pragma once
#include "cuda/group.h"

namespace adjoint::cuda {

template <class T>
struct Moments {
  T count, mean, squares;  // squares: the sum of (x - mean)^2
};

template <class T>
ADJOINT_DEVICE Moments<T> shuffleXor(Moments<T> m, int distance) {
  return {__shfl_xor_sync(kAllLanes, m.count, distance),
          __shfl_xor_sync(kAllLanes, m.mean, distance),
          __shfl_xor_sync(kAllLanes, m.squares, distance)};
}

// Chan, Golub & LeVeque 1979: d = mean_b - mean_a, n = n_a + n_b;
// mean = mean_a + d n_b / n; squares = squares_a + squares_b + d^2 n_a n_b / n
template <class T>
struct MomentsCombiner {
  ADJOINT_DEVICE Moments<T> combine(const Moments<T>& a, const Moments<T>& b) const {
    const T count = a.count + b.count, share = count > T(0) ? b.count / count : T(0);
    const T d = b.mean - a.mean;
    return {count, a.mean + d * share, a.squares + b.squares + d * d * (a.count * share)};
  }
};

}  // namespace adjoint::cuda
