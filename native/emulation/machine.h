// The state of the emulated devices, which the files that stand for the CUDA runtime share.
#pragma once
#include <cuda_runtime.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "emulation/emulation.h"

struct EmulatedEvent {
  int device;
  EmulatedStream* stream = nullptr;  // where it was recorded last
  uint64_t recorded = 0;             // how often it was recorded
  uint64_t reached = 0;              // the last record that the stream has come to
  bool isTimed = false;
  std::chrono::steady_clock::time_point time;  // when it was reached last
};

using Work = std::function<cudaError_t()>;

struct EmulatedGraph {
  std::vector<Work> work;
  bool isSpoiled = false;
};

struct EmulatedGraphExec {
  std::shared_ptr<const std::vector<Work>> work;
};

struct EmulatedStream {
  int device;
  std::deque<Work> queue;
  EmulatedGraph* capture = nullptr;  // takes what is queued, while there is one
};

namespace adjoint::emulation {

struct Block {
  size_t bytes;
  int device;
};

// All devices of the process.
struct Machine {
  std::recursive_mutex mutex;
  std::map<uintptr_t, Block> blocks;  // by address
  std::map<uintptr_t, Block> pinned;  // of the host
  std::map<int, size_t> allocated;    // by device
  size_t total = size_t(2) << 30;     // of each
  int count = 0;                      // of devices; 0: as the environment says
  std::set<std::pair<int, int>> peers;
  std::map<const void*, size_t> sharedBytes;  // that kernels have asked for
  std::vector<EmulatedStream*> streams;
  cudaError_t error = cudaSuccess;  // of a kernel: sticky
  std::string message;
  CallCounts counts{};
};

Machine& machine();
extern thread_local int currentDevice;
int deviceCount();

// Of the machine.
using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t failWith(cudaError_t error, const std::string& message);
// What a stream that is captured cannot do.
cudaError_t spoilCapture(cudaStream_t stream, const char* what);
// Locked by the caller.
cudaError_t enqueue(cudaStream_t stream, Work work);

}  // namespace adjoint::emulation
