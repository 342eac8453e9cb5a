// Fused attention as cuDNN's graphs, and the plans that run them: also for devices that are not
// here.
#pragma once
#include <memory>
#include <string>

#include "cuda/attention.h"
#include "cuda/cudnn_plan.h"

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
  bool isDeterministic;  // of a backward pass: the same bits each time
};

// What tells the plans apart, whatever the addresses.
std::string attentionPlanKey(const FusedAttention& a);
// nullptr where cuDNN has no plan for it within the workspace, with its reason. A backward pass
// that need not be deterministic adds dq atomically, every other plan gives the same bits each
// time. Locked by the caller (cudnnMutex).
std::unique_ptr<CudnnPlan> planAttention(const FusedAttention& a, const CudnnTarget& target,
                                         int64_t workspaceLimit, std::string* reason);
// Queues it on the handle's stream.
void runAttentionPlan(const CudnnPlan& plan, const FusedAttention& a, cudnnHandle_t handle,
                      void* workspace);

}  // namespace adjoint::cuda
