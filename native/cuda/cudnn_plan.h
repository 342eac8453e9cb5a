// Plans of cuDNN's graphs, as whoever keeps them sees them.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "cuda/cudnn_handle.h"

namespace adjoint::cuda {

struct CudnnPlan {
  size_t workspaceBytes;
  int64_t candidates;           // that cuDNN proposed
  std::string engine;           // that was taken: its number and settings
  std::shared_ptr<void> graph;  // of cudnn-frontend
};

// What a plan is made for: the device of a handle, or one described by JSON
// (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION).
struct CudnnTarget {
  int capability;  // 90 for 9.0
  cudnnHandle_t handle;
  std::string properties;
};

}  // namespace adjoint::cuda
