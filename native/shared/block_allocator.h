// The caching allocator of both backends. A training step asks for the same sizes over and over, so
// freed blocks are kept for the next one (the idea of PyTorch's caching allocator), in three
// layers:
//
//   bins      one last-in-first-out list of free blocks per size class up to 2^14 units (1 MiB),
//             eight classes per power of two: the fast path, one push or pop.
//   slabs     classes up to 2^8 units (16 KiB) are cut out of slabs of about 2^10 units (64 KiB).
//   heap      slabs, larger classes and everything beyond come from a SegmentHeap: best fit,
//             coalescing, in segments of megabytes.
//
// Blocks in bins are not coalesced until they are in the way: bins drain into the heap before a new
// segment is mapped, and when more is cached than was lately in use.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "shared/segment_heap.h"

namespace adjoint {

struct BlockAllocatorOptions {
  int unitShift = 6;              // blocks are multiples of 2^unitShift bytes and aligned so
  size_t segmentUnit = 2u << 20;  // segments are multiples of it, unless the cap is too near
  bool hostMemory = true;         // may be poisoned for AddressSanitizer
};

struct BlockAllocatorStats {
  size_t liveBytes;  // handed out, as asked for
  size_t peakLiveBytes;
  size_t reservedBytes;  // taken from the source
  size_t cachedBytes;    // reserved and in no block that is handed out
  uint64_t allocations;
  uint64_t systemAllocations;  // segments taken from the source, ever
};

// Held for some nanoseconds, mostly by the same thread: half the price of a std::mutex there.
class BriefLock {
 public:
  void lock() {
    while (taken_.exchange(true, std::memory_order_acquire)) {
      while (taken_.load(std::memory_order_relaxed)) std::this_thread::yield();
    }
  }
  void unlock() { taken_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> taken_{false};
};

// Thread-safe.
class BlockAllocator {
 public:
  explicit BlockAllocator(SegmentSource& source, BlockAllocatorOptions options = {});

  // Contents undefined. nullptr where the cap or the source is exhausted even after everything
  // cached has been given back.
  void* allocate(size_t bytes);
  // `bytes` as asked for.
  void release(void* block, size_t bytes);
  // Gives all segments that hold no block back to the source.
  void trim();
  // No more than this is taken from the source; 0: no more than the source's own limit.
  void setCap(size_t bytes);
  BlockAllocatorStats stats();
  // From now on the peak is that of what is live now and later.
  void resetPeak();

 private:
  static constexpr int kClasses = 96;
  static constexpr size_t kBinUnits = size_t{1} << 14;
  static constexpr size_t kSlabBlockUnits = size_t{1} << 8;
  static constexpr size_t kSlabUnits = size_t{1} << 10;
  static constexpr size_t kGranuleUnits = size_t{1} << 5;  // of the heap

  struct Bin {
    std::vector<void*> free;
    std::set<uintptr_t> slabs;  // their starts; empty for classes without slabs
  };

  static int classOf(size_t units);
  static size_t unitsOf(int sizeClass);
  size_t unitsFor(size_t bytes) const;
  size_t blockBytes(size_t units) const;  // what a block of so many units takes up
  size_t slabBlocks(int sizeClass) const;
  size_t slabBytes(int sizeClass) const;

  void* refill(int sizeClass);
  void* takeFromHeap(size_t bytes);
  bool growFor(size_t bytes);
  void drain();
  void drain(int sizeClass);
  void keepHouse();
  size_t keptBytes() const;

  BriefLock lock_;
  const BlockAllocatorOptions options_;
  SegmentSource& source_;
  SegmentHeap heap_;
  std::array<Bin, kClasses> bins_;
  size_t cap_ = 0;
  size_t live_ = 0, peakLive_ = 0;
  size_t occupied_ = 0;    // bytes of the blocks handed out, rounding included
  size_t recentPeak_ = 0;  // of occupied_; decays
  uint64_t allocations_ = 0;
};

}  // namespace adjoint
