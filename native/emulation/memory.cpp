// Memory of the emulated devices, and copies.
#include <cstdlib>
#include <cstring>

#include "emulation/device_guard.h"
#include "emulation/emulation.h"
#include "emulation/machine.h"

namespace adjoint::emulation {
namespace {

constexpr size_t kDeviceAlignment = 256;

// The block in which [p, p + bytes) lies, or nullptr.
const Block* blockAround(const std::map<uintptr_t, Block>& blocks, const void* p, size_t bytes) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  auto it = blocks.upper_bound(address);
  if (it == blocks.begin()) return nullptr;
  --it;
  const Block& block = it->second;
  const size_t offset = address - it->first;
  return offset <= block.bytes && bytes <= block.bytes - offset ? &block : nullptr;
}
// The device whose memory it is, or -1.
int deviceOf(const void* p, size_t bytes) {
  const Block* block = blockAround(machine().blocks, p, bytes);
  return block ? block->device : -1;
}

}  // namespace

void setDeviceMemory(size_t bytes) {
  Lock lock(machine().mutex);
  machine().total = bytes;
}
size_t allocatedBytes() {
  Lock lock(machine().mutex);
  return machine().allocated[currentDevice];
}
size_t allocatedBlocks() {
  Lock lock(machine().mutex);
  return machine().blocks.size();
}
bool isDeviceMemory(const void* p, size_t bytes) {
  return deviceOf(p, bytes) >= 0;
}

}  // namespace adjoint::emulation

using namespace adjoint::emulation;

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Lock lock(machine().mutex);
  *total = machine().total;
  *free = *total - machine().allocated[currentDevice];
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  Lock lock(machine().mutex);
  machine().counts.deviceAllocations++;
  *pointer = nullptr;
  if (machine().error != cudaSuccess) return machine().error;
  if (bytes == 0) return cudaSuccess;
  size_t& allocated = machine().allocated[currentDevice];
  if (bytes > machine().total - allocated) return cudaErrorMemoryAllocation;
  if (deviceCount() > 1) {
    enterAllDevices();
    *pointer = allocateGuarded(bytes, currentDevice);
  } else if (posix_memalign(pointer, kDeviceAlignment, bytes) != 0) {
    *pointer = nullptr;
  }
  if (!*pointer) return cudaErrorMemoryAllocation;
  std::memset(*pointer, 0xff, bytes);  // NaN in every floating type
  machine().blocks[reinterpret_cast<uintptr_t>(*pointer)] = {bytes, currentDevice};
  allocated += bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  Lock lock(machine().mutex);
  if (!pointer) return cudaSuccess;
  machine().counts.frees++;
  auto it = machine().blocks.find(reinterpret_cast<uintptr_t>(pointer));
  if (it == machine().blocks.end()) {
    return failWith(cudaErrorInvalidValue, "cudaFree: no block starts here");
  }
  for (EmulatedStream* stream : machine().streams) cudaStreamSynchronize(stream);
  machine().allocated[it->second.device] -= it->second.bytes;
  machine().blocks.erase(it);
  if (!freeGuarded(pointer)) std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  Lock lock(machine().mutex);
  machine().counts.pinnedAllocations++;
  *pointer = std::malloc(bytes);
  if (!*pointer) return cudaErrorMemoryAllocation;
  machine().pinned[reinterpret_cast<uintptr_t>(*pointer)] = {bytes, -1};
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
  Lock lock(machine().mutex);
  machine().counts.frees++;
  machine().pinned.erase(reinterpret_cast<uintptr_t>(pointer));
  for (EmulatedStream* stream : machine().streams) cudaStreamSynchronize(stream);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  Lock lock(machine().mutex);
  // Stricter than CUDA: of the stream's own device.
  const int own = stream ? stream->device : currentDevice;
  const bool matches = deviceOf(target, bytes) == (kind != cudaMemcpyDeviceToHost ? own : -1) &&
                       deviceOf(source, bytes) == (kind != cudaMemcpyHostToDevice ? own : -1);
  if (bytes > 0 && !matches) {
    return failWith(cudaErrorInvalidValue,
                    "cudaMemcpyAsync: pointers do not match the kind, or the stream's device");
  }
  CallCounts& counts = machine().counts;
  (kind == cudaMemcpyHostToDevice   ? counts.uploads
   : kind == cudaMemcpyDeviceToHost ? counts.downloads
                                    : counts.deviceCopies)++;
  if (stream && stream->capture && kind != cudaMemcpyDeviceToDevice) {
    const void* host = kind == cudaMemcpyHostToDevice ? source : target;
    if (!blockAround(machine().pinned, host, bytes)) {
      return spoilCapture(stream, "a captured copy of host memory that is not pinned");
    }
  }
  return enqueue(stream, [=] {
    std::memcpy(target, source, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyPeerAsync(void* target, int targetDevice, const void* source,
                                int sourceDevice, size_t bytes, cudaStream_t stream) {
  Lock lock(machine().mutex);
  if (deviceOf(target, bytes) != targetDevice || deviceOf(source, bytes) != sourceDevice) {
    return failWith(cudaErrorInvalidValue, "cudaMemcpyPeerAsync: pointers of other devices");
  }
  machine().counts.deviceCopies++;
  return enqueue(stream, [=] {
    enterAllDevices();
    std::memcpy(target, source, bytes);
    return cudaSuccess;
  });
}
