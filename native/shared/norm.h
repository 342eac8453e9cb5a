// The norms that gradients are clipped by: (sum |x|^p)^(1/p), and the largest |x| of an infinite p.
#pragma once
#include "shared/functors.h"

namespace adjoint {

enum class Norm { largest, sum, squares, powers };

ADJOINT_INLINE Norm normOf(double p) {
  return p == HUGE_VAL ? Norm::largest : p == 1 ? Norm::sum : p == 2 ? Norm::squares : Norm::powers;
}

// What elements bring, how two parts become one, and the norm of the whole; 0 for no elements.
template <class T, Norm kind>
struct Magnitudes {
  T p;
  ADJOINT_INLINE T of(T x) const {
    const T magnitude = Math<T>::abs(x);
    if constexpr (kind == Norm::squares) return magnitude * magnitude;
    if constexpr (kind == Norm::powers) return Math<T>::pow(magnitude, p);
    return magnitude;
  }
  ADJOINT_INLINE T combine(T a, T b) const {
    if constexpr (kind == Norm::largest) return maximumOf(a, b);
    return a + b;
  }
  ADJOINT_INLINE T root(T whole) const {
    if constexpr (kind == Norm::squares) return Math<T>::sqrt(whole);
    if constexpr (kind == Norm::powers) return Math<T>::pow(whole, T(1) / p);
    return whole;
  }
};

}  // namespace adjoint
