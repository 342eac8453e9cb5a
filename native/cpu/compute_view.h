// Tensors as values of their compute type (float32 for half types, int64 for integers), and dense
// where a kernel asks for it. They are used in place where they are so already.
#pragma once
#include "cpu/workspace.h"
#include "shared/convert.h"

namespace adjoint::cpu {

namespace detail {
// A dense row-major view like x; axes that x repeats (stride 0) keep one copy.
inline View denseLike(const View& x, DType dtype, bool keepsRepeats) {
  View y = x;
  y.dtype = dtype;
  int64_t stride = 1;
  for (int i = x.ndim - 1; i >= 0; i--) {
    const bool isRepeat = !keepsRepeats && x.stride[i] == 0 && x.size[i] > 1;
    y.stride[i] = isRepeat ? 0 : stride;
    if (!isRepeat) stride *= x.size[i];
  }
  return y;
}
inline size_t denseBytes(const View& y) {
  size_t n = itemSize(y.dtype);
  for (int i = 0; i < y.ndim; i++) {
    if (y.size[i] == 0) return 0;
    if (y.stride[i] != 0) n *= static_cast<size_t>(y.size[i]);
  }
  return n;
}
}  // namespace detail

enum class Layout { any, dense };

class ComputeInput {
 public:
  explicit ComputeInput(const View& x, Layout layout = Layout::any)
      : ComputeInput(x, layout, computeDType(x.dtype)) {}
  ComputeInput(const View& x, Layout layout, DType dtype)
      : isSame_(x.dtype == dtype && (layout == Layout::any || x.isContiguous())),
        view_(isSame_ ? x : detail::denseLike(x, dtype, layout == Layout::dense)),
        space_(isSame_ ? 0 : detail::denseBytes(view_)) {
    if (isSame_) return;
    view_.data = space_.as<void>();
    View target = view_, source = x;
    for (int i = 0; i < x.ndim; i++) {
      // A repeated axis is converted once.
      if (view_.stride[i] == 0 && x.size[i] > 1) target.size[i] = source.size[i] = 1;
    }
    backend::copy(target, source);
  }
  const View& view() const { return view_; }

 private:
  bool isSame_;
  View view_;
  Workspace space_;
};

// Write view(), then finish().
class ComputeOutput {
 public:
  explicit ComputeOutput(const View& y, Layout layout = Layout::any)
      : ComputeOutput(y, layout, computeDType(y.dtype)) {}
  ComputeOutput(const View& y, Layout layout, DType dtype)
      : y_(y),
        isSame_(y.dtype == dtype && (layout == Layout::any || y.isContiguous())),
        view_(isSame_ ? y : detail::denseLike(y, dtype, true)),
        space_(isSame_ ? 0 : detail::denseBytes(view_)) {
    if (!isSame_) view_.data = space_.as<void>();
  }
  const View& view() const { return view_; }
  void finish() {
    if (!isSame_) backend::copy(y_, view_);
  }

 private:
  const View& y_;
  bool isSame_;
  View view_;
  Workspace space_;
};

// Calls f(TypeTag<T>) with the type that a floating-point kernel computes in.
template <class F>
void visitFloat(DType dtype, F f) {
  if (dtype == DType::float64) return f(TypeTag<double>());
  f(TypeTag<float>());
}

}  // namespace adjoint::cpu
