// LSTM and GRU over whole sequences. What x contributes to the gates is one large product for all
// steps; only the product with the state has to go step by step. Rows of the batch do not depend on
// one another, so each chunk of them runs through all steps on one thread, without a barrier.
//
// Layers of float32 and float64 are computed in their dtype. bfloat16 multiplies as bfloat16 where
// the processor does, with sums, gates and cells in float32 (T = float, S = BFloat16 below); half
// types are otherwise converted to float32, and the results rounded.
#include <algorithm>
#include <type_traits>

#include "cpu/recurrent_layer.h"
#include "cpu/recurrent_state.h"

namespace adjoint::cpu {
namespace {

template <class T, class S>
const RecurrentKernels<T, S>& recurrentKernels() {
  if constexpr (!std::is_same<T, S>::value) {
    return recurrentTable().bf16;
  } else if constexpr (std::is_same<T, float>::value) {
    return recurrentTable().f32;
  } else {
    return recurrentTable().f64;
  }
}

template <class To, class From>
void convertElements(To* y, const From* x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = convert<To>(x[i]);
}

// gates[.., columns from `column`] = x wIh[rows from `row`]^T + bias, for `count` of each
template <class T, class S>
void projectInput(T* gates, int64_t rows, int64_t gatesRow, const View& x, const View& wIh,
                  const T* bias, int64_t row, int64_t count) {
  const S* w = wIh.as<S>() + row * wIh.stride[0];
  const int64_t features = x.size[2];
  if (bias) bias += row;
  if constexpr (std::is_same<T, S>::value) {
    gemm<T>({rows, count, features, x.as<T>(), features, 1, w, wIh.stride[1], wIh.stride[0], gates,
             gatesRow, 1, bias, 0, 1});
  } else {
    gemmBf16({rows,
              count,
              features,
              {x.data, false, features, 1},
              {w, false, wIh.stride[0], wIh.stride[1]},
              gates,
              true,
              gatesRow,
              1,
              bias,
              true,
              0,
              1},
             bf16Multiply());
  }
}

// bIh + bHh [n], of which the second counts for the first `shared` elements alone.
template <class T, class S>
class BiasSum {
 public:
  BiasSum(const S* bIh, const S* bHh, int64_t n, int64_t shared)
      : isGiven_(bIh || bHh), space_(isGiven_ ? n * sizeof(T) : 0) {
    if (!isGiven_) return;
    T* sum = space_.template as<T>();
    for (int64_t i = 0; i < n; i++) {
      sum[i] = (bIh ? convert<T>(bIh[i]) : T(0)) + (bHh && i < shared ? convert<T>(bHh[i]) : T(0));
    }
  }
  const T* data() { return isGiven_ ? space_.template as<T>() : nullptr; }

 private:
  bool isGiven_;
  Workspace space_;
};

// The sums of a layer's gradients over steps and rows: of each step, of a chunk's steps, of chunks.
template <class T>
class BiasGradient {
 public:
  BiasGradient(int64_t width, int64_t chunks)
      : width_(width), chunks_(chunks), space_(2 * chunks * width * sizeof(T)) {
    std::fill_n(space_.template as<T>(), 2 * chunks * width, T(0));
  }
  // What a chunk adds a step's gradients to; then `addStep`.
  T* ofStep(int64_t chunk) { return space_.template as<T>() + 2 * chunk * width_; }
  void addStep(int64_t chunk) {
    T *step = ofStep(chunk), *sum = step + width_;
    for (int64_t i = 0; i < width_; i++) {
      sum[i] += step[i];
      step[i] = T(0);
    }
  }
  template <class S>
  void finish(S* out) {
    for (int64_t i = 0; i < width_; i++) {
      T sum = T(0);
      for (int64_t chunk = 0; chunk < chunks_; chunk++) sum += ofStep(chunk)[width_ + i];
      out[i] = convert<S>(sum);
    }
  }

 private:
  int64_t width_, chunks_;
  Workspace space_;
};

// Calls run(chunk, begin, rows) for each chunk of rows of the batch.
template <class F>
void forEachChunk(int64_t batch, int64_t chunkRows, const F& run) {
  parallelFor(batch, chunkRows,
              [&](int64_t begin, int64_t end) { run(begin / chunkRows, begin, end - begin); });
}

// Chunk, T and S of a layer: out[row] = the gradient that the first step sends, [rows, H].
template <class T, class S>
void storeSums(S* out, const StateSums<T>& sums, const T* direct, int64_t rows, int64_t size) {
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t u = 0; u < size; u++) {
      const T sum = sums.at[u / kSumsBlock * sums.block + row * sums.row + u % kSumsBlock];
      out[row * size + u] = convert<S>(direct ? direct[row * size + u] + sum : sum);
    }
  }
}

template <class T, class S>
void lstm(const backend::LstmOutputs& out, const backend::RecurrentInputs& in, const Sequence& q) {
  const int64_t h = q.size, width = kGates * h;
  const ComputeInput x(in.x, Layout::dense, in.x.dtype);
  const DenseInput bIh(in.bIh), bHh(in.bHh), h0(in.h0), c0(in.c0);
  BiasSum<T, S> bias(bIh.as<S>(), bHh.as<S>(), width, width);
  T *gates = out.gates.as<T>(), *cells = out.cells.as<T>();
  S* y = out.y.as<S>();
  projectInput<T, S>(gates, q.steps * q.batch, width, x.view(), in.wIh, bias.data(), 0, width);
  const StateWeights<T, S> weights(in.wHh, kGates, Pass::forward);
  const RecurrentKernels<T, S>& kernels = recurrentKernels<T, S>();

  forEachChunk(q.batch, weights.chunkRows(q.batch), [&](int64_t, int64_t begin, int64_t rows) {
    typename StateWeights<T, S>::Chunk chunk(weights, rows);
    Workspace firstCells(c0.as<S>() ? rows * h * sizeof(T) : 0);
    const T* cBefore = nullptr;
    StateSums<T> sums;
    if (const S* first = h0.as<S>()) {
      chunk.load(first + begin * h);
      sums = chunk.multiply(first + begin * h, h);
    }
    if (const S* first = c0.as<S>()) {
      convertElements(firstCells.as<T>(), first + begin * h, rows * h);
      cBefore = firstCells.as<T>();
    }
    for (int64_t s = 0; s < q.steps; s++) {
      S* hNow = q.rows(y, h, s, begin);
      T* cNow = q.rows(cells, h, s, begin);
      kernels.lstm(
          {rows, h, q.rows(gates, width, s, begin), sums, cBefore, cNow, hNow, chunk.state()});
      if (s + 1 < q.steps) sums = chunk.multiply(hNow, h);
      cBefore = cNow;
    }
    convertElements(out.c.as<S>() + begin * h, cBefore, rows * h);
  });
}

template <class T, class S>
void lstmBackward(const backend::LstmGradients& out, const View* dyView, const View* dcView,
                  const View& wHh, const View* c0View, const T* gates, const T* cells,
                  const Sequence& q) {
  const int64_t h = q.size, width = kGates * h;
  const DenseInput dcLast(dcView), c0(c0View);
  const Rows dy(dyView);
  const StateWeights<T, S> weights(wHh, kGates, Pass::backward);
  const RecurrentKernels<T, S>& kernels = recurrentKernels<T, S>();
  const int64_t chunkRows = weights.chunkRows(q.batch);
  BiasGradient<T> dbias(width, ceilDivide(q.batch, chunkRows));

  forEachChunk(q.batch, chunkRows, [&](int64_t index, int64_t begin, int64_t rows) {
    typename StateWeights<T, S>::Chunk chunk(weights, rows);
    const int64_t offset = begin * h;
    Workspace space(2 * rows * h * sizeof(T));
    T *dc = space.as<T>(), *firstCells = dc + rows * h;
    std::fill_n(dc, rows * h, T(0));
    if (dcLast.as<S>()) convertElements(dc, dcLast.as<S>() + offset, rows * h);
    if (c0.as<S>()) convertElements(firstCells, c0.as<S>() + offset, rows * h);
    StateSums<T> dh;
    for (int64_t s = q.steps - 1; s >= 0; s--) {
      const T* cBefore = s > 0 ? q.rows(cells, h, s - 1, begin) : c0.as<S>() ? firstCells : nullptr;
      S* da = q.rows(out.dgates.as<S>(), width, s, begin);
      kernels.lstmBackward({rows, h, q.rows(gates, width, s, begin), cBefore,
                            q.rows(cells, h, s, begin), dy.at<S>(q.at(s), begin), dy.rowStride(),
                            dh, dc, da, chunk.state(), dbias.ofStep(index)});
      dbias.addStep(index);
      dh = chunk.multiply(da, width);
    }
    storeSums(out.dh0.as<S>() + offset, dh, static_cast<const T*>(nullptr), rows, h);
    convertElements(out.dc0.as<S>() + offset, dc, rows * h);
  });
  dbias.finish(out.dbias.as<S>());
}

// Gates lie as n, r, z, m: the inputs of the state's product are its last three blocks, those of
// x's the first three.
template <class T, class S>
void gru(S* y, T* gates, const backend::RecurrentInputs& in, const Sequence& q) {
  const int64_t h = q.size, width = kGates * h, rowsOfX = q.steps * q.batch;
  const ComputeInput x(in.x, Layout::dense, in.x.dtype);
  const DenseInput bIh(in.bIh), bHh(in.bHh), h0(in.h0);
  BiasSum<T, S> bias(bIh.as<S>(), bHh.as<S>(), 3 * h, 2 * h);
  BiasSum<T, S> biasOfM(nullptr, bHh.as<S>() ? bHh.as<S>() + 2 * h : nullptr, h, h);
  projectInput<T, S>(gates, rowsOfX, width, x.view(), in.wIh, bias.data(), 2 * h, h);
  projectInput<T, S>(gates + h, rowsOfX, width, x.view(), in.wIh, bias.data(), 0, 2 * h);
  const StateWeights<T, S> weights(in.wHh, 3, Pass::forward);
  const RecurrentKernels<T, S>& kernels = recurrentKernels<T, S>();

  forEachChunk(q.batch, weights.chunkRows(q.batch), [&](int64_t, int64_t begin, int64_t rows) {
    typename StateWeights<T, S>::Chunk chunk(weights, rows);
    const S* hBefore = h0.as<S>() ? h0.as<S>() + begin * h : nullptr;
    StateSums<T> sums;
    if (hBefore) {
      chunk.load(hBefore);
      sums = chunk.multiply(hBefore, h);
    }
    for (int64_t s = 0; s < q.steps; s++) {
      S* hNow = q.rows(y, h, s, begin);
      kernels.gru({rows, h, q.rows(gates, width, s, begin), sums, biasOfM.data(), hBefore, hNow,
                   chunk.state()});
      if (s + 1 < q.steps) sums = chunk.multiply(hNow, h);
      hBefore = hNow;
    }
  });
}

template <class T, class S>
void gruBackward(const backend::GruGradients& out, const View* dyView, const View& wHh,
                 const View* h0View, const T* gates, const S* y, const Sequence& q) {
  const int64_t h = q.size, width = kGates * h;
  const DenseInput h0(h0View);
  const Rows dy(dyView);
  const StateWeights<T, S> weights(wHh, 3, Pass::backward);
  const RecurrentKernels<T, S>& kernels = recurrentKernels<T, S>();
  const int64_t chunkRows = weights.chunkRows(q.batch);
  BiasGradient<T> dbias(width, ceilDivide(q.batch, chunkRows));

  forEachChunk(q.batch, chunkRows, [&](int64_t index, int64_t begin, int64_t rows) {
    typename StateWeights<T, S>::Chunk chunk(weights, rows);
    Workspace space(rows * h * sizeof(T));
    T* direct = space.as<T>();
    std::fill_n(direct, rows * h, T(0));
    StateSums<T> dh;
    for (int64_t s = q.steps - 1; s >= 0; s--) {
      const S* hBefore = s > 0        ? q.rows(y, h, s - 1, begin)
                         : h0.as<S>() ? h0.as<S>() + begin * h
                                      : nullptr;
      S* da = q.rows(out.dgates.as<S>(), width, s, begin);
      kernels.gruBackward({rows, h, q.rows(gates, width, s, begin), hBefore,
                           dy.at<S>(q.at(s), begin), dy.rowStride(), dh, direct, da, chunk.state(),
                           dbias.ofStep(index)});
      dbias.addStep(index);
      dh = chunk.multiply(da + h, width);
    }
    storeSums(out.dh0.as<S>() + begin * h, dh, direct, rows, h);
  });
  dbias.finish(out.dbias.as<S>());
}

bool multipliesBf16(DType dtype) {
  return dtype == DType::bfloat16 && bf16Multiply();
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void lstm(const LstmOutputs& out, const RecurrentInputs& in) {
  const RecurrentLayer layer = checkedLstm(out, in);
  const Sequence& q = layer.sequence;
  if (multipliesBf16(layer.dtype())) return cpu::lstm<float, BFloat16>(out, in, q);
  const ComputedInputs inputs(in);
  ComputeOutput y(out.y), c(out.c);
  visitFloat(layer.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    cpu::lstm<T, T>({y.view(), c.view(), out.gates, out.cells}, inputs.get(), q);
  });
  y.finish();
  c.finish();
}

void lstmBackward(const LstmGradients& out, const View* dy, const View* dc, const View& wHh,
                  const View* c0, const View& gates, const View& cells, bool reverse) {
  const RecurrentLayer layer = checkedLstmBackward(out, dy, dc, wHh, c0, gates, cells, reverse);
  const Sequence& q = layer.sequence;
  if (multipliesBf16(layer.dtype())) {
    return cpu::lstmBackward<float, BFloat16>(out, dy, dc, wHh, c0, gates.as<float>(),
                                              cells.as<float>(), q);
  }
  const ComputedInput dyIn(dy), dcIn(dc), c0In(c0);
  const ComputeInput w(wHh);
  ComputeOutput dgates(out.dgates), dh0(out.dh0), dc0(out.dc0), dbias(out.dbias);
  visitFloat(layer.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    cpu::lstmBackward<T, T>({dgates.view(), dh0.view(), dc0.view(), dbias.view()}, dyIn.view(),
                            dcIn.view(), w.view(), c0In.view(), gates.as<T>(), cells.as<T>(), q);
  });
  for (ComputeOutput* done : {&dgates, &dh0, &dc0, &dbias}) done->finish();
}

void gru(const View& y, const View& gates, const RecurrentInputs& in) {
  const RecurrentLayer layer = checkedGru(y, gates, in);
  if (multipliesBf16(layer.dtype())) {
    return cpu::gru<float>(y.as<BFloat16>(), gates.as<float>(), in, layer.sequence);
  }
  const ComputedInputs inputs(in);
  ComputeOutput yOut(y);
  visitFloat(layer.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    cpu::gru<T>(yOut.view().as<T>(), gates.as<T>(), inputs.get(), layer.sequence);
  });
  yOut.finish();
}

void gruBackward(const GruGradients& out, const View* dy, const View& wHh, const View* h0,
                 const View& gates, const View& y, bool reverse) {
  const RecurrentLayer layer = checkedGruBackward(out, dy, wHh, h0, gates, y, reverse);
  const Sequence& q = layer.sequence;
  if (multipliesBf16(layer.dtype())) {
    return cpu::gruBackward<float, BFloat16>(out, dy, wHh, h0, gates.as<float>(), y.as<BFloat16>(),
                                             q);
  }
  const ComputedInput dyIn(dy), h0In(h0);
  const ComputeInput w(wHh), yIn(y);
  ComputeOutput dgates(out.dgates), dh0(out.dh0), dbias(out.dbias);
  visitFloat(layer.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    cpu::gruBackward<T, T>({dgates.view(), dh0.view(), dbias.view()}, dyIn.view(), w.view(),
                           h0In.view(), gates.as<T>(), yIn.view().as<T>(), q);
  });
  for (ComputeOutput* done : {&dgates, &dh0, &dbias}) done->finish();
}

}  // namespace adjoint::backend
