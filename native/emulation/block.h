// What a kernel sees of the machine: its indices, barriers, warp operations and shared memory. One
// block runs at a time; its threads are run one after another and change over only where they wait,
// so a kernel without barriers costs nothing extra.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace adjoint::emulation {

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Where in the source a thread waits. Threads that meet must have come to the same place.
struct Site {
  const char* file = "";
  int line = 0;
  bool operator==(const Site& o) const {
    return line == o.line && (file == o.file || !std::strcmp(file, o.file));
  }
};

class Fiber;

enum class WarpOp : uint8_t { sync, ballot, shuffle };

struct Thread {
  enum class State : uint8_t { waiting, runnable, atBarrier, inWarp, finished };
  uint3 index;
  unsigned linear = 0;
  State state = State::waiting;
  Fiber* fiber = nullptr;
  Site site;
  // The pending warp operation: `value` is what this lane brings, `source` the lane it reads.
  unsigned mask = 0;
  WarpOp op = WarpOp::sync;
  unsigned source = 0;
  uint64_t value = 0;
  uint64_t result = 0;
  // How often it has met the whole block, and its warp: two accesses are ordered if one of these
  // moved between them (the race detector asks).
  uint32_t blockEpoch = 0, warpEpoch = 0;
};

// CUDA's built-in variables, set whenever another thread goes on.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

struct Running {
  Thread* thread = nullptr;
  uint64_t blockSerial = 0;  // counts the blocks of the process
  uint64_t launchSerial = 0;
  const void* host = nullptr;  // the thread of the host that runs it: hostThread() there
};
extern Running running;

// Differs from one thread of the host to another.
const void* hostThread();

void barrier(Site site);
// Deposits `value` and waits for the lanes of `mask`; gives back what lane `source` brought, or for
// a ballot the set of lanes whose value is not 0.
uint64_t warp(WarpOp op, unsigned mask, uint64_t value, unsigned source, Site site);

// Ends the block from inside a thread, which does not go on.
[[noreturn]] void failBlock(const char* message);

// One array of shared memory: the place is fixed at the first use in each block.
struct SharedArray {
  const char* name;
  uint64_t blockSerial = 0;
  void* address = nullptr;
};
void* sharedMemory(SharedArray& array, size_t bytes, size_t alignment);
void* dynamicSharedMemory();
bool isSharedMemory(const void* p);

// Threads (and blocks) run in this order; a kernel must give the same result in each.
enum class ThreadOrder { forward, reverse, shuffled };
void setThreadOrder(ThreadOrder order);  // at first ADJOINT_EMULATION_ORDER, else forward
ThreadOrder threadOrder();

// Runs all blocks of a grid. Gives back nullptr, or what went wrong: a divergent barrier, a warp
// operation with missing lanes, a write beyond a shared array, too much shared memory.
using KernelBody = void (*)(void* arguments);
const char* runGrid(dim3 grid, dim3 block, size_t dynamicBytes, size_t sharedBytes, KernelBody body,
                    void* arguments);
// The most shared memory that a kernel may have, without asking for more and at all.
constexpr size_t kSharedBytes = 48 << 10, kMostSharedBytes = 99 << 10;

// ---------------------------------------------------------------- warp operations, typed

inline unsigned lane() {
  return running.thread->linear % 32;
}

template <class T>
T shuffle(unsigned mask, T value, unsigned source, Site site) {
  static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8),
                "CUDA shuffles values of 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp(WarpOp::shuffle, mask, bits, source, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace adjoint::emulation
