// Errors that kernels find in their data. The host must not wait for a kernel only to ask whether
// an index was good, so the kernel leaves a report in pinned memory (index_guard.h), and the next
// call that waits raises it (synchronize, copyToHost). What the kernel wrote is then undefined, but
// it has read and written within bounds.
#pragma once
#include <cstdint>

namespace adjoint::cuda {

// The first report since the last one was raised; those in between are dropped. `op` and `subject`
// are strings of the host that live for ever, which the device only passes on.
struct IndexReport {
  enum State : int { empty, claimed, complete };
  int state;
  const char *op, *subject;
  int64_t index, position, size;
};

// The current device's, in pinned memory, for it to write to.
IndexReport* indexReport();

// Throws what kernels of the current device have reported, and forgets it. Called after a wait.
void raiseDeferredError();
void forgetDeferredError();

}  // namespace adjoint::cuda
