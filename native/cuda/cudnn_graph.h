// NVIDIA's cudnn-frontend, which makes cuDNN's graphs, and what all graphs of ours share; its
// functions are those of cudnnLibrary(). The header takes long to compile.
#pragma once
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include <functional>
#include <unordered_map>
#include <vector>

#include "cuda/cudnn_plan.h"
#include "shared/dtype.h"

namespace adjoint::cuda {

cudnn_frontend::DataType_t cudnnType(DType dtype);

// A graph of `dtype`, which is computed in float32 or wider.
struct CudnnGraph {
  DType dtype;
  std::function<void(cudnn_frontend::graph::Graph&)> addOperations;
  std::vector<cudnn_frontend::NumericalNote_t> refused;  // engines that are never taken
};

// nullptr where cuDNN has no plan for it within the workspace, with its reason. Locked by the
// caller (cudnnMutex).
std::unique_ptr<CudnnPlan> planGraph(const CudnnGraph& g, const CudnnTarget& target,
                                     int64_t workspaceLimit, std::string* reason);
// Queues it on the handle's stream; errors name `what`.
void runPlan(const CudnnPlan& plan, const char* what, std::unordered_map<int64_t, void*> pointers,
             cudnnHandle_t handle, void* workspace);

}  // namespace adjoint::cuda
