#include "shared/block_allocator.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <new>

#include "shared/poison.h"

namespace adjoint {
namespace {

constexpr size_t roundUp(size_t n, size_t unit) {
  return (n + unit - 1) / unit * unit;
}

// So much may always stay cached.
constexpr size_t kAlwaysKept = size_t{64} << 20;
// A training step makes up to ten thousand allocations, and major collections, between which memory
// in use grows, are tens of steps apart: their peak must outlast them.
constexpr uint64_t kHousekeepingPeriod = 1 << 15;
constexpr size_t kMaxRequest = SIZE_MAX / 8;

}  // namespace

// ---------------------------------------------------------------- sizes
// With u = units - 1 and e = floor(log2 u): up to 8 units each has a class of its own, then the
// three bits of u below its leading one count the classes between 2^e and 2^(e + 1).
int BlockAllocator::classOf(size_t units) {
  const size_t u = units - 1;
  if (u < 8) return static_cast<int>(u);
  const int e = 63 - __builtin_clzll(u);
  return (e - 2) * 8 + static_cast<int>((u >> (e - 3)) & 7);
}

size_t BlockAllocator::unitsOf(int sizeClass) {
  if (sizeClass < 8) return static_cast<size_t>(sizeClass) + 1;
  return static_cast<size_t>(sizeClass % 8 + 9) << (sizeClass / 8 - 1);
}

size_t BlockAllocator::unitsFor(size_t bytes) const {
  const size_t padded = std::max<size_t>(bytes, 1) + (options_.hostMemory ? kRedZone : 0);
  return ((padded - 1) >> options_.unitShift) + 1;
}

size_t BlockAllocator::blockBytes(size_t units) const {
  const size_t rounded = units <= kBinUnits ? unitsOf(classOf(units)) : roundUp(units, kSlabUnits);
  return rounded << options_.unitShift;
}

size_t BlockAllocator::slabBlocks(int sizeClass) const {
  return kSlabUnits / unitsOf(sizeClass);
}

size_t BlockAllocator::slabBytes(int sizeClass) const {
  return roundUp(slabBlocks(sizeClass) * unitsOf(sizeClass), kGranuleUnits) << options_.unitShift;
}

BlockAllocator::BlockAllocator(SegmentSource& source, BlockAllocatorOptions options)
    : options_(options), source_(source), heap_(source, options.hostMemory) {}

// ---------------------------------------------------------------- allocate, release
void* BlockAllocator::allocate(size_t bytes) try {
  if (bytes > kMaxRequest) return nullptr;
  const size_t units = unitsFor(bytes), taken = blockBytes(units);
  std::lock_guard<BriefLock> lock(lock_);
  void* block;
  if (units <= kBinUnits) {
    const int sizeClass = classOf(units);
    std::vector<void*>& free = bins_[static_cast<size_t>(sizeClass)].free;
    if (free.empty()) {
      block = refill(sizeClass);
    } else {
      block = free.back();
      free.pop_back();
    }
  } else {
    block = takeFromHeap(taken);
  }
  if (block == nullptr) return nullptr;
  live_ += bytes;
  peakLive_ = std::max(peakLive_, live_);
  occupied_ += taken;
  recentPeak_ = std::max(recentPeak_, occupied_);
  if (++allocations_ % kHousekeepingPeriod == 0) keepHouse();
  if (options_.hostMemory) unpoison(block, bytes);
  return block;
} catch (const std::bad_alloc&) {
  return nullptr;  // no memory for the book-keeping
}

void BlockAllocator::release(void* block, size_t bytes) try {
  const size_t units = unitsFor(bytes), taken = blockBytes(units);
  std::lock_guard<BriefLock> lock(lock_);
  if (options_.hostMemory) poison(block, taken);
  live_ -= bytes;
  occupied_ -= taken;
  if (units <= kBinUnits) {
    bins_[static_cast<size_t>(classOf(units))].free.push_back(block);
  } else {
    const bool segmentIsFree = heap_.give(block);
    if (segmentIsFree && heap_.reservedBytes() > keptBytes()) heap_.shrink(keptBytes());
  }
} catch (const std::bad_alloc&) {
  // No memory for the book-keeping: the block stays reserved, which harms less than an abort.
}

// ---------------------------------------------------------------- bins
// Returns a block of an empty bin's class, and leaves the rest of its slab in the bin.
void* BlockAllocator::refill(int sizeClass) {
  Bin& bin = bins_[static_cast<size_t>(sizeClass)];
  const size_t size = unitsOf(sizeClass) << options_.unitShift;
  if (unitsOf(sizeClass) > kSlabBlockUnits) return takeFromHeap(size);
  const size_t blocks = slabBlocks(sizeClass);
  bin.free.reserve(blocks);
  char* slab = static_cast<char*>(takeFromHeap(slabBytes(sizeClass)));
  if (slab == nullptr) return nullptr;
  bin.slabs.insert(reinterpret_cast<uintptr_t>(slab));
  for (size_t i = blocks - 1; i > 0; i--) bin.free.push_back(slab + i * size);
  return slab;
}

// Moves what the bin holds into the heap: blocks as they are, or slabs of which all blocks are
// free. What stays is sorted so that the lowest addresses are used first and others can run empty.
void BlockAllocator::drain(int sizeClass) {
  Bin& bin = bins_[static_cast<size_t>(sizeClass)];
  if (unitsOf(sizeClass) > kSlabBlockUnits) {
    for (void* block : bin.free) heap_.give(block);
    bin.free.clear();
    return;
  }
  std::sort(bin.free.begin(), bin.free.end(), std::greater<void*>());
  const auto address = [](void* block) { return reinterpret_cast<uintptr_t>(block); };
  auto kept = bin.free.begin();
  for (auto at = bin.free.begin(); at != bin.free.end();) {
    const auto slab = std::prev(bin.slabs.upper_bound(address(*at)));
    const uintptr_t start = *slab;
    const auto end = std::find_if(at, bin.free.end(), [&](void* b) { return address(b) < start; });
    if (static_cast<size_t>(end - at) == slabBlocks(sizeClass)) {
      bin.slabs.erase(slab);
      heap_.give(reinterpret_cast<void*>(start));
      at = end;
    } else {
      while (at != end) *kept++ = *at++;
    }
  }
  bin.free.erase(kept, bin.free.end());
}

void BlockAllocator::drain() {
  for (int c = 0; c < kClasses; c++) drain(c);
}

// ---------------------------------------------------------------- heap
void* BlockAllocator::takeFromHeap(size_t bytes) {
  if (void* range = heap_.take(bytes)) return range;
  drain();
  if (void* range = heap_.take(bytes)) return range;
  if (growFor(bytes)) return heap_.take(bytes);
  heap_.shrink(0);
  return growFor(bytes) ? heap_.take(bytes) : nullptr;
}

// Maps an eighth of what there is already, so that there are few segments; where the cap or the
// source does not allow that, no more than needed.
bool BlockAllocator::growFor(size_t bytes) {
  size_t capacity = source_.limit();
  if (cap_ > 0) capacity = capacity > 0 ? std::min(capacity, cap_) : cap_;
  const size_t least = roundUp(bytes, kSlabUnits << options_.unitShift);
  const size_t roomy =
      std::clamp(heap_.reservedBytes() / 8, 2 * options_.segmentUnit, 32 * options_.segmentUnit);
  for (const size_t size : {roundUp(std::max(roomy, least), options_.segmentUnit),
                            roundUp(least, options_.segmentUnit), least}) {
    if (capacity > 0 && (size > capacity || heap_.reservedBytes() > capacity - size)) continue;
    if (heap_.grow(size)) return true;
  }
  return false;
}

// ---------------------------------------------------------------- policy
// What is worth keeping: as much as was lately in use and half as much for fragmentation, and in
// any case a little.
size_t BlockAllocator::keptBytes() const {
  return std::max(occupied_ + kAlwaysKept, recentPeak_ + recentPeak_ / 2);
}

void BlockAllocator::keepHouse() {
  recentPeak_ -= (recentPeak_ - occupied_) / 8;
  if (heap_.reservedBytes() <= keptBytes()) return;
  drain();
  heap_.shrink(keptBytes());
}

void BlockAllocator::trim() try {
  std::lock_guard<BriefLock> lock(lock_);
  drain();
  heap_.shrink(0);
  recentPeak_ = occupied_;
} catch (const std::bad_alloc&) {
}

void BlockAllocator::setCap(size_t bytes) {
  std::lock_guard<BriefLock> lock(lock_);
  cap_ = bytes;
}

void BlockAllocator::resetPeak() {
  std::lock_guard<BriefLock> lock(lock_);
  peakLive_ = live_;
}

BlockAllocatorStats BlockAllocator::stats() {
  std::lock_guard<BriefLock> lock(lock_);
  return {live_,
          peakLive_,
          heap_.reservedBytes(),
          heap_.reservedBytes() - occupied_,
          allocations_,
          heap_.segmentsMapped()};
}

}  // namespace adjoint
