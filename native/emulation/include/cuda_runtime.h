// The part of the CUDA runtime that native/cuda uses, for g++ and a machine without CUDA: what
// follows are NVIDIA's names and signatures, our implementation. A stream is a queue: work runs
// only when somebody waits for it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

#include "emulation/atomics.h"
#include "emulation/block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

using adjoint::emulation::dim3;
using adjoint::emulation::uint3;

// ---------------------------------------------------------------- host side

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorIllegalState = 401,
  cudaErrorNotReady = 600,
  cudaErrorPeerAccessAlreadyEnabled = 704,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3
};
constexpr unsigned cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDefault = 0;
constexpr unsigned cudaEventBlockingSync = 1;
constexpr unsigned cudaEventDisableTiming = 2;
constexpr unsigned cudaHostAllocDefault = 0;
constexpr unsigned cudaHostAllocMapped = 2;

using cudaStream_t = struct EmulatedStream*;
using cudaEvent_t = struct EmulatedEvent*;
using cudaGraph_t = struct EmulatedGraph*;
using cudaGraphExec_t = struct EmulatedGraphExec*;
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2
};

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int multiProcessorCount, major, minor;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

const char* cudaGetErrorString(cudaError_t error);
// ADJOINT_EMULATION_DEVICES, 1 without it. Fails with the message in ADJOINT_EMULATION_ERROR, as
// where the driver finds no device.
cudaError_t cudaGetDeviceCount(int* count);
// A launch goes to a stream of this thread's current device alone, and only copies between devices
// touch the memory of another one (device_guard.h).
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer);
// Lets kernels touch no more than before: ours never do.
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags);
// Errors are not kept here, but for those of kernels, which stay.
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMalloc(void** pointer, size_t bytes);
// Waits for all streams, as CUDA's does.
cudaError_t cudaFree(void* pointer);
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* pointer);
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
// At most 99 KiB, as on the smallest of the devices that have tensor cores for float32.
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value);
// Reads and writes host memory only when the stream gets there, as from pinned memory.
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemcpyPeerAsync(void* target, int targetDevice, const void* source,
                                int sourceDevice, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* argument);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
// cudaErrorNotReady until the stream has got there; it does not go on by itself.
cudaError_t cudaEventQuery(cudaEvent_t event);
// Between two that have been reached, and were made to be timed.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);
// While a stream is captured, what is queued on it goes to a graph and does not run; waiting for
// the stream, or for an event of it, spoils the capture. Copies from and to the host are taken
// where the host's memory is cudaHostAlloc's.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags);
// One piece of work of the stream, however much the graph has.
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

namespace adjoint::emulation {

// Owns the arguments of a queued launch until it has run.
struct QueuedKernel {
  virtual ~QueuedKernel() = default;
  virtual void run() = 0;
};
// Takes over `queued`, which is not there under the null runtime (emulation.h). `function`: the
// kernel, where cudaFuncSetAttribute may have been told of it.
cudaError_t enqueueKernel(const cudaLaunchConfig_t& config, QueuedKernel* queued,
                          const void* function = nullptr);
extern bool isNullRuntime;

template <class... Parameters>
struct BoundKernel final : QueuedKernel {
  BoundKernel(void (*kernel)(Parameters...), Parameters... arguments)
      : kernel(kernel), arguments(arguments...) {}
  void run() override { std::apply(kernel, arguments); }
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> arguments;
};

}  // namespace adjoint::emulation

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  using Bound = adjoint::emulation::BoundKernel<Parameters...>;
  return adjoint::emulation::enqueueKernel(
      *config,
      adjoint::emulation::isNullRuntime ? nullptr
                                        : new Bound(kernel, std::forward<Arguments>(arguments)...),
      reinterpret_cast<const void*>(kernel));
}

// ---------------------------------------------------------------- device side

using adjoint::emulation::blockDim;
using adjoint::emulation::blockIdx;
using adjoint::emulation::gridDim;
using adjoint::emulation::threadIdx;

// In place of `__shared__ T name[count]`, which has no meaning here: see native/cuda/launch.h.
#define ADJOINT_SHARED(T, name, count)                         \
  static ::adjoint::emulation::SharedArray name##Array{#name}; \
  T* const name = static_cast<T*>(                             \
      ::adjoint::emulation::sharedMemory(name##Array, sizeof(T) * (count), alignof(T)))

#define ADJOINT_DYNAMIC_SHARED(T, name) \
  T* const name = static_cast<T*>(::adjoint::emulation::dynamicSharedMemory())

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  adjoint::emulation::barrier({file, line});
}
inline void __syncwarp(unsigned mask = ~0u, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
  adjoint::emulation::warp(adjoint::emulation::WarpOp::sync, mask, 0, 0, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
  return static_cast<unsigned>(adjoint::emulation::warp(adjoint::emulation::WarpOp::ballot, mask,
                                                        predicate != 0, 0, {file, line}));
}
// `width` cuts the warp into parts; a source outside the caller's part gives the caller's value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const unsigned part = adjoint::emulation::lane() & ~(width - 1u);
  return adjoint::emulation::shuffle(mask, value, part + (source & (width - 1)), {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32,
                  const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const unsigned lane = adjoint::emulation::lane(), source = lane ^ distance;
  const bool outside = source >= (lane & ~(width - 1u)) + width;
  return adjoint::emulation::shuffle(mask, value, outside ? lane : source, {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                   const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const unsigned lane = adjoint::emulation::lane(), source = lane + distance;
  const bool outside = source >= (lane & ~(width - 1u)) + width;
  return adjoint::emulation::shuffle(mask, value, outside ? lane : source, {file, line});
}
