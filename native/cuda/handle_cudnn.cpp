#include "cuda/cudnn_handle.h"
#include "cuda/per_device.h"

namespace adjoint::cuda {

cudnnHandle_t cudnnHandle(cudaStream_t stream) {
  struct Context {
    cudnnHandle_t handle = nullptr;
    cudaStream_t stream = nullptr;
  };
  static PerDevice<Context> contexts;
  Context& context = contexts.get();
  const auto check = [](cudnnStatus_t status, const char* call) {
    if (status != CUDNN_STATUS_SUCCESS) {
      const auto describe =
          cudnnLibrary().function<const char*(cudnnStatus_t)>("cudnnGetErrorString");
      fail(ErrorKind::device, "cudnn: %s: %s", call, describe(status));
    }
  };
  if (!context.handle) {
    const auto create = cudnnLibrary().function<cudnnStatus_t(cudnnHandle_t*)>("cudnnCreate");
    check(create(&context.handle), "cudnnCreate");
  }
  if (context.stream != stream) {
    const auto set =
        cudnnLibrary().function<cudnnStatus_t(cudnnHandle_t, cudaStream_t)>("cudnnSetStream");
    check(set(context.handle, stream), "cudnnSetStream");
    context.stream = stream;
  }
  return context.handle;
}

}  // namespace adjoint::cuda
