// y = f(inputs) for views of any strides and dtypes: one kernel per function and compute type.
#pragma once
#include <cstdint>

#include "cuda/elements.h"
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
};

template <class F, class C, int... I>
ADJOINT_DEVICE C applyTo(const F& f, const C* x, std::integer_sequence<int, I...>) {
  return f(x[I]...);
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
  const uint32_t vectors = e.dense ? e.numel / kVector : 0;
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
  for (uint32_t i = vectors * kVector + thread; i < e.numel; i += threads) {
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
  static const View kNumber;
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
    for (int k = 0; k <= N; k++) {
      e.data[k] = piece.data[k];
      if (e.isNumber[k]) continue;
      e.dense = e.dense && piece.isDense(k) && isVectorAligned(e.data[k], e.dtype[k]);
    }
    const int64_t items = e.dense ? ceilDiv(e.numel, kVector) : e.numel;
    launch(gridFor(items, kElementwiseThreads), kElementwiseThreads, 0, stream(), kernel, e);
  });
}

}  // namespace adjoint::cuda
