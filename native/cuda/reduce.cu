// sum, mean, prod, amax, amin, any, all.
#include "cuda/reduce.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

template <ReduceOp op, class T>
struct Reducer {
  using Element = T;
  using Accumulator = T;
  static constexpr bool takesDenseRows = std::is_floating_point<T>::value;

  static ADJOINT_DEVICE T identity() {
    if constexpr (op == ReduceOp::prod || op == ReduceOp::all) return T(1);
    if constexpr (op == ReduceOp::amax) return lowest();
    if constexpr (op == ReduceOp::amin) return highest();
    return T(0);
  }
  ADJOINT_DEVICE T load(T x, int64_t) const {
    return op == ReduceOp::any || op == ReduceOp::all ? T(x != T(0)) : x;
  }
  ADJOINT_DEVICE T combine(T a, T b) const {
    if constexpr (op == ReduceOp::prod) return times(a, b);
    if constexpr (op == ReduceOp::amax || op == ReduceOp::any) return maximumOf(a, b);
    if constexpr (op == ReduceOp::amin || op == ReduceOp::all) return minimumOf(a, b);
    return plus(a, b);
  }
  ADJOINT_DEVICE T finish(T total, int64_t count) const {
    return op == ReduceOp::mean ? total / T(count) : total;
  }

 private:
  static ADJOINT_DEVICE T lowest() {
    if constexpr (std::is_integral<T>::value) return std::numeric_limits<T>::min();
    return -highest();
  }
  static ADJOINT_DEVICE T highest() {
    if constexpr (std::is_integral<T>::value) return std::numeric_limits<T>::max();
    return T(HUGE_VALF);
  }
};

// The mean of integers is a real number, and a float64 result deserves float64 sums.
Compute accumulation(ReduceOp op, DType x, DType y) {
  const Compute compute = computeType(x);
  if (compute == Compute::i64) return op == ReduceOp::mean ? Compute::f64 : Compute::i64;
  return y == DType::float64 ? Compute::f64 : compute;
}

}  // namespace
}  // namespace cuda

void backend::reduce(ReduceOp op, const View& y, const View& x) {
  visitCompute(cuda::accumulation(op, x.dtype, y.dtype), [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (op) {
#define ADJOINT_CASE(name) \
  case ReduceOp::name:     \
    return cuda::launchReduce(cuda::Reducer<ReduceOp::name, T>(), y, x);
      ADJOINT_REDUCE_OPS(ADJOINT_CASE)
#undef ADJOINT_CASE
      case ReduceOp::count:
        fail(ErrorKind::internal, "reduce: expected an opcode");
    }
  });
}

}  // namespace adjoint
