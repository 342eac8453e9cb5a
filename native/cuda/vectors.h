// Dense data of a dtype that the kernel knows, moved 16 bytes at a time.
#pragma once
#include <cstdint>

#include "cuda/launch.h"
#include "shared/convert.h"

namespace adjoint::cuda {

// What elements of S are computed in.
template <class S>
using ComputeOf = typename std::conditional<std::is_same<S, double>::value, double, float>::type;

// How many elements of S one access moves.
template <class S>
constexpr int kPerAccess = 16 / static_cast<int>(sizeof(S));

template <class S, int V>
struct alignas(sizeof(S) * V < 16 ? sizeof(S) * V : 16) Vector {
  S value[V];
};

// p is aligned to V elements, or to 16 bytes where that is less.
template <class T, class S, int V>
ADJOINT_DEVICE void loadFrom(const S* p, T (&x)[V]) {
  const Vector<S, V> vector = *reinterpret_cast<const Vector<S, V>*>(p);
  for (int j = 0; j < V; j++) x[j] = convert<T>(vector.value[j]);
}
template <class T, class S, int V>
ADJOINT_DEVICE void storeTo(S* p, const T (&x)[V]) {
  Vector<S, V> vector;
  for (int j = 0; j < V; j++) vector.value[j] = convert<S>(x[j]);
  *reinterpret_cast<Vector<S, V>*>(p) = vector;
}

// Whether pointers, strides and lengths (in bytes) allow for accesses of 16 bytes. 0 always does.
inline bool isWideAligned(uint64_t bytes) {
  return bytes % 16 == 0;
}
inline bool isWideAligned(const void* p) {
  return isWideAligned(reinterpret_cast<uintptr_t>(p));
}

// Calls f(TypeTag<S>) with the stored type S of a floating dtype.
template <class F>
void visitFloats(const char* op, DType dtype, const F& f) {
  if (!isFloating(dtype)) {
    fail(ErrorKind::dtype, "%s: expected a floating-point dtype, got %s", op, dtypeName(dtype));
  }
  visitDType(dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if constexpr (!std::is_integral<S>::value && !std::is_same<S, Boolean>::value) f(tag);
  });
}

}  // namespace adjoint::cuda
