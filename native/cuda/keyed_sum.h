// Sums of rows by key, in order: what adding at indices comes down to. Keys are sorted with the
// positions of their rows, stably; then runs of equal keys are added up (keyed_sum.cu).
#pragma once
#include <cstdint>

#include "cuda/index_guard.h"
#include "cuda/sort.h"
#include "cuda/walk.h"
#include "cuda/workspace.h"

namespace adjoint::cuda {

// target[key] += the sum of source[position] over the positions with this key, in order; sums of
// half types are formed in float32.
struct KeyedSum {
  DType dtype;             // of both
  Walk<1> target, source;  // to rows, by key and by position
  Plan<2> row;             // along a row, of target and source
  bool overwrites;         // target[key] = the sum, where there are any rows
};

// n keys, of which those below `limit` count.
class Keys {
 public:
  Keys(int64_t n, int64_t limit);
  int64_t size() const { return n_; }
  uint32_t limit() const { return limit_; }
  // For a kernel to fill in.
  uint32_t* keys() const { return unsorted_; }
  uint32_t* positions() const { return unsorted_ + apart_; }
  // Keys are line * size + index, with n / length lines of indices; a bad one, or one that is
  // `skipped`, does not count. walk: to the indices, by position.
  void fillIndices(const IndexGuard& guard, const int64_t* index, const Walk<1>& walk,
                   int64_t length, int64_t skipped = -1) const;
  // Sorts, then adds.
  void add(const KeyedSum& sum) const;

 private:
  int64_t n_, apart_;  // keys and positions both start at whole lines of memory
  uint32_t limit_;
  Workspace workspace_;
  uint32_t* unsorted_;
};

}  // namespace adjoint::cuda
