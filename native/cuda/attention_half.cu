// Attention of 16-bit types on tensor cores.
#include "cuda/attention_mma_half.h"
#include "cuda/attention_mma_kernels.h"

namespace adjoint::cuda {

template <class S>
bool attentionOnTensorCores(const ForwardOperands<S>& a) {
  return computeCapability() >= kMmaCapability && launchMma<HalfMma<S>>(a);
}

template <class S>
bool attentionBackwardOnTensorCores(const BackwardOperands<S>& a) {
  return computeCapability() >= kMmaCapability && launchMmaBackward<HalfMma<S>>(a);
}

template bool attentionOnTensorCores(const ForwardOperands<BFloat16>&);
template bool attentionOnTensorCores(const ForwardOperands<Float16>&);
template bool attentionBackwardOnTensorCores(const BackwardOperands<BFloat16>&);
template bool attentionBackwardOnTensorCores(const BackwardOperands<Float16>&);

}  // namespace adjoint::cuda
