// Copies from one device to another.
#include <array>
#include <atomic>

#include "contract.h"
#include "cuda/free_list.h"
#include "cuda/launch.h"
#include "cuda/per_device.h"

namespace adjoint {
namespace cuda {
namespace {

// What a device has for copies from and to others.
struct Peers {
  FreeList<cudaEvent_t> events;
  std::array<std::atomic<bool>, kMostDevices> isAsked{};
};
PerDevice<Peers> peers;

cudaEvent_t makeEvent() {
  cudaEvent_t event = nullptr;
  ADJOINT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

// What is queued on `stream` from now on comes after what the current device has queued.
void letFollow(cudaStream_t stream) {
  FreeList<cudaEvent_t>& events = peers.get().events;
  const cudaEvent_t event = events.take(makeEvent);
  ADJOINT_CUDA(cudaEventRecord(event, mainStream()));
  ADJOINT_CUDA(cudaStreamWaitEvent(stream, event, 0));
  events.give(event);
}

// Where the machine can, copies of the current device from and to the other one go directly;
// elsewhere CUDA takes them through the host's memory.
void allowDirectCopies(int other) {
  if (peers.get().isAsked[static_cast<size_t>(other)].exchange(true)) return;
  int can = 0;
  ADJOINT_CUDA(cudaDeviceCanAccessPeer(&can, currentDevice(), other));
  // PyTorch or other code in the process may have done so.
  if (can && cudaDeviceEnablePeerAccess(other, 0) != cudaSuccess) cudaGetLastError();
}

}  // namespace
}  // namespace cuda

void backend::copyFromDevice(void* target, const void* source, int sourceDevice, size_t bytes) {
  if (bytes == 0) return;
  const int targetDevice = cuda::currentDevice();
  const cudaStream_t targetStream = cuda::mainStream();
  cudaStream_t sourceStream = nullptr;
  {
    const cuda::DeviceScope scope(sourceDevice);
    sourceStream = cuda::mainStream();
    cuda::allowDirectCopies(targetDevice);
    cuda::letFollow(targetStream);
  }
  cuda::allowDirectCopies(sourceDevice);
  ADJOINT_CUDA(
      cudaMemcpyPeerAsync(target, targetDevice, source, sourceDevice, bytes, targetStream));
  cuda::letFollow(sourceStream);
}

}  // namespace adjoint
