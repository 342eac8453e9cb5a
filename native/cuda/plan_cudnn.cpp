#include "cuda/cudnn_graph.h"

namespace adjoint::cuda {
namespace {

namespace fe = cudnn_frontend;
namespace graph = cudnn_frontend::graph;

fe::error_t build(graph::Graph& g, const CudnnGraph& description, const CudnnTarget& target,
                  int64_t workspaceLimit) {
  const fe::DataType_t computed = cudnnType(computeDType(description.dtype));
  g.set_io_data_type(cudnnType(description.dtype))
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
  description.addOperations(g);
  if (auto status = g.validate(); status.is_bad()) return status;
  auto status = target.handle ? g.build_operation_graph(target.handle) : g.build_operation_graph();
  if (status.is_bad()) return status;
  status = g.create_execution_plans({fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK});
  if (status.is_bad()) return status;
  g.deselect_numeric_notes(description.refused).deselect_workspace_greater_than(workspaceLimit);
  if (status = g.check_support(); status.is_bad()) return status;
  return g.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE);
}

}  // namespace

fe::DataType_t cudnnType(DType dtype) {
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
      fail(ErrorKind::dtype, "cudnn: expected a floating dtype, got %s", dtypeName(dtype));
  }
}

std::unique_ptr<CudnnPlan> planGraph(const CudnnGraph& description, const CudnnTarget& target,
                                     int64_t workspaceLimit, std::string* reason) {
  cudnnLibrary();
  auto g = std::make_shared<graph::Graph>();
  // The front end throws where this version of cuDNN lacks a function.
  try {
    fe::error_t status = build(*g, description, target, workspaceLimit);
    auto plan = std::make_unique<CudnnPlan>();
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

void runPlan(const CudnnPlan& plan, const char* what, std::unordered_map<int64_t, void*> pointers,
             cudnnHandle_t handle, void* workspace) {
  std::string reason;
  try {
    fe::error_t status =
        static_cast<graph::Graph*>(plan.graph.get())->execute(handle, pointers, workspace);
    if (status.is_good()) return;
    reason = status.get_message();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  fail(ErrorKind::device, "cudnn: %s: %s", what, reason.c_str());
}

}  // namespace adjoint::cuda
