// Operands of kernels that take no strides: the view itself, or a dense copy.
#pragma once
#include <memory>

#include "contract.h"
#include "cuda/workspace.h"

namespace adjoint::cuda {

// Of x's sizes, dense in the order of `axes` (outermost first; none: row-major).
inline View denseLike(const View& x, DType dtype, const int* axes = nullptr) {
  View y = x;
  y.dtype = dtype;
  int64_t stride = 1;
  for (int i = x.ndim - 1; i >= 0; i--) {
    const int axis = axes ? axes[i] : i;
    y.stride[axis] = stride;
    stride *= x.size[axis];
  }
  return y;
}

// A view, or a copy that a kernel can use instead: read by it, or written by it and then copied
// back by finish().
class Stand {
 public:
  // The view itself.
  explicit Stand(const View& x) : given_(x), view_(x) {}
  // A block of `form`'s dtype and strides.
  Stand(const View& x, const View& form, bool isRead) : given_(x), view_(form) {
    const size_t bytes = static_cast<size_t>(form.numel()) * itemSize(form.dtype);
    space_.reset(new Workspace(bytes));
    view_.data = space_->data();
    if (isRead) backend::copy(view_, x);
  }
  const View& view() const { return view_; }
  void finish() const {
    if (space_) backend::copy(given_, view_);
  }

 private:
  View given_, view_;
  std::unique_ptr<Workspace> space_;
};

// x, y row-major and of this dtype.
inline Stand denseInput(const View& x, DType dtype) {
  if (x.dtype == dtype && x.isContiguous()) return Stand(x);
  return Stand(x, denseLike(x, dtype), true);
}
// nullptr: a view of nothing
inline Stand denseInput(const View* x, DType dtype) {
  if (x) return denseInput(*x, dtype);
  View none;
  none.dtype = dtype;
  none.ndim = 1;
  return Stand(none);
}
inline Stand denseOutput(const View& y, DType dtype) {
  if (y.dtype == dtype && y.isContiguous()) return Stand(y);
  return Stand(y, denseLike(y, dtype), false);
}

}  // namespace adjoint::cuda
