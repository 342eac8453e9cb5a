#include <cstring>

#include "../call.h"
#include "shared/convert.h"

namespace adjoint {
namespace {

constexpr int64_t kMostTensors = 64, kMostScalars = 64;

int64_t count(Call& c, int64_t most) {
  const int64_t n = c.integer();
  if (n < 0 || n > most) fail(ErrorKind::internal, "cudaKernel: expected a count");
  return n;
}

backend::CudaKernelArgument addressOf(const View& x) {
  if (!x.isContiguous()) fail(ErrorKind::internal, "cudaKernel: expected contiguous tensors");
  backend::CudaKernelArgument argument{sizeof x.data, {}};
  std::memcpy(argument.value, &x.data, sizeof x.data);
  return argument;
}

unsigned extent(Call& c) {
  const int64_t n = c.integer();
  if (n < 0 || n > 0x7fffffff) fail(ErrorKind::internal, "cudaKernel: expected a size");
  return static_cast<unsigned>(n);
}

// The numbers of tensors read and made, these, the kernel, its grid, block and bytes of shared
// memory, and numbers, each with its dtype before it. The kernel's parameters are the tensors read,
// those made, and the numbers.
const Family family({
    {"cudaKernel",
     [](Call& c) {
       const int64_t inputs = count(c, kMostTensors), outputs = count(c, kMostTensors);
       std::vector<backend::CudaKernelArgument> arguments;
       for (int64_t i = 0; i < inputs; i++) arguments.push_back(addressOf(c.input()));
       for (int64_t i = 0; i < outputs; i++) arguments.push_back(addressOf(c.output()));
       const int64_t kernel = c.integer();
       backend::CudaKernelLaunch launch;
       for (unsigned& n : launch.grid) n = extent(c);
       for (unsigned& n : launch.block) n = extent(c);
       launch.sharedBytes = extent(c);
       for (int64_t left = count(c, kMostScalars); left > 0; left--) {
         const DType dtype = c.dtype();
         const Operand number = c.operand();
         if (!number.isScalar) fail(ErrorKind::internal, "cudaKernel: expected a number");
         backend::CudaKernelArgument argument{itemSize(dtype), {}};
         storeScalar(argument.value, dtype, number.scalar);
         arguments.push_back(argument);
       }
       if (kernel < 0 || kernel > 0x7fffffff) {
         fail(ErrorKind::internal, "cudaKernel: expected a kernel's number");
       }
       backend::launchCudaKernel(static_cast<int>(kernel), launch, arguments);
     }},
});

}  // namespace
}  // namespace adjoint
