// Convolutions as cuDNN's graphs, and the plans that run them: also for devices that are not here.
#pragma once
#include <memory>
#include <string>

#include "cuda/conv2d.h"
#include "cuda/cudnn_plan.h"

namespace adjoint::cuda {

// The most that a plan may ask for: 256 MiB and what copies of both images take, which plans for
// tensor cores may make, in another order of axes and with their channels padded to eight.
int64_t workspaceLimit(const Conv2d& c);

// nullptr where cuDNN has no plan for it within the workspace, with its reason. Every plan gives
// the same bits each time, and sums in float32 or wider. Locked by the caller (cudnnMutex).
std::unique_ptr<CudnnPlan> planConv2d(const Conv2d& c, const CudnnTarget& target, int64_t limit,
                                      std::string* reason);
// Queues it on the handle's stream.
void runConv2dPlan(const CudnnPlan& plan, const Conv2d& c, cudnnHandle_t handle, void* workspace);

}  // namespace adjoint::cuda
