// Linear layers with an activation. Forward, the product is rectified where it is finished; GELU is
// a pass of its own, which takes the time of its arithmetic. Backward, the slope and the bias's
// gradient are one pass ahead of the two products.
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
SlopeLoop<SumOf<S>, S> slopeLoop(Activation activation) {
  const int i = static_cast<int>(activation);
  if constexpr (std::is_same<S, float>::value) {
    return linearTable().f32[i];
  } else if constexpr (std::is_same<S, double>::value) {
    return linearTable().f64[i];
  } else {
    return linearTable().bf16[i];
  }
}

View denseRows(void* data, const View& like) {
  View x = like;
  x.data = data;
  x.stride[0] = x.size[1];
  x.stride[1] = 1;
  return x;
}

// Rows of one chunk of the pass below: their sums of the columns are added up in order, those of
// chunks too.
constexpr int64_t kMostRows = 64, kGrainSlopes = 1 << 15;

// dz = dy f'(z), dense, and dbias = sum of its rows
template <class S>
void applySlopes(const View& dz, const View* dbias, const View& dy, const View& kept,
                 Activation activation) {
  using T = SumOf<S>;
  const auto slopes = slopeLoop<S>(activation);
  const int64_t rows = dz.size[0], columns = dz.size[1];
  const int64_t chunk =
      std::clamp<int64_t>(kGrainSlopes / std::max<int64_t>(1, columns), 8, kMostRows);
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

// Into dz, dense.
void backwardOfActivation(const View& dz, const backend::LinearBackwardArgs& a) {
  const bool hasRows = (a.dy.stride[1] == 1 || a.dy.size[1] == 1) && a.kept->isContiguous();
  if (hasRows && dz.dtype != DType::float16) {
    if (dz.dtype == DType::float32) {
      return applySlopes<float>(dz, a.dbias, a.dy, *a.kept, a.activation);
    }
    if (dz.dtype == DType::float64) {
      return applySlopes<double>(dz, a.dbias, a.dy, *a.kept, a.activation);
    }
    return applySlopes<BFloat16>(dz, a.dbias, a.dy, *a.kept, a.activation);
  }
  Operand dy, kept;
  dy.view = a.dy;
  kept.view = *a.kept;
  backend::binary(backwardOf(a.activation), dz, dy, kept, dz.dtype);
  if (a.dbias) backend::reduce(ReduceOp::sum, asRow(*a.dbias), dz);
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void linear(const View& y, const View* z, const View& x, const View& w, const View* bias,
            Activation activation) {
  const bool rectifies = activation == Activation::relu && !z;
  const View& product = z ? *z : y;
  matrixProduct(product, x, transposed(w), bias, rectifies);
  if (activation == Activation::none || rectifies) return;
  unary(unaryOf(activation), y, product, y.dtype);
}

void linearBackward(const LinearBackwardArgs& a) {
  const bool isActivated = a.activation != Activation::none;
  Workspace space(isActivated ? a.dy.numel() * itemSize(a.dy.dtype) : 0);
  const View dz = isActivated ? denseRows(space.as<void>(), a.dy) : a.dy;
  if (isActivated) {
    backwardOfActivation(dz, a);
  } else if (a.dbias) {
    reduce(ReduceOp::sum, asRow(*a.dbias), dz);
  }
  if (!a.dx && !a.dw) return;
  // Converted once for both products, where it must be.
  const ComputeInput converted(dz, Layout::any, productDType(dz.dtype));
  const View& left = converted.view();
  if (a.dx) matrixProduct(*a.dx, left, *a.w, nullptr, false);
  if (!a.dw) return;
  if (a.dw->dtype == dz.dtype) {
    matrixProduct(*a.dw, transposed(left), *a.x, nullptr, false);
  } else {
    wideProduct(*a.dw, transposed(left), *a.x);
  }
}

}  // namespace adjoint::backend
