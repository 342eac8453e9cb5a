#include "cuda/conv2d_graph.h"
#include "cuda/cudnn_graph.h"

namespace adjoint::cuda {
namespace {

namespace fe = cudnn_frontend;
namespace graph = cudnn_frontend::graph;
using Tensor = std::shared_ptr<graph::Tensor_attributes>;

fe::DataType_t dataType(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return fe::DataType_t::FLOAT;
    case DType::float64:
      return fe::DataType_t::DOUBLE;
    case DType::bfloat16:
      return fe::DataType_t::BFLOAT16;
    case DType::float16:
      return fe::DataType_t::HALF;
    default:
      fail(ErrorKind::dtype, "conv2d: expected a floating dtype, got %s", dtypeName(dtype));
  }
}

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

fe::error_t build(graph::Graph& g, const Conv2d& c, const Conv2dTarget& target, int64_t limit) {
  const fe::DataType_t computed =
      c.dtype == DType::float64 ? fe::DataType_t::DOUBLE : fe::DataType_t::FLOAT;
  g.set_io_data_type(dataType(c.dtype))
      .set_intermediate_data_type(computed)
      .set_compute_data_type(computed);
  g.set_sm_version(target.capability);
  if (!target.handle) {
    auto properties = std::make_shared<fe::DeviceProperties>();
    const std::vector<uint8_t> json(target.properties.begin(), target.properties.end());
    if (auto status = properties->deserialize(json); status.is_bad()) return status;
    g.set_device_properties(properties);
  }
#if CUDNN_FRONTEND_VERSION >= 13200
  // Plans are never destroyed, so a captured graph need not hold them.
  g.set_cuda_graph_retention(fe::CudaGraphRetention_t::NONE);
#endif
  const Tensor result = c.op == Conv2dOp::forward         ? addForward(g, c)
                        : c.op == Conv2dOp::backwardInput ? addBackwardInput(g, c)
                                                          : addBackwardWeight(g, c);
  result->set_output(true).set_data_type(dataType(c.dtype));
  if (auto status = g.validate(); status.is_bad()) return status;
  auto status = target.handle ? g.build_operation_graph(target.handle) : g.build_operation_graph();
  if (status.is_bad()) return status;
  status = g.create_execution_plans({fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK});
  if (status.is_bad()) return status;
  g.deselect_numeric_notes(refusedNotes(c)).deselect_workspace_greater_than(limit);
  if (status = g.check_support(); status.is_bad()) return status;
  return g.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE);
}

}  // namespace

int64_t workspaceLimit(const Conv2d& c) {
  const auto bytes = [&](const Conv2dTensor& t) {
    const int64_t channels = (t.size[1] + 7) / 8 * 8;
    return t.size[0] * channels * t.size[2] * t.size[3] * static_cast<int64_t>(itemSize(c.dtype));
  };
  return (int64_t(256) << 20) + bytes(c.x) + bytes(c.y);
}

std::unique_ptr<Conv2dPlan> planConv2d(const Conv2d& c, const Conv2dTarget& target, int64_t limit,
                                       std::string* reason) {
  cudnnLibrary();
  auto g = std::make_shared<graph::Graph>();
  // The front end throws where this version of cuDNN lacks a function.
  try {
    fe::error_t status = build(*g, c, target, limit);
    auto plan = std::make_unique<Conv2dPlan>();
    if (status.is_good()) status = g->get_plan_name(plan->engine);
    if (status.is_good()) {
      plan->workspaceBytes = static_cast<size_t>(g->get_workspace_size());
      plan->candidates = g->get_execution_plan_count();
      plan->graph = g;
      return plan;
    }
    *reason = status.get_message();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    *reason = error.what();
  }
  return nullptr;
}

void runConv2dPlan(const Conv2dPlan& plan, const Conv2d& c, cudnnHandle_t handle, void* workspace) {
  std::unordered_map<int64_t, void*> pointers = {{kX, c.x.data}, {kW, c.w.data}, {kY, c.y.data}};
  if (c.bias) pointers[kBias] = const_cast<void*>(c.bias);
  std::string reason;
  try {
    fe::error_t status =
        static_cast<graph::Graph*>(plan.graph.get())->execute(handle, pointers, workspace);
    if (status.is_good()) return;
    reason = status.get_message();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  fail(ErrorKind::device, "cudnn: convolution: %s", reason.c_str());
}

}  // namespace adjoint::cuda
