// The compiler of users' kernels, behind a seam: NVRTC (cuda_kernel_nvrtc.cpp), or the host's own
// in the emulation.
#pragma once
#include <string>
#include <vector>

#include "contract.h"
#include "cuda/launch.h"

namespace adjoint::cuda {

// The compiler and its version, or why there is none.
std::string kernelCompiler();

// Never unloaded, since queued work and graphs may use it.
struct CompiledKernel {
  const void* function;
  std::vector<size_t> parameterBytes;
};

// For a device of compute capability `capability` (90 for 9.0). Throws an argument error with the
// compiler's log.
CompiledKernel compileKernel(const std::string& source, const std::string& name,
                             const std::vector<std::string>& options, int capability);

// Queues it; `parameters` points to a value for each parameter, which is copied.
void queueKernel(const CompiledKernel& kernel, const backend::CudaKernelLaunch& launch,
                 void** parameters, cudaStream_t stream);

// The log of a compiler as an error.
[[noreturn]] inline void failToCompile(const std::string& name, const std::string& log) {
  throw Error(ErrorKind::argument,
              "cudaKernel: expected " + name + " to compile, got from the compiler:\n" + log);
}

}  // namespace adjoint::cuda
