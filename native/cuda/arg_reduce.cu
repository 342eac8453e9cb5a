// argmax, argmin: the first of equal values; a NaN beats every number.
#include "cuda/reduce.h"

namespace adjoint {
namespace cuda {
namespace {

constexpr int64_t kNowhere = INT64_MAX;

template <class T>
struct Found {
  T value;
  int64_t index;  // kNowhere: nothing yet
};

template <class T>
ADJOINT_DEVICE Found<T> shuffleXor(Found<T> f, int distance) {
  return {__shfl_xor_sync(kAllLanes, f.value, distance),
          __shfl_xor_sync(kAllLanes, f.index, distance)};
}

template <ArgOp op, class T>
struct ArgReducer {
  using Element = T;
  using Accumulator = Found<T>;
  static constexpr bool takesDenseRows = false;

  static ADJOINT_DEVICE Found<T> identity() { return {T(0), kNowhere}; }
  ADJOINT_DEVICE Found<T> load(T x, int64_t index) const { return {x, index}; }
  ADJOINT_DEVICE Found<T> combine(Found<T> a, Found<T> b) const {
    if (a.index == kNowhere) return b;
    if (b.index == kNowhere) return a;
    const bool aNaN = a.value != a.value, bNaN = b.value != b.value;
    if (aNaN != bNaN) return aNaN ? a : b;
    if (aNaN || a.value == b.value) return a.index < b.index ? a : b;
    return (op == ArgOp::argmax) == (a.value > b.value) ? a : b;
  }
  ADJOINT_DEVICE int64_t finish(Found<T> f, int64_t) const { return f.index; }
};

}  // namespace
}  // namespace cuda

void backend::argReduce(ArgOp op, const View& y, const View& x, int) {
  visitCompute(computeType(x.dtype), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (op == ArgOp::argmax) {
      cuda::launchReduce(cuda::ArgReducer<ArgOp::argmax, T>(), y, x);
    } else {
      cuda::launchReduce(cuda::ArgReducer<ArgOp::argmin, T>(), y, x);
    }
  });
}

}  // namespace adjoint
