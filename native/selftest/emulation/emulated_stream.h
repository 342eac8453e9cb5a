// A stream of the emulated device, with the threads of a block in each order.
#pragma once
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <string>

#include "cuda/launch.h"
#include "emulation/emulation.h"

namespace adjoint::test {

using emulation::ThreadOrder;

class EmulatedStream : public ::testing::TestWithParam<ThreadOrder> {
 protected:
  void SetUp() override {
    emulation::setThreadOrder(GetParam());
    ADJOINT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  void TearDown() override {
    emulation::clearError();
    cudaStreamDestroy(stream);
    emulation::setThreadOrder(ThreadOrder::forward);
  }
  template <class T>
  T* deviceArray(size_t n) {
    void* p = nullptr;
    ADJOINT_CUDA(cudaMalloc(&p, n * sizeof(T)));
    return static_cast<T*>(p);
  }
  // Runs what is queued; the message of the failure, or "".
  std::string run() {
    const cudaError_t status = cudaStreamSynchronize(stream);
    return status == cudaSuccess ? "" : cudaGetErrorString(status);
  }
  cudaStream_t stream = nullptr;
};

}  // namespace adjoint::test
