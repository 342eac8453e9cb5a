// contract.h's kernels of a user: compiled once for each text, and launched with what they take.
#include "cuda/cuda_kernel.h"

#include <map>
#include <memory>
#include <mutex>

#include "cuda/per_device.h"

namespace adjoint {
namespace cuda {
namespace {

// One device's kernels, of all threads.
class Kernels {
 public:
  int compile(const std::string& source, const std::string& name,
              const std::vector<std::string>& options) {
    std::vector<std::string> key = {source, name};
    key.insert(key.end(), options.begin(), options.end());
    // Held while it compiles, so that two threads do not compile one text.
    std::lock_guard<std::mutex> lock(mutex_);
    if (const auto found = numbers_.find(key); found != numbers_.end()) return found->second;
    auto kernel =
        std::make_unique<CompiledKernel>(compileKernel(source, name, options, computeCapability()));
    kernels_.push_back({name, std::move(kernel)});
    return numbers_[key] = static_cast<int>(kernels_.size()) - 1;
  }
  struct Entry {
    std::string name;
    std::unique_ptr<const CompiledKernel> kernel;
  };
  // The name is a copy: the list may grow meanwhile.
  std::pair<std::string, const CompiledKernel*> at(int number) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (number < 0 || static_cast<size_t>(number) >= kernels_.size()) {
      fail(ErrorKind::internal, "cudaKernel: expected a kernel's number, got %d", number);
    }
    const Entry& entry = kernels_[static_cast<size_t>(number)];
    return {entry.name, entry.kernel.get()};
  }

 private:
  std::mutex mutex_;
  std::map<std::vector<std::string>, int> numbers_;
  std::vector<Entry> kernels_;
};

PerDevice<Kernels> compiledKernels;

}  // namespace
}  // namespace cuda

int backend::compileCudaKernel(const std::string& source, const std::string& name,
                               const std::vector<std::string>& options) {
  return cuda::compiledKernels.get().compile(source, name, options);
}

void backend::launchCudaKernel(int number, const CudaKernelLaunch& launch,
                               const std::vector<CudaKernelArgument>& arguments) {
  const auto [name, kernel] = cuda::compiledKernels.get().at(number);
  // CUDA reads as many values as the kernel has parameters, whatever it is given.
  const std::vector<size_t>& expected = kernel->parameterBytes;
  if (arguments.size() != expected.size()) {
    fail(ErrorKind::argument, "cudaKernel: expected the %zu parameters of %s, got %zu",
         expected.size(), name.c_str(), arguments.size());
  }
  std::vector<CudaKernelArgument> values = arguments;
  std::vector<void*> parameters;
  for (size_t i = 0; i < values.size(); i++) {
    if (values[i].bytes != expected[i]) {
      fail(ErrorKind::argument,
           "cudaKernel: expected parameter %zu of %s to have %zu bytes, got %zu", i, name.c_str(),
           expected[i], values[i].bytes);
    }
    parameters.push_back(values[i].value);
  }
  if (launch.grid[0] == 0 || launch.grid[1] == 0 || launch.grid[2] == 0) return;
  cuda::queueKernel(*kernel, launch, parameters.data(), cuda::stream());
}

}  // namespace adjoint
