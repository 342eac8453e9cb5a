// LSTM and GRU over whole sequences. What x contributes to the gates is one large product for all
// steps; only the product with the state has to go step by step. Rows of the batch do not depend on
// one another, so each chunk of them runs through all steps on one thread, without a barrier.
#include "cpu/kernels/recurrent.h"

#include <algorithm>

#include "contract.h"
#include "cpu/compute_view.h"
#include "cpu/packed_operand.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kGates = 4;  // blocks of H in a row of gates

template <class T>
const RecurrentKernels<T>& recurrentKernels() {
  if constexpr (std::is_same<T, float>::value) {
    return recurrentTable().f32;
  } else {
    return recurrentTable().f64;
  }
}

// Rows that one thread takes through the sequence: few, so that all threads have some, but more
// where the weights (of so many bytes) are read from beyond the second cache at each step.
int64_t chunkRows(int64_t rows, double weightBytes) {
  constexpr double kInL2 = 1 << 20;
  const bool isNear = weightBytes <= kInL2;
  const int64_t most = std::clamp<int64_t>(ceilDivide(rows, isNear ? 8 : 4), 8, isNear ? 28 : 56);
  return rows == 0 ? 1 : ceilDivide(rows, ceilDivide(rows, most));
}

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

void require(bool isMet, const char* name) {
  if (!isMet) fail(ErrorKind::shape, "%s: expected arrays of one layer's shapes", name);
}
bool hasShape(const View& v, std::initializer_list<int64_t> shape) {
  return v.ndim == static_cast<int>(shape.size()) && std::equal(shape.begin(), shape.end(), v.size);
}

// Checks shapes and dtypes of what a kernel reads and writes.
class Layer {
 public:
  Layer(const char* name, const View& wHh, int64_t blocks, const View& gates, bool reverse)
      : name_(name), dtype_(gates.dtype) {
    if (dtype_ != DType::float32 && dtype_ != DType::float64) {
      fail(ErrorKind::dtype, "%s: expected float32 or float64, got %s", name, dtypeName(dtype_));
    }
    require(gates.ndim == 3 && wHh.ndim == 2 && gates.size[0] > 0, name);
    sequence = {gates.size[0], gates.size[1], wHh.size[1], reverse};
    check(wHh, {blocks * sequence.size, sequence.size});
    checkDense(gates, {sequence.steps, sequence.batch, kGates * sequence.size});
  }
  void check(const View& v, std::initializer_list<int64_t> shape) const {
    require(hasShape(v, shape), name_);
    if (v.dtype != dtype_) {
      fail(ErrorKind::dtype, "%s: expected %s, got %s", name_, dtypeName(dtype_),
           dtypeName(v.dtype));
    }
  }
  void check(const View* v, std::initializer_list<int64_t> shape) const {
    if (v) check(*v, shape);
  }
  void checkDense(const View& v, std::initializer_list<int64_t> shape) const {
    check(v, shape);
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

  Sequence sequence;

 private:
  const char* name_;
  DType dtype_;
};

// An optional input without gaps.
class DenseInput {
 public:
  explicit DenseInput(const View* v)
      : isGiven_(v != nullptr), input_(v ? *v : View{}, Layout::dense) {}
  template <class T>
  const T* as() const {
    return isGiven_ ? input_.view().as<T>() : nullptr;
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
        input_(v ? *v : View{}, v && v->stride[2] != 1 ? Layout::dense : Layout::any) {}
  template <class T>
  const T* at(int64_t step, int64_t row) const {
    if (!isGiven_) return nullptr;
    const View& v = input_.view();
    return v.as<T>() + step * v.stride[0] + row * v.stride[1];
  }
  int64_t rowStride() const { return isGiven_ ? input_.view().stride[1] : 0; }

 private:
  bool isGiven_;
  ComputeInput input_;
};

// gates[.., columns from `column`] = x wIh[rows from `row`]^T + bIh + bHh, for `count` of each
template <class T>
void projectInput(T* gates, int64_t rows, int64_t gatesRow, const View& x, const View& wIh,
                  const T* bias, int64_t row, int64_t count) {
  gemm<T>({rows, count, x.size[2], x.as<T>(), x.size[2], 1, wIh.as<T>() + row * wIh.stride[0],
           wIh.stride[1], wIh.stride[0], gates, gatesRow, 1, bias ? bias + row : nullptr, 0, 1});
}

// bIh + bHh [n], of which the second counts for the first `shared` elements alone.
template <class T>
class BiasSum {
 public:
  BiasSum(const T* bIh, const T* bHh, int64_t n, int64_t shared)
      : isGiven_(bIh || bHh), space_(isGiven_ ? n * sizeof(T) : 0) {
    if (!isGiven_) return;
    T* sum = space_.template as<T>();
    for (int64_t i = 0; i < n; i++) {
      sum[i] = (bIh ? bIh[i] : T(0)) + (bHh && i < shared ? bHh[i] : T(0));
    }
  }
  const T* data() { return isGiven_ ? space_.template as<T>() : nullptr; }

 private:
  bool isGiven_;
  Workspace space_;
};

template <class T>
void lstm(const backend::LstmOutputs& out, const backend::RecurrentInputs& in, const Sequence& q) {
  const int64_t h = q.size, width = kGates * h;
  const ComputeInput x(in.x, Layout::dense);
  const DenseInput bIh(in.bIh), bHh(in.bHh), h0(in.h0), c0(in.c0);
  BiasSum<T> bias(bIh.as<T>(), bHh.as<T>(), width, width);
  T *gates = out.gates.as<T>(), *y = out.y.as<T>(), *cells = out.cells.as<T>();
  projectInput<T>(gates, q.steps * q.batch, width, x.view(), in.wIh, bias.data(), 0, width);
  const PackedOperand<T> weights(h, width, in.wHh.as<T>(), in.wHh.stride[1], in.wHh.stride[0]);
  const RecurrentKernels<T>& kernels = recurrentKernels<T>();

  parallelFor(q.batch, chunkRows(q.batch, weights.bytes()), [&](int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    const T* hBefore = h0.as<T>() ? h0.as<T>() + begin * h : nullptr;
    const T* cBefore = c0.as<T>() ? c0.as<T>() + begin * h : nullptr;
    for (int64_t s = 0; s < q.steps; s++) {
      T* a = q.rows(gates, width, s, begin);
      T *hNow = q.rows(y, h, s, begin), *cNow = q.rows(cells, h, s, begin);
      if (hBefore) weights.multiply(rows, hBefore, h, a, width, a, width, 1);
      kernels.lstm({rows, h, a, cBefore, cNow, hNow});
      hBefore = hNow;
      cBefore = cNow;
    }
    std::copy_n(cBefore, rows * h, out.c.as<T>() + begin * h);
  });
}

template <class T>
void lstmBackward(const backend::LstmGradients& out, const View* dyView, const View* dcView,
                  const View& wHh, const View* c0View, const T* gates, const T* cells,
                  const Sequence& q) {
  static const T zeros[64] = {};
  const int64_t h = q.size, width = kGates * h;
  const DenseInput dcLast(dcView), c0(c0View);
  const Rows dy(dyView);
  const PackedOperand<T> weights(width, h, wHh.as<T>(), wHh.stride[0], wHh.stride[1]);
  const RecurrentKernels<T>& kernels = recurrentKernels<T>();

  parallelFor(q.batch, chunkRows(q.batch, weights.bytes()), [&](int64_t begin, int64_t end) {
    const int64_t rows = end - begin, offset = begin * h;
    // What one step sends to the step before lies where the initial state's gradients end.
    T *dh = out.dh0.as<T>() + offset, *dc = out.dc0.as<T>() + offset;
    std::fill_n(dh, rows * h, T(0));
    if (dcLast.as<T>()) {
      std::copy_n(dcLast.as<T>() + offset, rows * h, dc);
    } else {
      std::fill_n(dc, rows * h, T(0));
    }
    for (int64_t s = q.steps - 1; s >= 0; s--) {
      const T* cBefore = s > 0        ? q.rows(cells, h, s - 1, begin)
                         : c0.as<T>() ? c0.as<T>() + offset
                                      : nullptr;
      T* da = q.rows(out.dgates.as<T>(), width, s, begin);
      kernels.lstmBackward({rows, h, q.rows(gates, width, s, begin), cBefore,
                            q.rows(cells, h, s, begin), dy.at<T>(q.at(s), begin), dy.rowStride(),
                            dh, dc, da});
      weights.multiply(rows, da, width, dh, h, zeros, 0, 0);
    }
  });
}

// Gates lie as n, r, z, m: the inputs of the state's product are its last three blocks, those of
// x's the first three, so that both are one matrix.
template <class T>
void gru(T* y, T* gates, const backend::RecurrentInputs& in, const Sequence& q) {
  const int64_t h = q.size, width = kGates * h, rowsOfX = q.steps * q.batch;
  const ComputeInput x(in.x, Layout::dense);
  const DenseInput bIh(in.bIh), bHh(in.bHh), h0(in.h0);
  const T* bM = bHh.as<T>() ? bHh.as<T>() + 2 * h : nullptr;
  BiasSum<T> bias(bIh.as<T>(), bHh.as<T>(), 3 * h, 2 * h);
  projectInput<T>(gates, rowsOfX, width, x.view(), in.wIh, bias.data(), 2 * h, h);
  projectInput<T>(gates + h, rowsOfX, width, x.view(), in.wIh, bias.data(), 0, 2 * h);
  const PackedOperand<T> weights(h, 3 * h, in.wHh.as<T>(), in.wHh.stride[1], in.wHh.stride[0]);
  const RecurrentKernels<T>& kernels = recurrentKernels<T>();

  parallelFor(q.batch, chunkRows(q.batch, weights.bytes()), [&](int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    const T* hBefore = h0.as<T>() ? h0.as<T>() + begin * h : nullptr;
    for (int64_t s = 0; s < q.steps; s++) {
      T* a = q.rows(gates, width, s, begin);
      T* hNow = q.rows(y, h, s, begin);
      for (int64_t row = 0; row < rows; row++) {
        T* m = a + row * width + 3 * h;
        if (bM) {
          std::copy_n(bM, h, m);
        } else {
          std::fill_n(m, h, T(0));
        }
      }
      if (hBefore) weights.multiply(rows, hBefore, h, a + h, width, a + h, width, 1);
      kernels.gru({rows, h, a, hBefore, hNow});
      hBefore = hNow;
    }
  });
}

template <class T>
void gruBackward(T* dgates, T* dh0, const View* dyView, const View& wHh, const View* h0View,
                 const T* gates, const T* y, const Sequence& q) {
  const int64_t h = q.size, width = kGates * h;
  const DenseInput h0(h0View);
  const Rows dy(dyView);
  const PackedOperand<T> weights(3 * h, h, wHh.as<T>(), wHh.stride[0], wHh.stride[1]);
  const RecurrentKernels<T>& kernels = recurrentKernels<T>();

  parallelFor(q.batch, chunkRows(q.batch, weights.bytes()), [&](int64_t begin, int64_t end) {
    const int64_t rows = end - begin, offset = begin * h;
    T* dh = dh0 + offset;
    std::fill_n(dh, rows * h, T(0));
    for (int64_t s = q.steps - 1; s >= 0; s--) {
      const T* hBefore = s > 0        ? q.rows(y, h, s - 1, begin)
                         : h0.as<T>() ? h0.as<T>() + offset
                                      : nullptr;
      T* da = q.rows(dgates, width, s, begin);
      kernels.gruBackward({rows, h, q.rows(gates, width, s, begin), hBefore,
                           dy.at<T>(q.at(s), begin), dy.rowStride(), dh, da});
      weights.multiply(rows, da + h, width, dh, h, dh, h, 1);
    }
  });
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void lstm(const LstmOutputs& out, const RecurrentInputs& in) {
  const Layer layer("lstm", in.wHh, 4, out.gates, in.reverse);
  layer.checkInputs(in, 4);
  layer.checkSteps(out.y);
  layer.checkSteps(out.cells);
  layer.checkDense(out.c, {layer.sequence.batch, layer.sequence.size});
  visitFloat(out.gates.dtype,
             [&](auto tag) { cpu::lstm<typename decltype(tag)::type>(out, in, layer.sequence); });
}

void lstmBackward(const LstmGradients& out, const View* dy, const View* dc, const View& wHh,
                  const View* c0, const View& gates, const View& cells, bool reverse) {
  const Layer layer("lstmBackward", wHh, 4, gates, reverse);
  const Sequence& q = layer.sequence;
  layer.checkSteps(cells);
  layer.checkDense(out.dgates, {q.steps, q.batch, kGates * q.size});
  layer.checkDense(out.dh0, {q.batch, q.size});
  layer.checkDense(out.dc0, {q.batch, q.size});
  layer.check(dy, {q.steps, q.batch, q.size});
  layer.checkState(dc);
  layer.checkState(c0);
  visitFloat(gates.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    cpu::lstmBackward<T>(out, dy, dc, wHh, c0, gates.as<T>(), cells.as<T>(), q);
  });
}

void gru(const View& y, const View& gates, const RecurrentInputs& in) {
  const Layer layer("gru", in.wHh, 3, gates, in.reverse);
  layer.checkInputs(in, 3);
  layer.checkSteps(y);
  visitFloat(gates.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    cpu::gru<T>(y.as<T>(), gates.as<T>(), in, layer.sequence);
  });
}

void gruBackward(const View& dgates, const View& dh0, const View* dy, const View& wHh,
                 const View* h0, const View& gates, const View& y, bool reverse) {
  const Layer layer("gruBackward", wHh, 3, gates, reverse);
  const Sequence& q = layer.sequence;
  layer.checkSteps(y);
  layer.checkDense(dgates, {q.steps, q.batch, kGates * q.size});
  layer.checkDense(dh0, {q.batch, q.size});
  layer.check(dy, {q.steps, q.batch, q.size});
  layer.checkState(h0);
  visitFloat(gates.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    cpu::gruBackward<T>(dgates.as<T>(), dh0.as<T>(), dy, wHh, h0, gates.as<T>(), y.as<T>(), q);
  });
}

}  // namespace adjoint::backend
