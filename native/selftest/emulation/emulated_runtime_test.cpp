// The emulated runtime: queues, events, graphs, memory, counts and devices.
#include <functional>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "emulated_stream.h"

namespace adjoint {
namespace {

using cuda::launch;
using emulation::ThreadOrder;

class EmulatedRuntime : public test::EmulatedStream {};
INSTANTIATE_TEST_SUITE_P(Orders, EmulatedRuntime,
                         ::testing::Values(ThreadOrder::forward, ThreadOrder::reverse,
                                           ThreadOrder::shuffled));

__global__ void addKernel(int* y, int value) {
  if (threadIdx.x == 0) *y += value;
}

TEST_P(EmulatedRuntime, workRunsOnlyWhenAwaited) {
  int* y = deviceArray<int>(1);
  int source = 5, target = 0;
  const size_t n = sizeof source;
  ADJOINT_CUDA(cudaMemcpyAsync(y, &source, n, cudaMemcpyHostToDevice, stream));
  launch(1, 32, 0, stream, addKernel, y, 10);
  ADJOINT_CUDA(cudaMemcpyAsync(&target, y, n, cudaMemcpyDeviceToHost, stream));
  EXPECT_EQ(emulation::pendingWork(), 3u);
  EXPECT_EQ(target, 0);
  source = 6;  // as from pinned memory: read when the copy runs
  EXPECT_EQ(run(), "");
  EXPECT_EQ(target, 16);
  EXPECT_NE(cudaMemcpyAsync(&target, y, n, cudaMemcpyHostToDevice, stream), cudaSuccess);
  EXPECT_NE(cudaMemcpyAsync(&target, y, n + 1, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  EXPECT_NE(cudaMemcpyAsync(&target, y, n, cudaMemcpyDeviceToHost, nullptr), cudaSuccess);
  launch(1, 32, 0, stream, addKernel, y, 1);
  ADJOINT_CUDA(cudaFree(y));  // waits for the kernel
  EXPECT_EQ(emulation::pendingWork(), 0u);
  EXPECT_NE(cudaFree(y), cudaSuccess);
}

TEST_P(EmulatedRuntime, eventsOrderStreams) {
  cudaStream_t other;
  cudaEvent_t event;
  ADJOINT_CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
  ADJOINT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  int* y = deviceArray<int>(1);
  int zero = 0, seen = -1;
  ADJOINT_CUDA(cudaMemcpyAsync(y, &zero, sizeof zero, cudaMemcpyHostToDevice, other));
  launch(1, 1, 0, other, addKernel, y, 3);
  ADJOINT_CUDA(cudaEventRecord(event, other));
  launch(1, 1, 0, other, addKernel, y, 100);
  ADJOINT_CUDA(cudaStreamWaitEvent(stream, event, 0));
  ADJOINT_CUDA(cudaMemcpyAsync(&seen, y, sizeof seen, cudaMemcpyDeviceToHost, stream));
  EXPECT_EQ(run(), "");
  EXPECT_EQ(seen, 3) << "the other stream runs up to the event and no further";
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  ADJOINT_CUDA(cudaEventRecord(event, other));
  EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
  ADJOINT_CUDA(cudaEventSynchronize(event));
  EXPECT_EQ(emulation::pendingWork(), 0u);
  ADJOINT_CUDA(cudaStreamSynchronize(other));
  EXPECT_EQ(*y, 103);
  ADJOINT_CUDA(cudaEventDestroy(event));
  ADJOINT_CUDA(cudaStreamDestroy(other));
  ADJOINT_CUDA(cudaFree(y));
}

TEST_P(EmulatedRuntime, graphsRunAgain) {
  int* y = deviceArray<int>(2);
  int* host = nullptr;
  ADJOINT_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&host), sizeof(int), cudaHostAllocDefault));
  const size_t n = sizeof(int);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  launch(1, 1, 0, stream, addKernel, y, -*y);
  ADJOINT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  ADJOINT_CUDA(cudaMemcpyAsync(y + 1, host, n, cudaMemcpyHostToDevice, stream));
  launch(1, 32, 0, stream, addKernel, y, 10);
  emulation::enqueueHost(stream, [y] { *y += y[1]; });
  EXPECT_EQ(emulation::pendingWork(), 1u) << "captured work does not run";
  ADJOINT_CUDA(cudaStreamEndCapture(stream, &graph));
  ADJOINT_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  ADJOINT_CUDA(cudaGraphDestroy(graph));
  ADJOINT_CUDA(cudaGraphLaunch(exec, stream));
  EXPECT_EQ(emulation::pendingWork(), 2u);
  *host = 1;
  EXPECT_EQ(run(), "");
  EXPECT_EQ(*y, 11);
  *host = 2;
  ADJOINT_CUDA(cudaGraphLaunch(exec, stream));
  ADJOINT_CUDA(cudaGraphLaunch(exec, stream));
  ADJOINT_CUDA(cudaGraphExecDestroy(exec));
  EXPECT_EQ(run(), "");
  EXPECT_EQ(*y, 35);
  // What cannot be captured spoils it.
  cudaEvent_t event;
  ADJOINT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  int pageable = 0;
  const std::function<cudaError_t()> spoilers[] = {
      [&] { return cudaStreamSynchronize(stream); }, [&] { return cudaEventRecord(event, stream); },
      [&] { return cudaStreamWaitEvent(stream, event, 0); },
      [&] { return cudaMemcpyAsync(y, &pageable, n, cudaMemcpyHostToDevice, stream); },
      [&] { return cudaMemcpyAsync(&pageable, y, n, cudaMemcpyDeviceToHost, stream); }};
  for (const auto& spoil : spoilers) {
    ADJOINT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    EXPECT_NE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), cudaSuccess);
    EXPECT_EQ(spoil(), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
  }
  EXPECT_NE(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  EXPECT_EQ(run(), "");
  ADJOINT_CUDA(cudaEventDestroy(event));
  ADJOINT_CUDA(cudaFreeHost(host));
  ADJOINT_CUDA(cudaFree(y));
}

TEST_P(EmulatedRuntime, countsWhatItIsAsked) {
  const emulation::CallCounts before = emulation::callCounts();
  void* memory = nullptr;
  int x = 1;
  ADJOINT_CUDA(cudaMalloc(&memory, sizeof x));
  int* y = static_cast<int*>(memory);
  ADJOINT_CUDA(cudaMemcpyAsync(y, &x, sizeof x, cudaMemcpyHostToDevice, stream));
  launch(1, 1, 0, stream, addKernel, y, 2);
  launch(1, 1, 0, stream, addKernel, y, 3);
  emulation::enqueueHost(stream, [] {});
  ADJOINT_CUDA(cudaMemcpyAsync(&x, y, sizeof x, cudaMemcpyDeviceToHost, stream));
  ADJOINT_CUDA(cudaStreamSynchronize(stream));
  const emulation::CallCounts after = emulation::callCounts();
  EXPECT_EQ(x, 6);
  EXPECT_EQ(after.deviceAllocations - before.deviceAllocations, 1u);
  EXPECT_EQ(after.uploads - before.uploads, 1u);
  EXPECT_EQ(after.downloads - before.downloads, 1u);
  EXPECT_EQ(after.kernels - before.kernels, 2u);
  EXPECT_EQ(after.libraryCalls - before.libraryCalls, 1u);
  EXPECT_EQ(after.streamWaits - before.streamWaits, 1u);
  EXPECT_EQ(after.graphs, before.graphs);
  ADJOINT_CUDA(cudaFree(y));
  EXPECT_EQ(emulation::callCounts().frees - before.frees, 1u);
}

TEST_P(EmulatedRuntime, refusesBadLaunchesAndTooMuchMemory) {
  int* y = nullptr;
  EXPECT_THROW(launch(1, 1025, 0, stream, addKernel, y, 1), Error);
  EXPECT_THROW(launch(0, 32, 0, stream, addKernel, y, 1), Error);
  EXPECT_THROW(launch(dim3(1, 65536), 32, 0, stream, addKernel, y, 1), Error);
  EXPECT_THROW(launch(1, 32, 1 << 20, stream, addKernel, y, 1), Error);
  size_t free = 0, total = 0;
  ADJOINT_CUDA(cudaMemGetInfo(&free, &total));
  emulation::setDeviceMemory(emulation::allocatedBytes() + 1000);
  void* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, 1001), cudaErrorMemoryAllocation);
  EXPECT_EQ(p, nullptr);
  EXPECT_EQ(cudaMalloc(&p, 1000), cudaSuccess);
  emulation::setDeviceMemory(total);
  ADJOINT_CUDA(cudaFree(p));
}

__global__ void incrementKernel(int* x) {
  x[threadIdx.x]++;
}

TEST_P(EmulatedRuntime, devicesKeepToTheirMemory) {
  emulation::setDeviceCount(2);
  int* x[2];
  cudaStream_t streams[2];
  for (int device = 0; device < 2; device++) {
    ADJOINT_CUDA(cudaSetDevice(device));
    ADJOINT_CUDA(cudaStreamCreateWithFlags(&streams[device], cudaStreamNonBlocking));
    x[device] = deviceArray<int>(40);
    const std::vector<int> values(40, device);
    ADJOINT_CUDA(cudaMemcpyAsync(x[device], values.data(), 40 * sizeof(int), cudaMemcpyHostToDevice,
                                 streams[device]));
    launch(1, 40, 0, streams[device], incrementKernel, x[device]);
    ADJOINT_CUDA(cudaStreamSynchronize(streams[device]));
  }
  // This thread is at device 1.
  const auto failure = [](auto call) {
    try {
      call();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(failure([&] {
              launch(1, 40, 0, streams[0], incrementKernel, x[0]);
            }).find("a stream of another device"),
            std::string::npos);
  EXPECT_EQ(cudaMemcpyAsync(x[0], x[1], 4, cudaMemcpyDeviceToDevice, streams[1]),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyPeerAsync(x[0], 1, x[1], 0, 4, streams[1]), cudaErrorInvalidValue);
  cudaEvent_t event = nullptr;
  ADJOINT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  EXPECT_EQ(cudaEventRecord(event, streams[0]), cudaErrorInvalidResourceHandle);
  ADJOINT_CUDA(cudaEventDestroy(event));
  EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);

  int values[40];
  ADJOINT_CUDA(cudaMemcpyPeerAsync(x[0], 0, x[1], 1, 40 * sizeof(int), streams[1]));
  ADJOINT_CUDA(cudaStreamSynchronize(streams[1]));
  ADJOINT_CUDA(cudaMemcpyAsync(values, x[0], sizeof values, cudaMemcpyDeviceToHost, streams[0]));
  ADJOINT_CUDA(cudaStreamSynchronize(streams[0]));
  EXPECT_EQ(values[39], 2);

#if defined(__linux__)
  launch(1, 40, 0, streams[1], incrementKernel, x[0]);
  const cudaError_t status = cudaStreamSynchronize(streams[1]);
  EXPECT_EQ(status, cudaErrorLaunchFailure);
  EXPECT_STREQ(cudaGetErrorString(status), "work of device 1 touches memory of device 0");
  emulation::clearError();
#endif
  for (int device = 0; device < 2; device++) {
    ADJOINT_CUDA(cudaStreamDestroy(streams[device]));
    ADJOINT_CUDA(cudaFree(x[device]));
  }
  ADJOINT_CUDA(cudaSetDevice(0));
  emulation::setDeviceCount(1);
}

}  // namespace
}  // namespace adjoint
