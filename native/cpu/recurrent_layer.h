// The sizes of a recurrent layer, and its arrays: checked, and brought into reach of the kernels.
#pragma once
#include <algorithm>
#include <initializer_list>

#include "contract.h"
#include "cpu/compute_view.h"

namespace adjoint::cpu {

constexpr int64_t kGates = 4;  // blocks of H in a row of gates

// Sizes of a layer, and where the rows of a step lie in arrays [T, N, ..] without gaps.
struct Sequence {
  int64_t steps, batch, size;
  bool reverse;

  // The step that comes s-th.
  int64_t at(int64_t s) const { return reverse ? steps - 1 - s : s; }
  template <class T>
  T* rows(T* array, int64_t width, int64_t s, int64_t row) const {
    return array + (at(s) * batch + row) * width;
  }
};

inline void require(bool isMet, const char* name) {
  if (!isMet) fail(ErrorKind::shape, "%s: expected arrays of one layer's shapes", name);
}
inline bool hasShape(const View& v, std::initializer_list<int64_t> shape) {
  return v.ndim == static_cast<int>(shape.size()) && std::equal(shape.begin(), shape.end(), v.size);
}

// Checks shapes and dtypes of what a kernel reads and writes.
class Layer {
 public:
  Layer(const char* name, const View& wHh, int64_t blocks, const View& gates, bool reverse)
      : name_(name), dtype_(wHh.dtype) {
    if (!isFloating(dtype_)) {
      fail(ErrorKind::dtype, "%s: expected a floating dtype, got %s", name, dtypeName(dtype_));
    }
    require(gates.ndim == 3 && wHh.ndim == 2 && gates.size[0] > 0, name);
    sequence = {gates.size[0], gates.size[1], wHh.size[1], reverse};
    check(wHh, {blocks * sequence.size, sequence.size});
    checkKept(gates, kGates * sequence.size);
  }
  void check(const View& v, std::initializer_list<int64_t> shape) const {
    checkAs(dtype_, v, shape);
  }
  void check(const View* v, std::initializer_list<int64_t> shape) const {
    if (v) check(*v, shape);
  }
  void checkDense(const View& v, std::initializer_list<int64_t> shape) const {
    check(v, shape);
    require(v.isContiguous(), name_);
  }
  // Of the steps, in the dtype that is computed in.
  void checkKept(const View& v, int64_t width) const {
    checkAs(computeDType(dtype_), v, {sequence.steps, sequence.batch, width});
    require(v.isContiguous(), name_);
  }
  void checkSteps(const View& v) const {
    checkDense(v, {sequence.steps, sequence.batch, sequence.size});
  }
  void checkState(const View* v) const { check(v, {sequence.batch, sequence.size}); }
  void checkInputs(const backend::RecurrentInputs& in, int64_t blocks) const {
    const int64_t features = in.x.ndim == 3 ? in.x.size[2] : 0;
    check(in.x, {sequence.steps, sequence.batch, features});
    check(in.wIh, {blocks * sequence.size, features});
    check(in.bIh, {blocks * sequence.size});
    check(in.bHh, {blocks * sequence.size});
    checkState(in.h0);
    checkState(in.c0);
  }

  DType dtype() const { return dtype_; }

  Sequence sequence;

 private:
  void checkAs(DType dtype, const View& v, std::initializer_list<int64_t> shape) const {
    require(hasShape(v, shape), name_);
    if (v.dtype != dtype) {
      fail(ErrorKind::dtype, "%s: expected %s, got %s", name_, dtypeName(dtype),
           dtypeName(v.dtype));
    }
  }

  const char* name_;
  DType dtype_;
};

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
