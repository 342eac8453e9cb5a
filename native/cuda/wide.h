// Several neighbouring elements of one thread, in one access of up to 16 bytes.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "cuda/elements.h"
#include "cuda/walk.h"

namespace adjoint::cuda {

constexpr int kAccessBytes = 16;

template <class S, int V>
struct alignas(sizeof(S) * V < kAccessBytes ? sizeof(S) * V : kAccessBytes) Wide {
  S value[V];
};

// How a kernel reads and writes elements. Floats are of a type known to the compiler, so that they
// move in wide accesses; all integers share one instance of the kernel, which asks for the dtype.
template <class S>
struct Stored {
  using Compute = std::conditional_t<std::is_same<S, double>::value, double, float>;
  static constexpr int widest = kAccessBytes / int(sizeof(S));
  // Elements i .. i + V - 1, aligned.
  template <int V>
  ADJOINT_DEVICE void load(const void* data, int64_t i, Compute (&x)[V]) const {
    const auto wide = *reinterpret_cast<const Wide<S, V>*>(static_cast<const S*>(data) + i);
    for (int j = 0; j < V; j++) x[j] = convert<Compute>(wide.value[j]);
  }
  template <int V>
  ADJOINT_DEVICE void store(void* data, int64_t i, const Compute (&x)[V]) const {
    Wide<S, V> wide;
    for (int j = 0; j < V; j++) wide.value[j] = convert<S>(x[j]);
    *reinterpret_cast<Wide<S, V>*>(static_cast<S*>(data) + i) = wide;
  }
};
struct StoredInteger {
  using Compute = int64_t;
  static constexpr int widest = 1;
  DType dtype;
  template <int V>
  ADJOINT_DEVICE void load(const void* data, int64_t i, int64_t (&x)[V]) const {
    for (int j = 0; j < V; j++) x[j] = loadAs<int64_t>(data, dtype, i + j);
  }
  template <int V>
  ADJOINT_DEVICE void store(void* data, int64_t i, const int64_t (&x)[V]) const {
    for (int j = 0; j < V; j++) storeAs(data, dtype, i + j, x[j]);
  }
};

// Calls f(Stored<S>() or StoredInteger).
template <class F>
void visitStored(DType dtype, const F& f) {
  switch (dtype) {
    case DType::float32:
      return f(Stored<float>());
    case DType::float64:
      return f(Stored<double>());
    case DType::bfloat16:
      return f(Stored<BFloat16>());
    case DType::float16:
      return f(Stored<Float16>());
    default:
      return f(StoredInteger{dtype});
  }
}

// How many elements along the innermost axis of a plan may move as one: `operands` are those that
// do, of `bytes` an element. `apart` are distances that are added to what the plan says.
template <int N, size_t M = 1>
int widthOf(const Plan<N>& plan, std::initializer_list<int> operands, size_t bytes,
            const int64_t (&apart)[M] = {0}) {
  if (plan.ndim == 0) return 1;
  const int inner = plan.ndim - 1;
  auto allFit = [&](int v) {
    bool fits = plan.size[inner] % v == 0;
    for (int64_t distance : apart) fits = fits && distance % v == 0;
    for (int k : operands) {
      fits = fits && plan.stride[k][inner] == 1;
      fits =
          fits && reinterpret_cast<uintptr_t>(plan.data[k]) % (bytes * static_cast<size_t>(v)) == 0;
      for (int axis = 0; axis < inner; axis++) fits = fits && plan.stride[k][axis] % v == 0;
    }
    return fits;
  };
  auto v = static_cast<int>(kAccessBytes / bytes);
  while (v > 1 && !allFit(v)) v /= 2;
  return v;
}

// The plan whose innermost axis goes V elements at a time; strides stay in elements.
template <int N>
Plan<N> byWidth(Plan<N> plan, int v) {
  if (v == 1) return plan;
  const int inner = plan.ndim - 1;
  plan.size[inner] /= v;
  plan.numel /= v;
  for (int k = 0; k < N; k++) plan.stride[k][inner] *= v;
  return plan;
}

}  // namespace adjoint::cuda
