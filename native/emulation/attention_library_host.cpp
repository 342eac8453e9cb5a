// The twin of native/cuda/attention_cudnn.cpp: there is no library, so that the kernels run.
#include "cuda/attention.h"
#include "emulation/emulation.h"

namespace adjoint {

std::atomic<bool> emulation::lastAttentionWasDeterministic{false};

namespace cuda {

bool attentionByLibrary(const View&, const View&, const View&, const View&, const View&, double,
                        bool) {
  return false;
}

bool attentionBackwardByLibrary(const backend::AttentionBackwardArgs&, const View&,
                                bool isDeterministic) {
  emulation::lastAttentionWasDeterministic = isDeterministic;
  return false;
}

}  // namespace cuda
}  // namespace adjoint
