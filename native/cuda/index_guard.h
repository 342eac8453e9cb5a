// How kernels check indices that they read from memory.
#pragma once
#include <cstdint>

#include "cuda/deferred_error.h"
#include "cuda/launch.h"

namespace adjoint::cuda {

// Parameter of a kernel that reads indices: those of [0, size) are good.
struct IndexGuard {
  IndexReport* report;
  const char *op, *subject;
  int64_t size;

  // Whether `index` is good; otherwise it is reported. `position`: where among the indices it
  // stands.
  ADJOINT_DEVICE bool admits(int64_t index, int64_t position) const {
    if (static_cast<uint64_t>(index) < static_cast<uint64_t>(size)) return true;
    if (atomicCAS(&report->state, int(IndexReport::empty), int(IndexReport::claimed)) ==
        IndexReport::empty) {
      report->op = op;
      report->subject = subject;
      report->index = index;
      report->position = position;
      report->size = size;
      __threadfence_system();
      atomicExch(&report->state, int(IndexReport::complete));
    }
    return false;
  }
};

// The message will be "op: expected subject in [0, size), got index at position"; subject:
// "targets", "indices".
inline IndexGuard indexGuard(const char* op, const char* subject, int64_t size) {
  return {indexReport(), op, subject, size};
}

}  // namespace adjoint::cuda
