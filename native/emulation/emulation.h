// What tests may ask of the emulated device beyond CUDA's own functions.
#pragma once
#include <cstddef>

#include "emulation/block.h"

namespace adjoint::emulation {

// Launches, copies and events that no stream has run yet.
size_t pendingWork();
// After a failed kernel every call fails, as on a GPU, until this is called (a GPU would need a new
// process); drops whatever is queued.
void clearError();
// How much memory the device seems to have.
void setDeviceMemory(size_t bytes);
// Bytes and blocks that cudaMalloc has handed out and not got back.
size_t allocatedBytes();
size_t allocatedBlocks();

}  // namespace adjoint::emulation
