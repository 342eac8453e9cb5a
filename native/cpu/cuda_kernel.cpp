// contract.h's kernels of a user: CUDA C++, of which there is no other form for a processor.
#include "contract.h"

namespace adjoint::backend {

int compileCudaKernel(const std::string&, const std::string&, const std::vector<std::string>&) {
  fail(ErrorKind::device, "cudaKernel: expected tensors on a CUDA device, got cpu");
}

void launchCudaKernel(int, const CudaKernelLaunch&, const std::vector<CudaKernelArgument>&) {
  fail(ErrorKind::device, "cudaKernel: expected tensors on a CUDA device, got cpu");
}

}  // namespace adjoint::backend
