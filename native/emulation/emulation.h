// What tests and the libraries' twins may ask of the emulated device beyond CUDA's own functions.
#pragma once
#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
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
// The null runtime: kernels, graphs and libraries' work are checked and counted and never run,
// copies and events are as always. For measuring the host's side; what is read has no meaning.
void setNullRuntime(bool enabled);
// How much memory each device seems to have, and how many devices there are.
void setDeviceMemory(size_t bytes);
void setDeviceCount(int count);
// From this one on they are of compute capability 7.5, before that of 8.5.
constexpr int kOlderDevices = 3;
// What cudaMalloc has handed out and not got back: bytes of the current device, blocks of all.
size_t allocatedBytes();
size_t allocatedBlocks();
// Whether [p, p + bytes) is memory of cudaMalloc.
bool isDeviceMemory(const void* p, size_t bytes);

// What the library was last told of a gradient of attention (attention_library_host.cpp).
extern std::atomic<bool> lastAttentionWasDeterministic;

// What the host has asked of the devices since the process began. Calls of libraries (a matrix
// product, a convolution, a sort) are counted once each, whatever a real one launches; work that is
// captured is counted when it is captured, and a graph once at each launch.
struct CallCounts {
  uint64_t kernels, libraryCalls, graphs;
  uint64_t uploads, downloads, deviceCopies;
  uint64_t deviceAllocations, pinnedAllocations, frees;
  uint64_t streamWaits, eventWaits;
};
CallCounts callCounts();

}  // namespace adjoint::emulation
