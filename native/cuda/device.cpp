// The devices and the one stream of each.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>

#include "contract.h"
#include "cuda/conv2d.h"
#include "cuda/cuda_kernel.h"
#include "cuda/deferred_error.h"
#include "cuda/gemm.h"
#include "cuda/graph.h"
#include "cuda/launch.h"
#include "cuda/per_device.h"

namespace adjoint {
namespace cuda {
namespace {

struct Device {
  // CUDA is at this device already.
  explicit Device(int index) : index(index) {
    ADJOINT_CUDA(cudaGetDeviceProperties(&properties, index));
    ADJOINT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  const int index;
  cudaDeviceProp properties;
  cudaStream_t stream;
};

// Made at first use and never destroyed: at exit the driver may be gone before static objects are.
std::atomic<const Device*> opened[kMostDevices];
std::mutex opening;

// Where CUDA is in this thread; nullptr before its first call.
thread_local const Device* current = nullptr;

void open(int index) {
  std::lock_guard<std::mutex> lock(opening);
  if (opened[index]) return;
  try {
    ADJOINT_CUDA(cudaSetDevice(index));
    opened[index] = new Device(index);
  } catch (const Error&) {
    if (current) cudaSetDevice(current->index);
    throw;
  }
}

void turnTo(int index) {
  if (index < 0 || index >= kMostDevices || !opened[index]) {
    const int count = backend::deviceCount();
    if (index < 0 || index >= count) {
      fail(ErrorKind::device, "cuda: expected a device below %d, got %d", count, index);
    }
    open(index);
  }
  ADJOINT_CUDA(cudaSetDevice(index));
  current = opened[index];
}

const Device& device() {
  if (!current) turnTo(0);
  return *current;
}

std::atomic<backend::Float32Products> float32ProductsAllowed{backend::Float32Products::highest};
std::atomic<bool> areAlgorithmsDeterministic{false};

}  // namespace

backend::Float32Products float32Products() {
  return float32ProductsAllowed;
}
bool deterministicAlgorithms() {
  return areAlgorithmsDeterministic;
}
int currentDevice() {
  return device().index;
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
          {"devices", std::to_string(deviceCount())},
          {"computeCapability", std::to_string(p.major) + "." + std::to_string(p.minor)},
          {"multiprocessors", std::to_string(p.multiProcessorCount)},
          {"memoryBytes", std::to_string(p.totalGlobalMem)},
          {"driver", version(driver)},
          {"runtime", version(runtime)},
          {"cublasLt", cuda::gemmLibrary()},
          {"cudnn", cuda::convolutionLibrary()},
          {"nvrtc", cuda::kernelCompiler()}};
}

// The device's own threads are not counted or set; the host queues work with one.
int threadCount() {
  return 1;
}
void setThreadCount(int) {}
void setFloat32Products(Float32Products precision) {
  cuda::float32ProductsAllowed = precision;
}
void setDeterministicAlgorithms(bool enabled) {
  cuda::areAlgorithmsDeterministic = enabled;
}

int deviceCount() {
  int count = 0;
  ADJOINT_CUDA(cudaGetDeviceCount(&count));
  return std::min(count, cuda::kMostDevices);
}
void useDevice(int index) {
  if (!cuda::current || cuda::current->index != index) cuda::turnTo(index);
}

// Devices are opened when they are first named, so that one that nobody uses has no context.
void startup() {
  if (deviceCount() == 0) fail(ErrorKind::device, "cuda: expected a device, got none");
}
// Nobody is left to hear of an error.
void shutdown() {
  const cuda::Device* before = cuda::current;
  for (const auto& device : cuda::opened) {
    if (!device) continue;
    useDevice(device.load()->index);
    cudaStreamSynchronize(cuda::stream());
    cuda::forgetDeferredError();
  }
  if (before) useDevice(before->index);
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
