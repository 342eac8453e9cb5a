// Convolutions as cuDNN's graphs, and the plans that run them: also for devices that are not here.
#pragma once
#include <memory>
#include <string>

#include "cuda/conv2d.h"
#include "cuda/cudnn_handle.h"

namespace adjoint::cuda {

struct Conv2dPlan {
  size_t workspaceBytes;
  int64_t candidates;           // that cuDNN proposed
  std::string engine;           // that was taken: its number and settings
  std::shared_ptr<void> graph;  // of cudnn-frontend
};

// What a plan is made for: the device of a handle, or one described by JSON
// (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION).
struct Conv2dTarget {
  int capability;  // 90 for 9.0
  cudnnHandle_t handle;
  std::string properties;
};

// The most that a plan may ask for: 256 MiB and what copies of both images take, which plans for
// tensor cores may make, in another order of axes and with their channels padded to eight.
int64_t workspaceLimit(const Conv2d& c);

// nullptr where cuDNN has no plan for it within the workspace, with its reason. Every plan gives
// the same bits each time, and sums in float32 or wider. Locked by the caller (cudnnMutex).
std::unique_ptr<Conv2dPlan> planConv2d(const Conv2d& c, const Conv2dTarget& target, int64_t limit,
                                       std::string* reason);
// Queues it on the handle's stream.
void runConv2dPlan(const Conv2dPlan& plan, const Conv2d& c, cudnnHandle_t handle, void* workspace);

}  // namespace adjoint::cuda
