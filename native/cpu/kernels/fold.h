// Folding a contiguous block of values of the type of computation, for reductions, softmax and
// losses. Only for files that are compiled per level.
#pragma once
#include <limits>

#include "cpu/kernels/vec.h"

namespace adjoint::cpu::ADJOINT_LEVEL {

struct SumOf {
  template <class T>
  static ADJOINT_INLINE T identity() {
    return T(0);
  }
  template <class T>
  ADJOINT_INLINE T operator()(T a, T b) const {
    return plus(a, b);
  }
  template <class T>
  static ADJOINT_INLINE T lift(T x) {
    return x;
  }
};
struct ProductOf {
  template <class T>
  static ADJOINT_INLINE T identity() {
    return T(1);
  }
  template <class T>
  ADJOINT_INLINE T operator()(T a, T b) const {
    return times(a, b);
  }
  template <class T>
  static ADJOINT_INLINE T lift(T x) {
    return x;
  }
};
struct MaximumOf {
  template <class T>
  static ADJOINT_INLINE T identity() {
    if constexpr (std::is_integral<T>::value)
      return std::numeric_limits<T>::min();
    else
      return T(-HUGE_VALF);
  }
  template <class T>
  ADJOINT_INLINE T operator()(T a, T b) const {
    return maximumOf(a, b);
  }
  template <class T>
  static ADJOINT_INLINE T lift(T x) {
    return x;
  }
};
struct MinimumOf {
  template <class T>
  static ADJOINT_INLINE T identity() {
    if constexpr (std::is_integral<T>::value)
      return std::numeric_limits<T>::max();
    else
      return T(HUGE_VALF);
  }
  template <class T>
  ADJOINT_INLINE T operator()(T a, T b) const {
    return minimumOf(a, b);
  }
  template <class T>
  static ADJOINT_INLINE T lift(T x) {
    return x;
  }
};

// Over 0 and 1, by arithmetic: conditions here end in an internal error of GCC 12 at the base
// level.
struct TruthOf {
  template <class T>
  static ADJOINT_INLINE T lift(T x) {
    if constexpr (std::is_arithmetic<T>::value)
      return static_cast<T>(x != T(0));
    else
      return select(x != T(0), T(1), T(0));
  }
};
struct AnyOf : TruthOf {
  template <class T>
  static ADJOINT_INLINE T identity() {
    return T(0);
  }
  template <class T>
  ADJOINT_INLINE T operator()(T a, T b) const {
    return a + b - a * b;
  }
};
struct AllOf : TruthOf {
  template <class T>
  static ADJOINT_INLINE T identity() {
    return T(1);
  }
  template <class T>
  ADJOINT_INLINE T operator()(T a, T b) const {
    return a * b;
  }
};

// Folds f(i, partial loads) … over vectors: four running vectors (eight where a vector is a float),
// then their tree, then the tree of the lanes. get(i) and tail(i, rest) give the vectors.
template <class Op, class F, class G>
ADJOINT_INLINE float foldVectors(int64_t n, F get, G tail) {
  constexpr Op op;
  constexpr int kRunning = kLanes == 1 ? 8 : 4;
  Vec running[kRunning];
  for (int k = 0; k < kRunning; k++) running[k] = Op::template identity<Vec>();
  int64_t i = 0;
  for (; i + kRunning * kLanes <= n; i += kRunning * kLanes) {
    for (int k = 0; k < kRunning; k++) running[k] = op(running[k], get(i + k * kLanes));
  }
  for (; i + kLanes <= n; i += kLanes) running[0] = op(running[0], get(i));
  if constexpr (kLanes > 1) {
    if (i < n) running[1] = op(running[1], tail(i, n - i));
  }
  for (int half = kRunning / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; k++) running[k] = op(running[k], running[k + half]);
  }
  return foldLanes(running[0], op);
}

template <class Op>
ADJOINT_INLINE float foldFloats(const float* x, int64_t n) {
  return foldVectors<Op>(
      n, [&](int64_t i) { return Op::template lift<Vec>(load(x + i)); },
      [&](int64_t i, int64_t rest) {
        // What fills the vector must not count: 0 lifts to false, so all() is filled with 1.
        return Op::template lift<Vec>(loadPartial(x + i, rest, Op::template identity<Vec>()));
      });
}

// Running values of type R in plain lanes, which the compiler keeps in vector registers.
template <class Op, class R, class T>
ADJOINT_INLINE R foldLanewise(const T* x, int64_t n) {
  constexpr Op op;
  constexpr int kRunning = 16;
  R running[kRunning];
  for (int k = 0; k < kRunning; k++) running[k] = Op::template identity<R>();
  int64_t i = 0;
  for (; i + kRunning <= n; i += kRunning) {
    for (int k = 0; k < kRunning; k++) {
      running[k] = op(running[k], Op::template lift<R>(static_cast<R>(x[i + k])));
    }
  }
  for (; i < n; i++) running[0] = op(running[0], Op::template lift<R>(static_cast<R>(x[i])));
  for (int half = kRunning / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; k++) running[k] = op(running[k], running[k + half]);
  }
  return running[0];
}

}  // namespace adjoint::cpu::ADJOINT_LEVEL
