// Device memory and copies from and to the host.
#include <algorithm>
#include <cstring>
#include <mutex>

#include "contract.h"
#include "cuda/graph.h"
#include "cuda/launch.h"
#include "cuda/per_device.h"
#include "shared/block_allocator.h"

namespace adjoint {
namespace cuda {
namespace {

class DeviceSegments final : public SegmentSource {
 public:
  void* map(size_t bytes) override {
    void* segment = nullptr;
    const cudaError_t status = cudaMalloc(&segment, bytes);
    if (status == cudaErrorMemoryAllocation) return nullptr;
    check(status, "cudaMalloc");
    return segment;
  }
  // Blocks may be reused in stream order, but the segment leaves the stream: queued work that
  // still uses it must have ended. Called while tensors die, so it must not throw: after an error
  // of the device the segment is lost with everything else.
  void unmap(void* segment, size_t) override {
    if (cudaStreamSynchronize(stream_) == cudaSuccess) cudaFree(segment);
  }

 private:
  const cudaStream_t stream_ = mainStream();
};

// Pinned buffers between the caller's memory and the device, so that a copy to the device need not
// wait for the work that is queued before it: the caller's memory is read at once, the rest happens
// when the stream gets there. A buffer is free again when its event has passed.
class Staging {
 public:
  void copyToDevice(char* target, const char* source, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    while (bytes > 0) {
      Slot& slot = slots_[next_++ % kSlots];
      prepare(slot);
      const size_t n = std::min(bytes, kSlotBytes);
      std::memcpy(slot.buffer, source, n);
      ADJOINT_CUDA(cudaMemcpyAsync(target, slot.buffer, n, cudaMemcpyHostToDevice, mainStream()));
      ADJOINT_CUDA(cudaEventRecord(slot.event, mainStream()));
      target += n;
      source += n;
      bytes -= n;
    }
  }

 private:
  static constexpr size_t kSlotBytes = size_t(1) << 20;
  static constexpr unsigned kSlots = 8;

  struct Slot {
    void* buffer = nullptr;
    cudaEvent_t event = nullptr;
  };
  static void prepare(Slot& slot) {
    if (slot.event) {
      ADJOINT_CUDA(cudaEventSynchronize(slot.event));
      return;
    }
    ADJOINT_CUDA(cudaHostAlloc(&slot.buffer, kSlotBytes, cudaHostAllocDefault));
    ADJOINT_CUDA(cudaEventCreateWithFlags(&slot.event, cudaEventDisableTiming));
  }

  std::mutex mutex_;
  Slot slots_[kSlots];
  unsigned next_ = 0;
};

struct DeviceMemory {
  DeviceSegments segments;
  // Not host memory, also where the emulation says so: a freed block may be in use by work that
  // was queued before, so it cannot be poisoned.
  BlockAllocator allocator{segments, {8, size_t(2) << 20, false}};
  Staging staging;
};
PerDevice<DeviceMemory> memory;

BlockAllocator& allocator() {
  return memory.get().allocator;
}

}  // namespace

void uploadNow(void* target, const void* source, size_t bytes) {
  memory.get().staging.copyToDevice(static_cast<char*>(target), static_cast<const char*>(source),
                                    bytes);
}

}  // namespace cuda

namespace backend {

void* allocate(size_t bytes) {
  return cuda::allocator().allocate(bytes);
}
void release(void* block, size_t bytes) {
  cuda::allocator().release(block, bytes);
}
void trimCache() {
  cuda::allocator().trim();
}
void setMemoryCap(size_t bytes) {
  cuda::allocator().setCap(bytes);
}
void resetPeakMemory() {
  cuda::allocator().resetPeak();
}

AllocatorStats allocatorStats() {
  const BlockAllocatorStats s = cuda::allocator().stats();
  return {s.liveBytes,     s.reservedBytes, s.cachedBytes,
          s.peakLiveBytes, s.allocations,   s.systemAllocations};
}

void copyFromHost(void* target, const void* source, size_t bytes) {
  if (!cuda::copyToGraph(target, source, bytes)) cuda::uploadNow(target, source, bytes);
}

void copyToHost(void* target, const void* source, size_t bytes) {
  if (bytes == 0) return;
  ADJOINT_CUDA(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDeviceToHost, cuda::stream()));
  synchronize();
}

}  // namespace backend
}  // namespace adjoint
