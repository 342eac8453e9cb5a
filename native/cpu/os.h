// All that depends on the operating system. os.cpp has a Linux half and a portable twin made of
// the C++ standard library alone; -DADJOINT_PORTABLE=ON forces the twin, so that it is tested.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace adjoint::cpu::os {

const char* name();  // "linux" or "portable"

// ---------------------------------------------------------------- waiting
// Blocks while word == expected, or until a wake of the same word. May return for no reason.
void wait(const std::atomic<uint32_t>& word, uint32_t expected);
// Wakes at least `count` of those that wait on the word.
void wake(const std::atomic<uint32_t>& word, int count);
// Tells the processor that this is a spin loop.
void spinPause();

// ---------------------------------------------------------------- processors
struct Processors {
  int hardware;  // of the machine
  int affinity;  // this process may run on
  double quota;  // the container's share of processor time, infinity where there is no limit
  int usable;    // min(hardware, affinity, quota rounded up), at least 1
};
Processors processors();
std::string processorName();  // "" where unknown
// Those of the processor's features that matter to kernels, as the system names them.
std::string processorFeatures();
// Asks the system to let this process use AMX tile registers; false where it has no such call, or
// refuses.
bool permitTiles();
// Names the calling thread and keeps signals away from it: they belong to Node's threads.
void enterWorkerThread(int index);
// Runs `handler` in the child of every later fork, where no other thread lives on.
void onForkChild(void (*handler)());

// ---------------------------------------------------------------- memory
// The memory of the machine, or the container's limit if that is lower; 0 where unknown.
size_t memoryLimit();
// Zeroed or undefined pages, aligned to kHugePage where bytes is a multiple of it. nullptr on
// failure. Huge pages are asked for where the size allows.
void* mapPages(size_t bytes);
void unmapPages(void* pages, size_t bytes);
constexpr size_t kHugePage = size_t{2} << 20;

// ---------------------------------------------------------------- control groups (Linux)
// Limits of the groups this process is in, version 1 or 2: the lowest from its own group up to the
// root. `root` stands before /proc and /sys, for tests.
double cgroupQuota(const std::string& root);          // processors; infinity: none
uint64_t cgroupMemoryLimit(const std::string& root);  // bytes; UINT64_MAX: none

}  // namespace adjoint::cpu::os
