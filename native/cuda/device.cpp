// The device and its one stream.
#include <atomic>
#include <memory>
#include <string>

#include "contract.h"
#include "cuda/conv2d.h"
#include "cuda/deferred_error.h"
#include "cuda/gemm.h"
#include "cuda/graph.h"
#include "cuda/launch.h"

namespace adjoint {
namespace cuda {
namespace {

struct Device {
  Device() {
    ADJOINT_CUDA(cudaGetDeviceCount(&count));
    ADJOINT_CUDA(cudaGetDeviceProperties(&properties, 0));
    ADJOINT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  int count = 0;
  cudaDeviceProp properties;
  cudaStream_t stream;
};

// Made at first use and never destroyed: at exit the driver may be gone before static objects are.
const Device& device() {
  static const Device* d = new Device;
  return *d;
}

std::atomic<backend::Float32Products> float32ProductsAllowed{backend::Float32Products::highest};

}  // namespace

backend::Float32Products float32Products() {
  return float32ProductsAllowed;
}
cudaStream_t stream() {
  const cudaStream_t redirected = graphStream();
  return redirected ? redirected : device().stream;
}
cudaStream_t mainStream() {
  return device().stream;
}
int multiprocessors() {
  return device().properties.multiProcessorCount;
}
int computeCapability() {
  return 10 * device().properties.major + device().properties.minor;
}

}  // namespace cuda

namespace backend {

const char* name() {
  return "cuda";
}

std::vector<std::pair<std::string, std::string>> deviceInfo() {
  const cudaDeviceProp& p = cuda::device().properties;
  int driver = 0, runtime = 0;
  ADJOINT_CUDA(cudaDriverGetVersion(&driver));
  ADJOINT_CUDA(cudaRuntimeGetVersion(&runtime));
  auto version = [](int v) {
    return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
  };
  return {{"device", p.name},
          {"devices", std::to_string(cuda::device().count)},
          {"computeCapability", std::to_string(p.major) + "." + std::to_string(p.minor)},
          {"multiprocessors", std::to_string(p.multiProcessorCount)},
          {"memoryBytes", std::to_string(p.totalGlobalMem)},
          {"driver", version(driver)},
          {"runtime", version(runtime)},
          {"cublasLt", cuda::gemmLibrary()},
          {"cudnn", cuda::convolutionLibrary()}};
}

// The device's own threads are not counted or set; the host queues work with one.
int threadCount() {
  return 1;
}
void setThreadCount(int) {}
void setFloat32Products(Float32Products precision) {
  cuda::float32ProductsAllowed = precision;
}

void startup() {
  cuda::stream();
}
// Nobody is left to hear of an error.
void shutdown() {
  cudaStreamSynchronize(cuda::stream());
  cuda::forgetDeferredError();
}
bool canCapture() {
  return true;
}
void synchronize() {
  ADJOINT_CUDA(cudaStreamSynchronize(cuda::stream()));
  cuda::raiseDeferredError();
}

}  // namespace backend
}  // namespace adjoint
