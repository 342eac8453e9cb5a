#include <cuda_runtime.h>

#include "cuda/cudnn_handle.h"

// Where cudnn-frontend looks its functions up.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace adjoint::cuda {

const Library& cudnnLibrary() {
  // cuDNN loads the compiler for its fused kernels by name; one that is in the process already is
  // found wherever it lies.
  static const Library* library = [] {
    const std::string major = std::to_string(CUDART_VERSION / 1000);
    static const Library compiler({"libnvrtc.so." + major});
    auto* loaded = new Library({"libcudnn.so.9"});
    cudnn_frontend::cudnn_dlhandle = loaded->handle();
    return loaded;
  }();
  return *library;
}

std::string cudnnVersion() {
  const size_t v = cudnnLibrary().function<size_t()>("cudnnGetVersion")();
  return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." +
         std::to_string(v % 100);
}

std::mutex& cudnnMutex() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

}  // namespace adjoint::cuda
