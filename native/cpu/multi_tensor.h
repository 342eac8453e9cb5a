// One parallel pass over the elements of many tensors.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/pool.h"
#include "shared/view.h"

namespace adjoint::cpu {

constexpr int64_t kTensorBlock = 8192;    // elements of one entry
constexpr int64_t kTensorTaskBlocks = 4;  // in one chunk

inline void* at(const View& x, int64_t i) {
  return x.data ? x.as<char>() + i * static_cast<int64_t>(itemSize(x.dtype)) : nullptr;
}

inline const View& leading(const View& x) {
  return x;
}
template <class Entry>
const View& leading(const Entry& e) {
  return e.param;
}

// How many blocks the entries before each one have, and all of them.
template <class Entry>
std::vector<int64_t> firstBlocks(const std::vector<Entry>& entries) {
  std::vector<int64_t> first(entries.size() + 1, 0);
  for (size_t e = 0; e < entries.size(); e++) {
    first[e + 1] = first[e] + (leading(entries[e]).numel() + kTensorBlock - 1) / kTensorBlock;
  }
  return first;
}

// Calls run(entry, begin, end, block) for blocks of the elements of all entries.
template <class Entry, class F>
void forEachBlock(const std::vector<Entry>& entries, const std::vector<int64_t>& firstBlock,
                  const F& run) {
  parallelFor(firstBlock.back(), kTensorTaskBlocks, [&](int64_t begin, int64_t end) {
    size_t e = std::upper_bound(firstBlock.begin(), firstBlock.end(), begin) - firstBlock.begin();
    for (e--; begin < end; begin++) {
      while (begin >= firstBlock[e + 1]) e++;
      const int64_t first = (begin - firstBlock[e]) * kTensorBlock;
      run(entries[e], first, std::min(leading(entries[e]).numel(), first + kTensorBlock), begin);
    }
  });
}
template <class Entry, class F>
void forEachBlock(const std::vector<Entry>& entries, const F& update) {
  forEachBlock(entries, firstBlocks(entries),
               [&](const Entry& e, int64_t begin, int64_t end, int64_t) { update(e, begin, end); });
}

}  // namespace adjoint::cpu
