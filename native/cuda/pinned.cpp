// Pinned host memory for tensors of the CPU, which copies to the device read when the stream gets
// there.
#include <algorithm>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "contract.h"
#include "cuda/launch.h"
#include "cuda/pinned_capacity.h"

namespace adjoint {
namespace cuda {
namespace {

struct PinnedBlock {
  char* data;
  size_t capacity;
  // After the last copy on each stream that has read the block.
  std::vector<std::pair<cudaStream_t, cudaEvent_t>> reads;

  void noteRead(cudaStream_t stream) {
    auto read = std::find_if(reads.begin(), reads.end(),
                             [&](const auto& known) { return known.first == stream; });
    if (read == reads.end()) {
      cudaEvent_t event = nullptr;
      ADJOINT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
      read = reads.insert(reads.end(), {stream, event});
    }
    ADJOINT_CUDA(cudaEventRecord(read->second, stream));
  }
  bool isRead() const {
    return std::any_of(reads.begin(), reads.end(),
                       [](const auto& read) { return cudaEventQuery(read.second) != cudaSuccess; });
  }
  // After an error of the device its copies are over too.
  void wait() const {
    for (const auto& read : reads) cudaEventSynchronize(read.second);
  }
  void free() const {
    wait();
    for (const auto& read : reads) cudaEventDestroy(read.second);
    cudaFreeHost(data);
  }
};

class PinnedBlocks {
 public:
  void* allocate(size_t bytes) {
    const size_t capacity = pinnedCapacity(bytes);
    std::lock_guard<std::mutex> lock(mutex_);
    trim(kPinnedKept);
    auto block = std::find_if(resting_.begin(), resting_.end(), [&](const PinnedBlock& b) {
      return b.capacity == capacity && !b.isRead();
    });
    if (block != resting_.end()) {
      PinnedBlock taken = std::move(*block);
      resting_.erase(block);
      restingBytes_ -= capacity;
      return keep(std::move(taken));
    }
    void* data = nullptr;
    if (cudaHostAlloc(&data, capacity, cudaHostAllocDefault) != cudaSuccess) {
      trim(0);
      if (cudaHostAlloc(&data, capacity, cudaHostAllocDefault) != cudaSuccess) return nullptr;
    }
    return keep({static_cast<char*>(data), capacity, {}});
  }
  // Called while tensors die, perhaps after the device has gone: it calls nothing of CUDA.
  void release(void* data) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto block = live_.find(static_cast<char*>(data));
    if (block == live_.end()) return;
    restingBytes_ += block->second.capacity;
    resting_.push_back(std::move(block->second));
    live_.erase(block);
  }
  void wait(void* data) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto block = live_.find(static_cast<char*>(data));
    if (block != live_.end()) block->second.wait();
  }
  void copy(void* target, const void* source, size_t bytes, cudaStream_t stream) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto* first = static_cast<char*>(const_cast<void*>(source));
    auto block = live_.upper_bound(first);
    if (block == live_.begin() || first + bytes > (--block)->first + block->second.capacity) {
      fail(ErrorKind::internal, "to: expected pinned memory");
    }
    ADJOINT_CUDA(cudaMemcpyAsync(target, source, bytes, cudaMemcpyHostToDevice, stream));
    block->second.noteRead(stream);
  }

 private:
  void* keep(PinnedBlock&& block) {
    char* data = block.data;
    live_.emplace(data, std::move(block));
    return data;
  }
  // Frees what has rested for longest.
  void trim(size_t kept) {
    while (restingBytes_ > kept) {
      resting_.front().free();
      restingBytes_ -= resting_.front().capacity;
      resting_.erase(resting_.begin());
    }
  }

  std::mutex mutex_;
  std::map<char*, PinnedBlock> live_;  // by where they begin
  std::vector<PinnedBlock> resting_;   // in the order in which they were released
  size_t restingBytes_ = 0;
};

// Never destroyed: tensors are released while the process's static objects go.
PinnedBlocks& blocks() {
  static PinnedBlocks* b = new PinnedBlocks;
  return *b;
}

}  // namespace
}  // namespace cuda

namespace backend {

const PinnedMemory* pinnedMemory() {
  static const PinnedMemory memory = {
      [](size_t bytes) { return cuda::blocks().allocate(bytes); },
      [](void* block) { cuda::blocks().release(block); },
      [](void* block) { cuda::blocks().wait(block); },
  };
  return &memory;
}

void copyFromPinned(void* target, const void* source, size_t bytes) {
  cuda::blocks().copy(target, source, bytes, cuda::mainStream());
}

}  // namespace backend
}  // namespace adjoint
