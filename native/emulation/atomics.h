// CUDA's atomic operations. One thread runs at a time, so plain ones will do; they are kept from
// the race detector, which would take them for such. Every file includes this through
// cuda_runtime.h.
#pragma once
#include <type_traits>

#define ADJOINT_ATOMIC \
  template <class T>   \
  __attribute__((noinline, no_sanitize("thread"))) T

namespace adjoint::emulation {

template <class T>
constexpr bool isAtomic = std::is_same<T, int>::value || std::is_same<T, unsigned>::value ||
                          std::is_same<T, unsigned long long>::value;

template <class T>
struct Same {
  using type = T;
};

}  // namespace adjoint::emulation

// Each gives back the old value.
ADJOINT_ATOMIC atomicCAS(T* p, typename adjoint::emulation::Same<T>::type expected,
                         typename adjoint::emulation::Same<T>::type value) {
  static_assert(adjoint::emulation::isAtomic<T>, "CUDA has this of 4 and 8 bytes");
  const T old = *p;
  if (old == expected) *p = value;
  return old;
}
ADJOINT_ATOMIC atomicExch(T* p, typename adjoint::emulation::Same<T>::type value) {
  static_assert(adjoint::emulation::isAtomic<T>, "CUDA has this of 4 and 8 bytes");
  const T old = *p;
  *p = value;
  return old;
}
ADJOINT_ATOMIC atomicAdd(T* p, typename adjoint::emulation::Same<T>::type value) {
  static_assert(adjoint::emulation::isAtomic<T>, "CUDA has this of 4 and 8 bytes");
  const T old = *p;
  *p = old + value;
  return old;
}
#undef ADJOINT_ATOMIC

// Order among threads of several blocks; here nothing is ever out of order.
inline void __threadfence() {}
inline void __threadfence_system() {}
