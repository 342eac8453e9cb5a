// What tests and the libraries' twins may ask of the emulated device beyond CUDA's own functions.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <functional>

#include "emulation/block.h"

namespace adjoint::emulation {

// Launches, copies and events that no stream has run yet.
size_t pendingWork();
// After a failed kernel every call fails, as on a GPU, until this is called (a GPU would need a new
// process); drops whatever is queued.
void clearError();
// Queues work of the host, as the twin of a library's function does. Unlike cudaLaunchHostFunc's,
// its arguments are its own, so that it can be captured and run again.
void enqueueHost(cudaStream_t stream, std::function<void()> work);
// How much memory each device seems to have, and how many devices there are.
void setDeviceMemory(size_t bytes);
void setDeviceCount(int count);
// What cudaMalloc has handed out and not got back: bytes of the current device, blocks of all.
size_t allocatedBytes();
size_t allocatedBlocks();

}  // namespace adjoint::emulation
