// Best-fit allocation with splitting and immediate coalescing of neighbours (Knuth, TAOCP vol. 1,
// 2.5; Wilson et al. 1995, "Dynamic storage allocation: a survey") inside large segments that come
// from a source: mmap, cudaMalloc. What is known about the memory lies outside of it, so it may
// well be a device's. Not thread-safe: BlockAllocator holds the lock.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace adjoint {

// Where segments come from.
class SegmentSource {
 public:
  virtual ~SegmentSource() = default;
  virtual void* map(size_t bytes) = 0;  // nullptr on failure
  virtual void unmap(void* segment, size_t bytes) = 0;
  // The most that may be taken in all, 0 where that is unknown.
  virtual size_t limit() const { return 0; }
};

class SegmentHeap {
 public:
  // hostMemory: free ranges are poisoned for AddressSanitizer.
  SegmentHeap(SegmentSource& source, bool hostMemory) : source_(source), hostMemory_(hostMemory) {}
  ~SegmentHeap();
  SegmentHeap(const SegmentHeap&) = delete;
  SegmentHeap& operator=(const SegmentHeap&) = delete;

  // Sizes are multiples of a granule that the caller keeps to. nullptr where no free range fits.
  void* take(size_t bytes);
  // A range that take returned; it is merged with the free ranges beside it. True if that leaves
  // its whole segment free.
  bool give(void* range);
  // Adds a segment. False where the source has none.
  bool grow(size_t bytes);
  // Gives segments without a range in use back, largest first, until at most `target` is reserved.
  void shrink(size_t target);

  size_t reservedBytes() const { return reserved_; }
  size_t segmentsMapped() const { return mapped_; }

 private:
  struct Range {
    size_t bytes;
    uintptr_t segment;  // ranges of two segments are never merged
    bool free;
  };
  using Ranges = std::map<uintptr_t, Range>;  // by address, so neighbours are neighbours
  using BySize = std::set<std::pair<size_t, uintptr_t>>;

  void unmap(uintptr_t start, size_t bytes);

  SegmentSource& source_;
  const bool hostMemory_;
  Ranges ranges_;
  BySize free_;  // smallest first; of equal sizes the lowest address
  std::map<uintptr_t, size_t> segments_;
  size_t reserved_ = 0;
  size_t mapped_ = 0;
};

}  // namespace adjoint
