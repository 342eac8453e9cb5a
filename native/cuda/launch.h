// Checked CUDA calls and kernel launches, the same under nvcc and under native/emulation.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "shared/error.h"
#include "shared/host_device.h"

// An array in a block's shared memory, and the one whose size is given at the launch; the emulation
// brings its own, with red zones.
#ifndef ADJOINT_SHARED
#define ADJOINT_SHARED(T, name, count) __shared__ T name[count]
#define ADJOINT_DYNAMIC_SHARED(T, name)                        \
  extern __shared__ __align__(16) unsigned char name##Bytes[]; \
  T* const name = reinterpret_cast<T*>(name##Bytes)
#endif

// Device code: kernels call these helpers, the host never does.
#define ADJOINT_DEVICE __device__ __forceinline__

// In front of a loop over a thread's own array, which lies in registers only if all indices are
// constants.
#ifdef __CUDACC__
#define ADJOINT_UNROLL _Pragma("unroll")
#define ADJOINT_ROLLED _Pragma("unroll 1")
#else
#define ADJOINT_UNROLL
#define ADJOINT_ROLLED
#endif

// How many blocks a multiprocessor is to have room for, in __launch_bounds__. Before compute
// capability 9.0 ptxas puts a value or two aside to make room for more of them, unless it is told
// what will do.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define ADJOINT_ROOM_FOR(blocks) blocks
#else
#define ADJOINT_ROOM_FOR(blocks) 0
#endif

namespace adjoint::cuda {

inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) {
    fail(ErrorKind::device, "cuda: %s: %s", call, cudaGetErrorString(status));
  }
}
#define ADJOINT_CUDA(call) ::adjoint::cuda::check((call), #call)

// The one stream that all work of the current device goes through (device.cpp), or that of the
// graph that this thread makes (graph.h).
cudaStream_t stream();
// Always the one stream.
cudaStream_t mainStream();
// Of the current device.
int multiprocessors();
int computeCapability();  // 90 for 9.0
// What backend::setDeterministicAlgorithms was last given (device.cpp).
bool deterministicAlgorithms();

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

constexpr int64_t ceilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Blocks for a grid-stride loop over n items: enough to fill the device, no more.
inline unsigned gridFor(int64_t n, int64_t itemsPerBlock) {
  const int64_t blocks = ceilDiv(n, itemsPerBlock), most = int64_t(multiprocessors()) * 16;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

// What a kernel has of shared memory without asking for more; devices of compute capability 8.0 and
// up give it 99 KiB at least.
constexpr size_t kSharedBytes = size_t(48) << 10;

template <class... Parameters, class... Arguments>
void launch(dim3 grid, dim3 block, size_t sharedBytes, cudaStream_t stream,
            void (*kernel)(Parameters...), const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = sharedBytes;
  config.stream = stream;
  if (sharedBytes > kSharedBytes) {
    ADJOINT_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                      cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(sharedBytes)));
  }
  ADJOINT_CUDA(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

}  // namespace adjoint::cuda
