// LSTM and GRU over whole sequences. What x contributes to the gates is one product for all steps;
// then each step is one product with the state, which adds to the gates where they lie, and one
// elementwise kernel (recurrent_cell.h). Half types are multiplied as such, with sums, gates and
// cells in float32.
#include "contract.h"
#include "cuda/gemm_operand.h"
#include "cuda/recurrent_cell.h"
#include "shared/recurrent_layer.h"

namespace adjoint {
namespace cuda {
namespace {

// Steps with fewer units than this are spread over more threads of one unit each: they are too
// short to fill the device otherwise.
constexpr int64_t kUnitsForVectors = int64_t(1) << 16;

bool takesVectors(const Sequence& q, std::initializer_list<const View*> views) {
  bool aligned = q.size % kVector == 0 && q.batch * q.size >= kUnitsForVectors;
  for (const View* v : views) aligned = aligned && isVectorAligned(v->data, v->dtype);
  return aligned;
}

template <class Step>
void launchStep(const Step& step, const Sequence& q, bool vectors) {
  const int64_t perRow = vectors ? q.size / kVector : q.size;
  const CellWalk walk{Divider(static_cast<uint32_t>(perRow)),
                      static_cast<uint32_t>(q.batch * perRow), q.size};
  launch(gridFor(walk.items, kCellThreads), kCellThreads, 0, stream(),
         vectors ? cellKernel<kVector, Step> : cellKernel<1, Step>, step, walk);
}

// ---------------------------------------------------------------- products
// Some rows of a weight, or some columns of the gates.
View narrowed(View v, int axis, int64_t begin, int64_t count) {
  const int64_t bytes = begin * v.stride[axis] * static_cast<int64_t>(itemSize(v.dtype));
  v.data = static_cast<char*>(v.data) + bytes;
  v.size[axis] = count;
  return v;
}

// y [m, n] = a [m, k] @ b
struct StepProduct {
  DType dtype;
  int64_t m, n, k;
  int64_t aLeading, yLeading;
  GemmMatrix b;
  bool accumulate;

  void operator()(void* y, const void* a, bool wideOutput = true) const {
    Gemm g{};
    g.dtype = dtype;
    g.batch = 1;
    g.m = m;
    g.n = n;
    g.k = k;
    g.a = {const_cast<void*>(a), false, aLeading, 0};
    g.b = b;
    g.y = {y, false, yLeading, 0};
    g.accumulate = accumulate;
    g.wideOutput = wideOutput;
    gemm(g, stream());
  }
};

GemmMatrix transposed(GemmMatrix m) {
  m.transposed = !m.transposed;
  return m;
}

// gates = bias for each row, or zeros
void setToBias(const View& gates, const View* bias) {
  if (bias) {
    backend::copy(gates, *bias);
  } else {
    backend::fill(gates, Scalar::of(0.0));
  }
}

// gates = x w^T + bias: some columns of the gates, whose rows are gatesRow apart, of x [T, N, I]
// without gaps.
void projectInput(const View& gates, int64_t gatesRow, const View& x, const View& w,
                  const View* bias) {
  if (x.size[2] == 0) return setToBias(gates, bias);
  const GemmOperand weights(w);
  Gemm g{};
  g.dtype = x.dtype;
  g.batch = 1;
  g.m = x.size[0] * x.size[1];
  g.n = w.size[0];
  g.k = x.size[2];
  g.a = {x.data, false, g.k, 0};
  g.b = transposed(weights.matrix());
  g.y = {gates.data, false, gatesRow, 0};
  g.bias = bias ? bias->data : nullptr;
  g.wideOutput = true;
  gemm(g, stream());
}

// ---------------------------------------------------------------- biases
struct Biases {
  const void *bIh, *bHh;  // or nullptr
  int64_t strideIh, strideHh;
  DType dtype;
  int64_t size;
  bool isGru;
};

// sum [4, H] = bIh + bHh in the order of the gates: for a GRU n of bIh alone, r and z, m of bHh.
template <class C>
__global__ void biasKernel(C* sum, const Biases b) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, h = b.size;
  if (i >= 4 * h) return;
  const int64_t ofHh = b.isGru ? i - h : i, ofIh = b.isGru && i < h ? i + 2 * h : ofHh;
  const bool hasIh = b.bIh && !(b.isGru && i >= 3 * h), hasHh = b.bHh && ofHh >= 0;
  const C ih = hasIh ? loadAs<C>(b.bIh, b.dtype, ofIh * b.strideIh) : C(0);
  const C hh = hasHh ? loadAs<C>(b.bHh, b.dtype, ofHh * b.strideHh) : C(0);
  sum[i] = ih + hh;
}

// The layer's biases as the gates need them.
class BiasSum {
 public:
  template <class C>
  BiasSum(TypeTag<C>, const backend::RecurrentInputs& in, int64_t size, bool isGru) {
    if (!in.bIh && !in.bHh) return;
    memory_.emplace(static_cast<size_t>(4 * size) * sizeof(C));
    view_.data = memory_->data();
    view_.dtype = computeDType(in.x.dtype);
    view_.ndim = 1;
    view_.size[0] = 4 * size;
    view_.stride[0] = 1;
    const Biases b{in.bIh ? in.bIh->data : nullptr,
                   in.bHh ? in.bHh->data : nullptr,
                   in.bIh ? in.bIh->stride[0] : 0,
                   in.bHh ? in.bHh->stride[0] : 0,
                   in.x.dtype,
                   size,
                   isGru};
    launch(static_cast<unsigned>(ceilDiv(4 * size, kCellThreads)), kCellThreads, 0, stream(),
           biasKernel<C>, view_.as<C>(), b);
  }
  // Of the gates from `begin`.
  std::optional<View> part(int64_t begin, int64_t count) const {
    if (!memory_) return std::nullopt;
    return narrowed(view_, 0, begin, count);
  }

 private:
  std::optional<Workspace> memory_;
  View view_;
};

const View* pointerTo(const std::optional<View>& v) {
  return v ? &*v : nullptr;
}

// ---------------------------------------------------------------- gradients
// dy [T, N, H], whose rows may lie anywhere; none: nullptr.
class StepGradients {
 public:
  explicit StepGradients(const View* dy)
      : stand_(dy && (dy->stride[2] == 1 || dy->size[2] == 1)
                   ? Stand(*dy)
                   : denseInput(dy, dy ? dy->dtype : DType::float32)) {}
  const View& view() const { return stand_.view(); }
  int64_t rowStride() const { return view().stride[1]; }
  template <class S>
  const S* at(int64_t step) const {
    return view().data ? view().as<S>() + step * view().stride[0] : nullptr;
  }
  bool takesVectors() const {
    return view().stride[0] % kVector == 0 && view().stride[1] % kVector == 0;
  }

 private:
  Stand stand_;
};

// dbias = the sum of dgates over steps and rows
void sumBias(const View& dbias, const View& dgates) {
  View sum = dgates;
  sum.data = dbias.data;
  sum.size[0] = sum.size[1] = 1;
  backend::reduce(ReduceOp::sum, sum, dgates);
}

bool isEmpty(const RecurrentLayer& layer) {
  const Sequence& q = layer.sequence;
  if (q.size > 0 && q.batch > kMaxIndex / q.size) {
    fail(ErrorKind::shape, "lstm, gru: expected fewer than 2^31 units in a step");
  }
  return q.batch == 0 || q.size == 0;
}

// ---------------------------------------------------------------- the layers
template <class C, class S>
void lstm(const backend::LstmOutputs& out, const backend::RecurrentInputs& in, const Sequence& q) {
  const int64_t h = q.size, width = kGates * h;
  const DType dtype = in.x.dtype;
  const Stand x = denseInput(in.x, dtype), h0 = denseInput(in.h0, dtype),
              c0 = denseInput(in.c0, computeDType(dtype));
  const BiasSum bias(TypeTag<C>(), in, h, false);
  projectInput(out.gates, width, x.view(), in.wIh, pointerTo(bias.part(0, width)));
  const GemmOperand weights(in.wHh);
  const StepProduct addState{dtype, q.batch, width, h, h, width, transposed(weights.matrix()),
                             true};
  const bool vectors = takesVectors(q, {&out.y, &out.c, &out.gates, &out.cells, &c0.view()});
  const S* hBefore = h0.view().as<S>();
  const C* cBefore = c0.view().as<C>();
  for (int64_t s = 0; s < q.steps; s++) {
    C* gates = q.rows(out.gates.as<C>(), width, s, 0);
    C* c = q.rows(out.cells.as<C>(), h, s, 0);
    S* y = q.rows(out.y.as<S>(), h, s, 0);
    if (hBefore) addState(gates, hBefore);
    S* last = s + 1 == q.steps ? out.c.as<S>() : nullptr;
    launchStep(LstmStep<C, S>{gates, cBefore, c, y, last}, q, vectors);
    hBefore = y;
    cBefore = c;
  }
}

template <class C, class S>
void lstmBackward(const backend::LstmGradients& out, const View* dyView, const View* dcView,
                  const View& wHh, const View* c0View, const View& gates, const View& cells,
                  const Sequence& q) {
  const int64_t h = q.size, width = kGates * h;
  const DType dtype = wHh.dtype;
  const DType computed = computeDType(dtype);
  const Stand dcLast = denseInput(dcView, computed), c0 = denseInput(c0View, computed);
  const StepGradients dy(dyView);
  const Stand dh = denseOutput(out.dh0, computed), dc = denseOutput(out.dc0, computed);
  const bool isHalf = dtype != computed;
  const GemmOperand weights(wHh);
  const StepProduct sendBack{dtype, q.batch, h, width, width, h, weights.matrix(), false};
  const bool vectors =
      dy.takesVectors() && takesVectors(q, {&gates, &cells, &c0.view(), &dy.view(), &dcLast.view(),
                                            &dh.view(), &dc.view(), &out.dgates, &out.dc0});
  for (int64_t s = q.steps - 1; s >= 0; s--) {
    const bool isLast = s + 1 == q.steps, isFirst = s == 0;
    S* dgates = q.rows(out.dgates.as<S>(), width, s, 0);
    LstmStepBackward<C, S> step{};
    step.gates = q.rows(gates.as<C>(), width, s, 0);
    step.cBefore = isFirst ? c0.view().as<C>() : q.rows(cells.as<C>(), h, s - 1, 0);
    step.c = q.rows(cells.as<C>(), h, s, 0);
    step.dy = dy.at<S>(q.at(s));
    step.dyRow = dy.rowStride();
    step.dhAfter = isLast ? nullptr : dh.view().as<C>();
    step.dcAfter = isLast ? dcLast.view().as<C>() : dc.view().as<C>();
    step.dgates = dgates;
    step.dcBefore = dc.view().as<C>();
    step.dc0 = isFirst && isHalf ? out.dc0.as<S>() : nullptr;
    launchStep(step, q, vectors);
    if (isFirst) {
      sendBack(out.dh0.data, dgates, false);
    } else {
      sendBack(dh.view().as<C>(), dgates);
    }
  }
}

// Gates lie as n, r, z, m: the inputs of the state's product are its last three blocks, those of
// x's the first three.
template <class C, class S>
void gru(const View& yView, const View& gatesView, const backend::RecurrentInputs& in,
         const Sequence& q) {
  const int64_t h = q.size, width = kGates * h;
  const DType dtype = in.x.dtype;
  const Stand x = denseInput(in.x, dtype), h0 = denseInput(in.h0, dtype);
  const BiasSum bias(TypeTag<C>(), in, h, true);
  projectInput(narrowed(gatesView, 2, 0, h), width, x.view(), narrowed(in.wIh, 0, 2 * h, h),
               pointerTo(bias.part(0, h)));
  projectInput(narrowed(gatesView, 2, h, 2 * h), width, x.view(), narrowed(in.wIh, 0, 0, 2 * h),
               pointerTo(bias.part(h, 2 * h)));
  setToBias(narrowed(gatesView, 2, 3 * h, h), pointerTo(bias.part(3 * h, h)));
  const GemmOperand weights(in.wHh);
  const StepProduct addState{dtype, q.batch, 3 * h, h, h, width, transposed(weights.matrix()),
                             true};
  const bool vectors = takesVectors(q, {&yView, &gatesView, &h0.view()});
  const S* hBefore = h0.view().as<S>();
  for (int64_t s = 0; s < q.steps; s++) {
    C* gates = q.rows(gatesView.as<C>(), width, s, 0);
    S* y = q.rows(yView.as<S>(), h, s, 0);
    if (hBefore) addState(gates + h, hBefore);
    launchStep(GruStep<C, S>{gates, hBefore, y}, q, vectors);
    hBefore = y;
  }
}

template <class C, class S>
void gruBackward(const backend::GruGradients& out, const View* dyView, const View& wHh,
                 const View* h0View, const View& gates, const View& y, const Sequence& q) {
  const int64_t h = q.size, width = kGates * h;
  const DType dtype = wHh.dtype;
  const Stand h0 = denseInput(h0View, dtype);
  const StepGradients dy(dyView);
  const Stand dh = denseOutput(out.dh0, computeDType(dtype));
  const GemmOperand weights(wHh);
  const StepProduct addSentBack{dtype, q.batch, h, 3 * h, width, h, weights.matrix(), true};
  const bool vectors = dy.takesVectors() && takesVectors(q, {&gates, &y, &h0.view(), &dy.view(),
                                                             &dh.view(), &out.dgates});
  for (int64_t s = q.steps - 1; s >= 0; s--) {
    S* dgates = q.rows(out.dgates.as<S>(), width, s, 0);
    GruStepBackward<C, S> step{};
    step.gates = q.rows(gates.as<C>(), width, s, 0);
    step.hBefore = s == 0 ? h0.view().as<S>() : q.rows(y.as<S>(), h, s - 1, 0);
    step.dy = dy.at<S>(q.at(s));
    step.dyRow = dy.rowStride();
    step.dhAfter = s + 1 == q.steps ? nullptr : dh.view().as<C>();
    step.dgates = dgates;
    step.dhBefore = dh.view().as<C>();
    launchStep(step, q, vectors);
    addSentBack(dh.view().as<C>(), dgates + h);
  }
  dh.finish();
}

// Calls run(TypeTag<C>, TypeTag<S>).
template <class F>
void visitLayer(DType dtype, const F& run) {
  switch (dtype) {
    case DType::float64:
      return run(TypeTag<double>(), TypeTag<double>());
    case DType::bfloat16:
      return run(TypeTag<float>(), TypeTag<BFloat16>());
    case DType::float16:
      return run(TypeTag<float>(), TypeTag<Float16>());
    default:
      return run(TypeTag<float>(), TypeTag<float>());
  }
}

}  // namespace
}  // namespace cuda

namespace backend {

void lstm(const LstmOutputs& out, const RecurrentInputs& in) {
  const RecurrentLayer layer = checkedLstm(out, in);
  if (cuda::isEmpty(layer)) return;
  cuda::visitLayer(layer.dtype(), [&](auto computed, auto stored) {
    cuda::lstm<typename decltype(computed)::type, typename decltype(stored)::type>(out, in,
                                                                                   layer.sequence);
  });
}

void lstmBackward(const LstmGradients& out, const View* dy, const View* dc, const View& wHh,
                  const View* c0, const View& gates, const View& cells, bool reverse) {
  const RecurrentLayer layer = checkedLstmBackward(out, dy, dc, wHh, c0, gates, cells, reverse);
  if (!cuda::isEmpty(layer)) {
    cuda::visitLayer(layer.dtype(), [&](auto computed, auto stored) {
      cuda::lstmBackward<typename decltype(computed)::type, typename decltype(stored)::type>(
          out, dy, dc, wHh, c0, gates, cells, layer.sequence);
    });
  }
  cuda::sumBias(out.dbias, out.dgates);
}

void gru(const View& y, const View& gates, const RecurrentInputs& in) {
  const RecurrentLayer layer = checkedGru(y, gates, in);
  if (cuda::isEmpty(layer)) return;
  cuda::visitLayer(layer.dtype(), [&](auto computed, auto stored) {
    cuda::gru<typename decltype(computed)::type, typename decltype(stored)::type>(y, gates, in,
                                                                                  layer.sequence);
  });
}

void gruBackward(const GruGradients& out, const View* dy, const View& wHh, const View* h0,
                 const View& gates, const View& y, bool reverse) {
  const RecurrentLayer layer = checkedGruBackward(out, dy, wHh, h0, gates, y, reverse);
  if (!cuda::isEmpty(layer)) {
    cuda::visitLayer(layer.dtype(), [&](auto computed, auto stored) {
      cuda::gruBackward<typename decltype(computed)::type, typename decltype(stored)::type>(
          out, dy, wHh, h0, gates, y, layer.sequence);
    });
  }
  cuda::sumBias(out.dbias, out.dgates);
}

}  // namespace backend
}  // namespace adjoint
