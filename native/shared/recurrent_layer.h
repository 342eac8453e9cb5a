// The sizes of a recurrent layer, and the checks of its arrays.
#pragma once
#include <algorithm>
#include <initializer_list>

#include "contract.h"

namespace adjoint {

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

// Checks shapes and dtypes of what a kernel reads and writes.
class RecurrentLayer {
 public:
  RecurrentLayer(const char* name, const View& wHh, int64_t blocks, const View& gates, bool reverse)
      : name_(name), dtype_(wHh.dtype) {
    if (!isFloating(dtype_)) {
      fail(ErrorKind::dtype, "%s: expected a floating dtype, got %s", name, dtypeName(dtype_));
    }
    require(gates.ndim == 3 && wHh.ndim == 2 && gates.size[0] > 0);
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
    require(v.isContiguous());
  }
  // Of the steps, in the dtype that is computed in.
  void checkKept(const View& v, int64_t width) const {
    checkAs(computeDType(dtype_), v, {sequence.steps, sequence.batch, width});
    require(v.isContiguous());
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
  void require(bool isMet) const {
    if (!isMet) fail(ErrorKind::shape, "%s: expected arrays of one layer's shapes", name_);
  }
  void checkAs(DType dtype, const View& v, std::initializer_list<int64_t> shape) const {
    require(v.ndim == static_cast<int>(shape.size()) &&
            std::equal(shape.begin(), shape.end(), v.size));
    if (v.dtype != dtype) {
      fail(ErrorKind::dtype, "%s: expected %s, got %s", name_, dtypeName(dtype),
           dtypeName(v.dtype));
    }
  }

  const char* name_;
  DType dtype_;
};

// ---------------------------------------------------------------- what each function checks
inline RecurrentLayer checkedLstm(const backend::LstmOutputs& out,
                                  const backend::RecurrentInputs& in) {
  const RecurrentLayer layer("lstm", in.wHh, 4, out.gates, in.reverse);
  layer.checkInputs(in, 4);
  layer.checkSteps(out.y);
  layer.checkKept(out.cells, layer.sequence.size);
  layer.checkDense(out.c, {layer.sequence.batch, layer.sequence.size});
  return layer;
}
inline RecurrentLayer checkedLstmBackward(const backend::LstmGradients& out, const View* dy,
                                          const View* dc, const View& wHh, const View* c0,
                                          const View& gates, const View& cells, bool reverse) {
  const RecurrentLayer layer("lstmBackward", wHh, 4, gates, reverse);
  const Sequence& q = layer.sequence;
  layer.checkKept(cells, q.size);
  layer.checkDense(out.dgates, {q.steps, q.batch, kGates * q.size});
  layer.checkDense(out.dh0, {q.batch, q.size});
  layer.checkDense(out.dc0, {q.batch, q.size});
  layer.checkDense(out.dbias, {kGates * q.size});
  layer.check(dy, {q.steps, q.batch, q.size});
  layer.checkState(dc);
  layer.checkState(c0);
  return layer;
}
inline RecurrentLayer checkedGru(const View& y, const View& gates,
                                 const backend::RecurrentInputs& in) {
  const RecurrentLayer layer("gru", in.wHh, 3, gates, in.reverse);
  layer.checkInputs(in, 3);
  layer.checkSteps(y);
  return layer;
}
inline RecurrentLayer checkedGruBackward(const backend::GruGradients& out, const View* dy,
                                         const View& wHh, const View* h0, const View& gates,
                                         const View& y, bool reverse) {
  const RecurrentLayer layer("gruBackward", wHh, 3, gates, reverse);
  const Sequence& q = layer.sequence;
  layer.checkSteps(y);
  layer.checkDense(out.dgates, {q.steps, q.batch, kGates * q.size});
  layer.checkDense(out.dh0, {q.batch, q.size});
  layer.checkDense(out.dbias, {kGates * q.size});
  layer.check(dy, {q.steps, q.batch, q.size});
  layer.checkState(h0);
  return layer;
}

}  // namespace adjoint
