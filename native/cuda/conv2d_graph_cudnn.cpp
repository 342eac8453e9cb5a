#include "cuda/conv2d_graph.h"
#include "cuda/cudnn_graph.h"

namespace adjoint::cuda {
namespace {

namespace fe = cudnn_frontend;
namespace graph = cudnn_frontend::graph;
using Tensor = std::shared_ptr<graph::Tensor_attributes>;

// The numbers of a graph's tensors.
enum Uid : int64_t { kX = 1, kW, kY, kBias };

std::vector<int64_t> four(const int64_t (&values)[4]) {
  return {values, values + 4};
}

void describe(Tensor& t, const Conv2dTensor& source, Uid uid, const char* name) {
  t->set_uid(uid).set_name(name).set_dim(four(source.size)).set_stride(four(source.stride));
}

Tensor input(graph::Graph& g, const Conv2dTensor& source, Uid uid, const char* name) {
  Tensor t = g.tensor(graph::Tensor_attributes());
  describe(t, source, uid, name);
  return t;
}

// What the convolution's three nodes have in common.
template <class Attributes>
Attributes attributesOf(const backend::Conv2dShape& s) {
  Attributes a;
  a.set_padding({s.padH, s.padW});
  a.set_stride({s.strideH, s.strideW});
  a.set_dilation({s.dilationH, s.dilationW});
  return a;
}

// y = max(conv(x, w) + bias, 0)
Tensor addForward(graph::Graph& g, const Conv2d& c) {
  const Tensor x = input(g, c.x, kX, "x"), w = input(g, c.w, kW, "w");
  Tensor y = g.conv_fprop(x, w, attributesOf<graph::Conv_fprop_attributes>(c.shape));
  if (c.bias) {
    const int64_t k = c.y.size[1];
    const Conv2dTensor channels{nullptr, {1, k, 1, 1}, {k, 1, k, k}};
    const Tensor bias = input(g, channels, kBias, "bias");
    y = g.pointwise(y, bias, graph::Pointwise_attributes().set_mode(fe::PointwiseMode_t::ADD));
  }
  if (c.relu) {
    y = g.pointwise(y, graph::Pointwise_attributes().set_mode(fe::PointwiseMode_t::RELU_FWD));
  }
  describe(y, c.y, kY, "y");
  return y;
}

Tensor addBackwardInput(graph::Graph& g, const Conv2d& c) {
  const Tensor dy = input(g, c.y, kY, "dy"), w = input(g, c.w, kW, "w");
  Tensor dx = g.conv_dgrad(dy, w, attributesOf<graph::Conv_dgrad_attributes>(c.shape));
  describe(dx, c.x, kX, "dx");
  return dx;
}

Tensor addBackwardWeight(graph::Graph& g, const Conv2d& c) {
  const Tensor dy = input(g, c.y, kY, "dy"), x = input(g, c.x, kX, "x");
  Tensor dw = g.conv_wgrad(dy, x, attributesOf<graph::Conv_wgrad_attributes>(c.shape));
  describe(dw, c.w, kW, "dw");
  return dw;
}

// Engines that are never taken: those that may give other bits another time, sum in half precision,
// or spread an error over whole images (FFT, large tiles of Winograd's); and for plain float32
// those that round its operands.
std::vector<fe::NumericalNote_t> refusedNotes(const Conv2d& c) {
  using Note = fe::NumericalNote_t;
  std::vector<Note> notes = {Note::NONDETERMINISTIC, Note::REDUCED_PRECISION_REDUCTION, Note::FFT,
                             Note::WINOGRAD_TILE_6x6, Note::WINOGRAD_TILE_13x13};
  if (c.dtype == DType::float32 && !c.tf32) {
    notes.push_back(Note::TENSOR_CORE);
    notes.push_back(Note::DOWN_CONVERT_INPUTS);
  }
  return notes;
}

void addOperation(graph::Graph& g, const Conv2d& c) {
  const Tensor result = c.op == Conv2dOp::forward         ? addForward(g, c)
                        : c.op == Conv2dOp::backwardInput ? addBackwardInput(g, c)
                                                          : addBackwardWeight(g, c);
  result->set_output(true).set_data_type(cudnnType(c.dtype));
}

}  // namespace

int64_t workspaceLimit(const Conv2d& c) {
  const auto bytes = [&](const Conv2dTensor& t) {
    const int64_t channels = (t.size[1] + 7) / 8 * 8;
    return t.size[0] * channels * t.size[2] * t.size[3] * static_cast<int64_t>(itemSize(c.dtype));
  };
  return (int64_t(256) << 20) + bytes(c.x) + bytes(c.y);
}

std::unique_ptr<CudnnPlan> planConv2d(const Conv2d& c, const CudnnTarget& target, int64_t limit,
                                      std::string* reason) {
  const auto add = [&](graph::Graph& g) { addOperation(g, c); };
  return planGraph({c.dtype, add, refusedNotes(c)}, target, limit, reason);
}

void runConv2dPlan(const CudnnPlan& plan, const Conv2d& c, cudnnHandle_t handle, void* workspace) {
  std::unordered_map<int64_t, void*> pointers = {{kX, c.x.data}, {kW, c.w.data}, {kY, c.y.data}};
  if (c.bias) pointers[kBias] = const_cast<void*>(c.bias);
  runPlan(plan, "convolution", std::move(pointers), handle, workspace);
}

}  // namespace adjoint::cuda
