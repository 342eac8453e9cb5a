// What NVRTC makes of a user's source; needs no device (cuda_kernel_nvrtc.cpp).
#pragma once
#include <string>
#include <vector>

namespace adjoint::cuda {

struct KernelImage {
  std::string code;  // machine code, or PTX where NVRTC is older than the device
  bool isMachineCode;
  std::string symbol;  // of the kernel, mangled
};
KernelImage compileImage(const std::string& source, const std::string& name,
                         const std::vector<std::string>& options, int capability);

}  // namespace adjoint::cuda
