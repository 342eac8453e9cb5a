// Linear layers with an activation. Forward, the product is rectified where it is finished; GELU is
// a pass of its own, which takes the time of its arithmetic, and leaves its slopes for the backward
// pass: beside it they cost little, alone as much as GELU itself. Backward, the slope and the
// bias's gradient are one pass ahead of the two products.
#include "cpu/kernels/linear.h"

#include <algorithm>
#include <type_traits>

#include "contract.h"
#include "cpu/compute_view.h"
#include "cpu/gemm.h"
#include "cpu/matmul.h"
#include "cpu/workspace.h"
#include "shared/convert.h"
#include "shared/functors.h"
#include "shared/matrix.h"

namespace adjoint::cpu {
namespace {

template <class S>
using SumOf = std::conditional_t<std::is_same<S, double>::value, double, float>;

template <class S>
const LinearKernels<SumOf<S>, S>& kernelsOf() {
  if constexpr (std::is_same<S, float>::value) {
    return linearTable().f32;
  } else if constexpr (std::is_same<S, double>::value) {
    return linearTable().f64;
  } else {
    return linearTable().bf16;
  }
}

// The kernels of a dtype, by f(tag); float16 has none, and goes through the elementwise ones.
template <class F>
void visitKernels(DType dtype, const F& f) {
  if (dtype == DType::float32) {
    f(float());
  } else if (dtype == DType::float64) {
    f(double());
  } else {
    f(BFloat16());
  }
}
bool hasKernels(DType dtype) {
  return dtype != DType::float16;
}

View denseRows(void* data, const View& like) {
  View x = like;
  x.data = data;
  x.stride[0] = x.size[1];
  x.stride[1] = 1;
  return x;
}

// Rows of one chunk: their sums of the columns are added up in order, those of chunks too.
constexpr int64_t kMostRows = 64, kGrainElements = 1 << 15;

// dz = dy f'(z), dense, and dbias = sum of its rows; dz may be dy
template <class S>
void applySlopes(const View& dz, const View* dbias, const View& dy, const View& kept,
                 Activation activation) {
  using T = SumOf<S>;
  const SlopeLoop<T, S> slopes = kernelsOf<S>().slopes[static_cast<int>(activation)];
  const int64_t rows = dz.size[0], columns = dz.size[1];
  const int64_t chunk =
      std::clamp<int64_t>(kGrainElements / std::max<int64_t>(1, columns), 8, kMostRows);
  const int64_t chunks = ceilDivide(rows, chunk);
  Workspace space(dbias ? chunks * columns * sizeof(T) : 0);
  T* const sums = dbias ? space.template as<T>() : nullptr;
  parallelFor(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c++) {
      T* const part = sums ? sums + c * columns : nullptr;
      if (part) std::fill_n(part, columns, T(0));
      for (int64_t i = c * chunk; i < std::min(rows, (c + 1) * chunk); i++) {
        slopes(dz.as<S>() + i * columns, dy.as<S>() + i * dy.stride[0], kept.as<S>() + i * columns,
               part, columns);
      }
    }
  });
  for (int64_t j = 0; dbias && j < columns; j++) {
    T total = 0;
    for (int64_t c = 0; c < chunks; c++) total += sums[c * columns + j];
    const int64_t at = j * dbias->stride[0];
    if (dbias->dtype == dz.dtype) {
      dbias->as<S>()[at] = convert<S>(total);
    } else {
      dbias->as<T>()[at] = total;
    }
  }
}

// Into dz, dense, and dbias; dz may be dy.
void backwardOfActivation(const View& dz, const View* dbias, const View& dy, const View& kept,
                          Activation activation) {
  const bool hasRows = (dy.stride[1] == 1 || dy.size[1] == 1) && kept.isContiguous();
  if (hasRows && hasKernels(dz.dtype)) {
    return visitKernels(
        dz.dtype, [&](auto tag) { applySlopes<decltype(tag)>(dz, dbias, dy, kept, activation); });
  }
  Operand left, right;
  left.view = dy;
  right.view = kept;
  const bool isRectified = activation == Activation::relu;
  backend::binary(isRectified ? BinaryOp::reluBackward : BinaryOp::mul, dz, left, right, dz.dtype);
  if (dbias) backend::reduce(ReduceOp::sum, asRow(*dbias), dz);
}

// y = f(y), kept = f'(y), of the y that comes in
void activateInPlace(const View& y, const View& kept, Activation activation) {
  if (!hasKernels(y.dtype)) {
    Operand one, z;
    one.isScalar = true;
    one.scalar = Scalar::of(1.0);
    z.view = y;
    backend::binary(backwardOf(activation), kept, one, z, y.dtype);
    return backend::unary(unaryOf(activation), y, y, y.dtype);
  }
  visitKernels(y.dtype, [&](auto tag) {
    using S = decltype(tag);
    const ActivateLoop<S> activate = kernelsOf<S>().activate[static_cast<int>(activation)];
    parallelFor(y.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      S* const at = y.as<S>() + begin;
      activate(at, kept.as<S>() + begin, at, end - begin);
    });
  });
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void linear(const View& y, const View* kept, const View& x, const View& w, const View* bias,
            Activation activation) {
  const bool rectifies = activation == Activation::relu;
  matrixProduct(y, x, transposed(w), bias, rectifies);
  if (activation == Activation::none || rectifies) return;
  if (kept) {
    activateInPlace(y, *kept, activation);
  } else {
    unary(unaryOf(activation), y, y, y.dtype);
  }
}

void linearBackward(const LinearBackwardArgs& a) {
  const bool isActivated = a.activation != Activation::none;
  Workspace space(isActivated ? a.dy.numel() * itemSize(a.dy.dtype) : 0);
  const View dz = isActivated ? denseRows(space.as<void>(), a.dy) : a.dy;
  if (isActivated) {
    backwardOfActivation(dz, a.dbias, a.dy, *a.kept, a.activation);
  } else if (a.dbias) {
    reduce(ReduceOp::sum, asRow(*a.dbias), dz);
  }
  if (!a.dx && !a.dw) return;
  // Converted once for both products, where it must be.
  const ComputeInput converted(dz, Layout::any, productDType(dz.dtype));
  const View& left = converted.view();
  if (a.dx) {
    matrixProduct(*a.dx, left, *a.w, nullptr, false);
    const LayerBelow& below = a.below;
    if (below.activation != Activation::none) {
      backwardOfActivation(*a.dx, below.dbias, *a.dx, *below.kept, below.activation);
    }
  }
  if (!a.dw) return;
  if (a.dw->dtype == dz.dtype) {
    matrixProduct(*a.dw, transposed(left), *a.x, nullptr, false);
  } else {
    wideProduct(*a.dw, transposed(left), *a.x);
  }
}

}  // namespace adjoint::backend
