// Fused attention as cuDNN's graphs, and the plans that run them: also for devices that are not
// here.
#pragma once
#include <memory>
#include <string>

#include "cuda/attention.h"
#include "cuda/cudnn_handle.h"

namespace adjoint::cuda {

// Sizes and strides of [B, H, T, columns].
struct AttentionTensor {
  void* data;
  int64_t size[4], stride[4];
};

// Of a backward pass also dy and the gradients.
struct FusedAttention {
  bool isBackward;
  DType dtype;
  AttentionTensor q, k, v, y, dy, dq, dk, dv;
  void* lse;  // dense float32 [B, H, Tq]
  float scale;
  bool isCausal;
};

struct AttentionPlan {
  size_t workspaceBytes;
  std::string engine;           // that was taken: its number and settings
  std::shared_ptr<void> graph;  // of cudnn-frontend
};

// What a plan is made for: the device of a handle, or one described by JSON
// (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION).
struct AttentionTarget {
  int capability;  // 90 for 9.0
  cudnnHandle_t handle;
  std::string properties;
};

// nullptr where cuDNN has no plan for it within the workspace, with its reason. Every plan gives
// the same bits each time. Locked by the caller (cudnnMutex).
std::unique_ptr<AttentionPlan> planAttention(const FusedAttention& a, const AttentionTarget& target,
                                             int64_t workspaceLimit, std::string* reason);
// Queues it on the handle's stream.
void runAttentionPlan(const AttentionPlan& plan, const FusedAttention& a, cudnnHandle_t handle,
                      void* workspace);

}  // namespace adjoint::cuda
