// Copies to the host that nobody waits for on the thread that asks.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <mutex>
#include <vector>

#include "contract.h"
#include "cuda/deferred_error.h"
#include "cuda/launch.h"
#include "cuda/per_device.h"
#include "cuda/pinned_capacity.h"

namespace adjoint {
namespace cuda {
namespace {
class HostCopies;
}  // namespace
}  // namespace cuda

namespace backend {

// A pinned buffer, and the event after the last copy into it.
struct HostCopy {
  HostCopy(size_t capacity, cuda::HostCopies& owner) : capacity(capacity), owner(owner) {
    ADJOINT_CUDA(cudaHostAlloc(&buffer, capacity, cudaHostAllocDefault));
    // The thread that waits sleeps.
    const unsigned flags = cudaEventDisableTiming | cudaEventBlockingSync;
    const cudaError_t status = cudaEventCreateWithFlags(&event, flags);
    if (status == cudaSuccess) return;
    cudaFreeHost(buffer);
    cuda::check(status, "cudaEventCreateWithFlags");
  }
  // Called on threads that may wait, as CUDA does here; after an error of the device all is lost.
  ~HostCopy() {
    cudaEventDestroy(event);
    cudaFreeHost(buffer);
  }
  const size_t capacity;
  cuda::HostCopies& owner;  // of its device
  const int device = cuda::currentDevice();
  void* buffer = nullptr;
  cudaEvent_t event = nullptr;
};

}  // namespace backend

namespace cuda {
namespace {

using backend::HostCopy;

class HostCopies {
 public:
  HostCopy* take(size_t bytes) {
    const size_t capacity = pinnedCapacity(bytes);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (auto it = free_.rbegin(); it != free_.rend(); ++it) {
        if ((*it)->capacity != capacity) continue;
        HostCopy* copy = *it;
        free_.erase(std::next(it).base());
        freeBytes_ -= capacity;
        return copy;
      }
    }
    return new HostCopy(capacity, *this);
  }
  void give(HostCopy* copy) {
    std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(copy);
    freeBytes_ += copy->capacity;
  }
  // Frees what has been free for longest. It waits for the device, so give does not do it.
  void trim() {
    while (HostCopy* copy = takeOldest()) delete copy;
  }

 private:
  HostCopy* takeOldest() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (freeBytes_ <= kPinnedKept) return nullptr;
    HostCopy* copy = free_.front();
    free_.erase(free_.begin());
    freeBytes_ -= copy->capacity;
    return copy;
  }

  std::mutex mutex_;
  std::vector<HostCopy*> free_;  // in the order in which they were given
  size_t freeBytes_ = 0;
};

PerDevice<HostCopies> copies;

}  // namespace
}  // namespace cuda

namespace backend {

HostCopy* beginCopyToHost(const void* source, size_t bytes) {
  HostCopy* copy = cuda::copies.get().take(bytes);
  try {
    ADJOINT_CUDA(
        cudaMemcpyAsync(copy->buffer, source, bytes, cudaMemcpyDeviceToHost, cuda::stream()));
    ADJOINT_CUDA(cudaEventRecord(copy->event, cuda::stream()));
  } catch (...) {
    copy->owner.give(copy);
    throw;
  }
  return copy;
}

void waitForCopy(HostCopy& copy) {
  useDevice(copy.device);
  ADJOINT_CUDA(cudaEventSynchronize(copy.event));
  copy.owner.trim();
  cuda::raiseDeferredError();
}

void endCopy(HostCopy* copy, void* target, size_t bytes) {
  if (target) std::memcpy(target, copy->buffer, std::min(bytes, copy->capacity));
  copy->owner.give(copy);
}

}  // namespace backend
}  // namespace adjoint
