#include "shared/segment_heap.h"

#include <cassert>
#include <iterator>

#include "shared/poison.h"

namespace adjoint {

SegmentHeap::~SegmentHeap() {
  for (const auto& [start, bytes] : segments_) unmap(start, bytes);
}

void* SegmentHeap::take(size_t bytes) {
  const auto fit = free_.lower_bound({bytes, 0});
  if (fit == free_.end()) return nullptr;
  const uintptr_t start = fit->second;
  Range& range = ranges_.at(start);
  if (const size_t rest = range.bytes - bytes; rest > 0) {
    ranges_.emplace(start + bytes, Range{rest, range.segment, true});
    free_.emplace(rest, start + bytes);
    range.bytes = bytes;
  }
  range.free = false;
  free_.erase(fit);
  return reinterpret_cast<void*>(start);
}

bool SegmentHeap::give(void* pointer) {
  auto at = ranges_.find(reinterpret_cast<uintptr_t>(pointer));
  assert(at != ranges_.end() && !at->second.free);
  at->second.free = true;
  const auto mergeable = [](const Range& a, const Range& b) {
    return a.free && b.free && a.segment == b.segment;
  };
  const auto mergeWithNext = [&](Ranges::iterator range) {
    const auto next = std::next(range);
    if (next == ranges_.end() || !mergeable(range->second, next->second)) return;
    free_.erase({range->second.bytes, range->first});
    free_.erase({next->second.bytes, next->first});
    range->second.bytes += next->second.bytes;
    ranges_.erase(next);
  };
  mergeWithNext(at);
  if (at != ranges_.begin() && mergeable(std::prev(at)->second, at->second)) {
    --at;
    mergeWithNext(at);
  }
  free_.emplace(at->second.bytes, at->first);
  return at->first == at->second.segment && at->second.bytes == segments_.at(at->first);
}

bool SegmentHeap::grow(size_t bytes) {
  void* segment = source_.map(bytes);
  if (segment == nullptr) return false;
  if (hostMemory_) poison(segment, bytes);
  const uintptr_t start = reinterpret_cast<uintptr_t>(segment);
  segments_.emplace(start, bytes);
  ranges_.emplace(start, Range{bytes, start, true});
  free_.emplace(bytes, start);
  reserved_ += bytes;
  mapped_++;
  return true;
}

void SegmentHeap::shrink(size_t target) {
  for (auto at = free_.end(); at != free_.begin() && reserved_ > target;) {
    --at;
    const auto [bytes, start] = *at;
    const auto segment = segments_.find(start);
    if (segment == segments_.end() || segment->second != bytes) continue;
    segments_.erase(segment);
    ranges_.erase(start);
    at = free_.erase(at);
    reserved_ -= bytes;
    unmap(start, bytes);
  }
}

void SegmentHeap::unmap(uintptr_t start, size_t bytes) {
  void* segment = reinterpret_cast<void*>(start);
  if (hostMemory_) unpoison(segment, bytes);
  source_.unmap(segment, bytes);
}

}  // namespace adjoint
