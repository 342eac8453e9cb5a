// contract.h's memory: the shared caching allocator over pages of the system.
#include <cstring>

#include "contract.h"
#include "cpu/os.h"
#include "cpu/pool.h"
#include "shared/block_allocator.h"

namespace adjoint::backend {
namespace {

class Pages final : public SegmentSource {
 public:
  void* map(size_t bytes) override { return cpu::os::mapPages(bytes); }
  void unmap(void* pages, size_t bytes) override { cpu::os::unmapPages(pages, bytes); }
  // The system grants pages that it does not have and kills whoever touches them: an eighth is left
  // for JavaScript, the system and the neighbours.
  size_t limit() const override { return limit_; }

 private:
  const size_t limit_ = cpu::os::memoryLimit() / 8 * 7;
};

// Never destroyed: environments release tensors while the process's static objects go.
BlockAllocator& allocator() {
  static BlockAllocator& instance = *new BlockAllocator(*new Pages);
  return instance;
}

// Copies below this are over before a second thread would have begun.
constexpr int64_t kCopyGrain = 1 << 20;

void copyBytes(void* target, const void* source, size_t bytes) {
  cpu::parallelFor(static_cast<int64_t>(bytes), kCopyGrain, [&](int64_t begin, int64_t end) {
    std::memcpy(static_cast<char*>(target) + begin, static_cast<const char*>(source) + begin,
                static_cast<size_t>(end - begin));
  });
}

}  // namespace

void* allocate(size_t bytes) {
  return allocator().allocate(bytes);
}
void release(void* block, size_t bytes) {
  allocator().release(block, bytes);
}
void trimCache() {
  allocator().trim();
}
void setMemoryCap(size_t bytes) {
  allocator().setCap(bytes);
}
void resetPeakMemory() {
  allocator().resetPeak();
}

AllocatorStats allocatorStats() {
  const BlockAllocatorStats s = allocator().stats();
  return {s.liveBytes,     s.reservedBytes, s.cachedBytes,
          s.peakLiveBytes, s.allocations,   s.systemAllocations};
}

void copyFromHost(void* target, const void* source, size_t bytes) {
  copyBytes(target, source, bytes);
}
void copyToHost(void* target, const void* source, size_t bytes) {
  copyBytes(target, source, bytes);
}
void copyFromDevice(void*, const void*, int, size_t) {
  fail(ErrorKind::internal, "cpu: expected one device");
}
HostCopy* beginCopyToHost(const void*, size_t) {
  return nullptr;
}
void waitForCopy(HostCopy&) {}
void endCopy(HostCopy*, void*, size_t) {}
const PinnedMemory* pinnedMemory() {
  return nullptr;
}
void copyFromPinned(void* target, const void* source, size_t bytes) {
  copyBytes(target, source, bytes);
}

}  // namespace adjoint::backend
