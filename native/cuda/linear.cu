// Linear layers with an activation.
#include "contract.h"
#include "cuda/dense.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

View transposed(const View& x) {
  View t = x;
  std::swap(t.size[0], t.size[1]);
  std::swap(t.stride[0], t.stride[1]);
  return t;
}

void sumRows(const View& sums, const View& x) {
  View row = x;
  row.data = sums.data;
  row.size[0] = 1;
  row.stride[0] = x.size[1];
  row.stride[1] = sums.stride[0];
  backend::reduce(ReduceOp::sum, row, x);
}

}  // namespace
}  // namespace cuda

void backend::linear(const View& y, const View* z, const View& x, const View& w, const View* bias,
                     Activation activation) {
  const View& sums = z ? *z : y;
  matmul(sums, x, cuda::transposed(w), bias);
  if (activation != Activation::none) unary(unaryOf(activation), y, sums, y.dtype);
}

void backend::linearBackward(const LinearBackwardArgs& a) {
  std::unique_ptr<cuda::Workspace> space;
  View dz = a.dy;
  if (a.activation != Activation::none) {
    space.reset(new cuda::Workspace(static_cast<size_t>(a.dy.numel()) * itemSize(a.dy.dtype)));
    dz = cuda::denseLike(a.dy, a.dy.dtype);
    dz.data = space->data();
    Operand dy, kept;
    dy.view = a.dy;
    kept.view = *a.kept;
    binary(backwardOf(a.activation), dz, dy, kept, dz.dtype);
  }
  if (a.dbias) cuda::sumRows(*a.dbias, dz);
  if (a.dx) matmul(*a.dx, dz, *a.w, nullptr);
  if (a.dw) matmul(*a.dw, cuda::transposed(dz), *a.x, nullptr);
}

}  // namespace adjoint
