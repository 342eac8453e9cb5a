#include "emulation/device_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "emulation/block.h"

namespace adjoint::emulation {
namespace {

constexpr int kAll = -1;

struct Guarded {
  size_t bytes;
  int device;
};
// All of this is used under the lock of the streams (runtime.cpp), as is the work that may fault.
std::map<uintptr_t, Guarded> guarded;
int entered = kAll;
struct sigaction before;

void protect(uintptr_t address, const Guarded& block) {
#if defined(__linux__)
  const bool isOpen = entered == kAll || block.device == entered;
  mprotect(reinterpret_cast<void*>(address), block.bytes,
           isOpen ? PROT_READ | PROT_WRITE : PROT_NONE);
#endif
}

void enter(int device) {
  if (entered == device) return;
  entered = device;
  for (const auto& [address, block] : guarded) protect(address, block);
}

// Of another device, or nullptr.
const Guarded* blockAround(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  auto it = guarded.upper_bound(address);
  if (it == guarded.begin()) return nullptr;
  --it;
  if (entered == kAll || it->second.device == entered) return nullptr;
  return address - it->first < it->second.bytes ? &it->second : nullptr;
}

// A kernel ends as if it had met any other error; what stands for a library's function has no such
// way out. Other faults are whose they were before.
void onFault(int signal, siginfo_t* info, void* context) {
  if (const Guarded* block = blockAround(info->si_addr)) {
    static char message[96];
    std::snprintf(message, sizeof message, "work of device %d touches memory of device %d", entered,
                  block->device);
    if (running.thread) failBlock(message);
    std::fprintf(stderr, "emulation: %s\n", message);
    std::abort();
  }
  if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(signal, info, context);
  // The instruction runs again and meets the handler that was there.
  sigaction(signal, &before, nullptr);
}

void watchFaults() {
  static const bool isWatching = [] {
    struct sigaction action = {};
    action.sa_sigaction = onFault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;  // a kernel that fails never returns
    std::atexit(enterAllDevices);               // LeakSanitizer reads all memory
    return sigaction(SIGSEGV, &action, &before) == 0;
  }();
  static_cast<void>(isWatching);
}

}  // namespace

void* allocateGuarded(size_t bytes, int device) {
  watchFaults();
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t size = (bytes + page - 1) / page * page;
  void* block = nullptr;
  if (posix_memalign(&block, page, size) != 0) return nullptr;
  guarded[reinterpret_cast<uintptr_t>(block)] = {size, device};
  return block;
}

bool freeGuarded(void* block) {
  const auto it = guarded.find(reinterpret_cast<uintptr_t>(block));
  if (it == guarded.end()) return false;
  enterAllDevices();
  guarded.erase(it);
  std::free(block);
  return true;
}

void enterDevice(int device) {
  if (!guarded.empty()) enter(device);
}

void enterAllDevices() {
  enter(kAll);
}

}  // namespace adjoint::emulation
