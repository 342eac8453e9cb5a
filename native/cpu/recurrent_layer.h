// The arrays of a recurrent layer, brought into reach of the kernels.
#pragma once
#include "contract.h"
#include "cpu/compute_view.h"
#include "shared/recurrent_layer.h"

namespace adjoint::cpu {

// An optional input without gaps.
class DenseInput {
 public:
  explicit DenseInput(const View* v)
      : isGiven_(v != nullptr), input_(v ? *v : View{}, Layout::dense, v ? v->dtype : DType{}) {}
  template <class S>
  const S* as() const {
    return isGiven_ ? input_.view().as<S>() : nullptr;
  }

 private:
  bool isGiven_;
  ComputeInput input_;
};

// Gradients [T, N, H] that are read row by row: any strides but along the units.
class Rows {
 public:
  explicit Rows(const View* v)
      : isGiven_(v != nullptr),
        input_(v ? *v : View{}, v && v->stride[2] != 1 ? Layout::dense : Layout::any,
               v ? v->dtype : DType{}) {}
  template <class S>
  const S* at(int64_t step, int64_t row) const {
    if (!isGiven_) return nullptr;
    const View& v = input_.view();
    return v.as<S>() + step * v.stride[0] + row * v.stride[1];
  }
  int64_t rowStride() const { return isGiven_ ? input_.view().stride[1] : 0; }

 private:
  bool isGiven_;
  ComputeInput input_;
};

// An optional input in the dtype that is computed in.
class ComputedInput {
 public:
  explicit ComputedInput(const View* v) : isGiven_(v != nullptr), input_(v ? *v : View{}) {}
  const View* view() const { return isGiven_ ? &input_.view() : nullptr; }

 private:
  bool isGiven_;
  ComputeInput input_;
};

// All that a layer reads, in the dtype that is computed in.
class ComputedInputs {
 public:
  explicit ComputedInputs(const backend::RecurrentInputs& in)
      : x_(in.x),
        wIh_(in.wIh),
        wHh_(in.wHh),
        bIh_(in.bIh),
        bHh_(in.bHh),
        h0_(in.h0),
        c0_(in.c0),
        reverse_(in.reverse) {}
  backend::RecurrentInputs get() const {
    return {x_.view(),   wIh_.view(), wHh_.view(), bIh_.view(),
            bHh_.view(), h0_.view(),  c0_.view(),  reverse_};
  }

 private:
  ComputeInput x_, wIh_, wHh_;
  ComputedInput bIh_, bHh_, h0_, c0_;
  bool reverse_;
};

}  // namespace adjoint::cpu
