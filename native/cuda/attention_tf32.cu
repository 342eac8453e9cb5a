// Attention of float32 on tensor cores: three products in TF32 for each of float32, or one where
// setFloat32Products allows it.
#include "cuda/attention_mma_kernels.h"
#include "cuda/attention_mma_tf32.h"
#include "cuda/gemm.h"

namespace adjoint::cuda {

template <class S>
bool attentionOnTensorCores(const ForwardOperands<S>& a) {
  if (computeCapability() < kMmaCapability) return false;
  const bool isExact = float32Products() == backend::Float32Products::highest;
  return isExact ? launchMma<Tf32Mma<3>>(a) : launchMma<Tf32Mma<1>>(a);
}

template <class S>
bool attentionBackwardOnTensorCores(const BackwardOperands<S>& a) {
  if (computeCapability() < kMmaCapability) return false;
  const bool isExact = float32Products() == backend::Float32Products::highest;
  return isExact ? launchMmaBackward<Tf32Mma<3>>(a) : launchMmaBackward<Tf32Mma<1>>(a);
}

template bool attentionOnTensorCores(const ForwardOperands<float>&);
template bool attentionBackwardOnTensorCores(const BackwardOperands<float>&);

}  // namespace adjoint::cuda
