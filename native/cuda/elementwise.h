// y = f(inputs) for views of any strides and dtypes: one kernel per function and compute type.
#pragma once
#include <cstdint>

#include "cuda/elements.h"
#include "cuda/vectors.h"
#include "cuda/walk.h"
#include "shared/view.h"

namespace adjoint::cuda {

constexpr int kElementwiseThreads = 256;

// N inputs, each a tensor or a number, and one output.
template <class C, int N>
struct Elementwise {
  Walk<N + 1> walk;  // operand 0 is the output
  void* data[N + 1];
  DType dtype[N + 1];
  bool isNumber[N + 1];
  C number[N + 1];
  uint32_t numel;
  bool dense;  // every tensor lies in the order of the walk and may be accessed by vectors
  // 4 or 8 where so many elements are 16 bytes of each tensor and may be accessed so; otherwise 0.
  int wide;
};

using Wide = Vector<uint32_t, 4>;

template <class S, class C, int V>
ADJOINT_DEVICE void unpackAs(const Wide& raw, C (&x)[V]) {
  loadFrom(reinterpret_cast<const S*>(&raw), x);
}
template <class S, class C, int V>
ADJOINT_DEVICE Wide packAs(const C (&x)[V]) {
  Wide raw;
  storeTo(reinterpret_cast<S*>(&raw), x);
  return raw;
}
// The elements in 16 bytes: 4 of float32, or 8 of a half type.
template <class C>
ADJOINT_DEVICE void unpack(const Wide& raw, DType, C (&x)[4]) {
  unpackAs<float>(raw, x);
}
template <class C>
ADJOINT_DEVICE void unpack(const Wide& raw, DType dtype, C (&x)[8]) {
  if (dtype == DType::bfloat16) return unpackAs<BFloat16>(raw, x);
  unpackAs<Float16>(raw, x);
}
template <class C>
ADJOINT_DEVICE Wide pack(DType, const C (&x)[4]) {
  return packAs<float>(x);
}
template <class C>
ADJOINT_DEVICE Wide pack(DType dtype, const C (&x)[8]) {
  return dtype == DType::bfloat16 ? packAs<BFloat16>(x) : packAs<Float16>(x);
}
// 4 or 8 where unpack() reads this dtype, otherwise 0.
inline int wideOf(DType dtype) {
  return dtype == DType::float32 ? 4 : dtype == DType::bfloat16 || dtype == DType::float16 ? 8 : 0;
}

template <class F, class C, int... I>
ADJOINT_DEVICE C applyTo(const F& f, const C* x, std::integer_sequence<int, I...>) {
  return f(x[I]...);
}

// All inputs are on their way before the first is converted: a switch on the dtype between two
// loads would make the second wait for the first.
template <class F, class C, int N, int V>
ADJOINT_DEVICE void applyWide(const Elementwise<C, N>& e, uint32_t thread, uint32_t threads) {
  constexpr F f;
  for (uint32_t v = thread; v < e.numel / V; v += threads) {
    Wide raw[N];
    for (int k = 0; k < N; k++) {
      if (!e.isNumber[k + 1]) raw[k] = static_cast<const Wide*>(e.data[k + 1])[v];
    }
    C x[N][V], y[V];
    for (int k = 0; k < N; k++) {
      if (e.isNumber[k + 1]) {
        for (int j = 0; j < V; j++) x[k][j] = e.number[k + 1];
      } else {
        unpack(raw[k], e.dtype[k + 1], x[k]);
      }
    }
    for (int j = 0; j < V; j++) {
      C column[N];
      for (int k = 0; k < N; k++) column[k] = x[k][j];
      y[j] = applyTo(f, column, std::make_integer_sequence<int, N>());
    }
    static_cast<Wide*>(e.data[0])[v] = pack(e.dtype[0], y);
  }
}

template <class C, int N>
using ElementwiseKernel = void (*)(Elementwise<C, N>);

template <class F, class C, int N>
__global__ void __launch_bounds__(kElementwiseThreads)
    elementwiseKernel(const Elementwise<C, N> e) {
  constexpr F f;
  constexpr auto inputs = std::make_integer_sequence<int, N>();
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t threads = gridDim.x * blockDim.x;
  if constexpr (std::is_same<C, float>::value) {
    if (e.wide == 4) applyWide<F, C, N, 4>(e, thread, threads);
    if (e.wide == 8) applyWide<F, C, N, 8>(e, thread, threads);
  }
  const uint32_t vectors = e.dense && e.wide == 0 ? e.numel / kVector : 0;
  // One vector at a time: two at once took registers from other warps, and were slower on an H200.
  for (uint32_t v = thread; v < vectors; v += threads) {
    C x[N + 1][kVector];
    for (int k = 1; k <= N; k++) {
      if (e.isNumber[k]) {
        for (int j = 0; j < kVector; j++) x[k][j] = e.number[k];
      } else {
        loadVector(e.data[k], e.dtype[k], int64_t(v) * kVector, x[k]);
      }
    }
    for (int j = 0; j < kVector; j++) {
      C column[N + 1];
      for (int k = 1; k <= N; k++) column[k - 1] = x[k][j];
      x[0][j] = applyTo(f, column, inputs);
    }
    storeVector(e.data[0], e.dtype[0], int64_t(v) * kVector, x[0]);
  }
  // What no vector covers: the tail, or everything.
  const uint32_t covered = e.wide ? e.numel / e.wide * e.wide : vectors * kVector;
  for (uint32_t i = covered + thread; i < e.numel; i += threads) {
    int64_t offset[N + 1];
    e.walk.offsets(i, offset);
    C x[N + 1];
    for (int k = 1; k <= N; k++) {
      x[k - 1] = e.isNumber[k] ? e.number[k] : loadAs<C>(e.data[k], e.dtype[k], offset[k]);
    }
    storeAs(e.data[0], e.dtype[0], offset[0], applyTo(f, x, inputs));
  }
}

template <class C>
constexpr Compute computeOf = std::is_integral<C>::value       ? Compute::i64
                              : std::is_same<C, double>::value ? Compute::f64
                                                               : Compute::f32;

[[noreturn]] inline void refuse(const char* op, DType common) {
  fail(ErrorKind::dtype, "%s: expected %s dtype, got %s", op,
       isFloating(common) ? "an integer or bool" : "a floating-point", dtypeName(common));
}

// A number as a tensor of this dtype would hold it.
inline Scalar roundedTo(DType dtype, const Scalar& number) {
  Scalar rounded;
  visitDType(dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    const S held = scalarAs<S>(number);
    rounded =
        isFloating(dtype) ? Scalar::of(convert<double>(held)) : Scalar::of(convert<int64_t>(held));
  });
  return rounded;
}

inline Operand tensorOperand(const View& view) {
  Operand o;
  o.view = view;
  return o;
}

// Inputs are broadcast to y.
template <class C, int N>
void launchElementwise(ElementwiseKernel<C, N> kernel, const View& y, const Operand (&inputs)[N]) {
  // A number takes part in the walk as a tensor of no axes.
  static const View kNumber{};
  const View* views[N + 1] = {&y};
  size_t bytes[N + 1] = {itemSize(y.dtype)};
  Elementwise<C, N> e{};
  e.dtype[0] = y.dtype;
  for (int k = 1; k <= N; k++) {
    const Operand& input = inputs[k - 1];
    e.isNumber[k] = input.isScalar;
    views[k] = input.isScalar ? &kNumber : &input.view;
    e.dtype[k] = views[k]->dtype;
    bytes[k] = itemSize(e.dtype[k]);
    if (input.isScalar) e.number[k] = scalarAs<C>(input.scalar);
  }
  forEachPiece(makePlan(views), bytes, [&](const Plan<N + 1>& piece) {
    if (piece.numel == 0) return;
    e.walk = makeWalk(piece);
    e.numel = static_cast<uint32_t>(piece.numel);
    e.dense = true;
    e.wide = std::is_same<C, float>::value ? wideOf(e.dtype[0]) : 0;
    for (int k = 0; k <= N; k++) {
      e.data[k] = piece.data[k];
      if (e.isNumber[k]) continue;
      e.dense = e.dense && piece.isDense(k) && isVectorAligned(e.data[k], e.dtype[k]);
      if (wideOf(e.dtype[k]) != e.wide || !isWideAligned(e.data[k])) e.wide = 0;
    }
    if (!e.dense) e.wide = 0;
    const int64_t items = e.dense ? ceilDiv(e.numel, e.wide ? e.wide : kVector) : e.numel;
    launch(gridFor(items, kElementwiseThreads), kElementwiseThreads, 0, stream(), kernel, e);
  });
}

}  // namespace adjoint::cuda
