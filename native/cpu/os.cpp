#include "cpu/os.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <limits>
#include <mutex>
#include <new>
#include <set>
#include <sstream>
#include <thread>

#if defined(__linux__) && !defined(ADJOINT_PORTABLE)
#define ADJOINT_OS_LINUX 1
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace adjoint::cpu::os {

namespace {

constexpr double kNoQuota = std::numeric_limits<double>::infinity();

int usableOf(const Processors& p) {
  const double least = std::min<double>({double(p.hardware), double(p.affinity), p.quota});
  return std::max(1, static_cast<int>(std::ceil(least)));
}

int hardwareThreads() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

void spinPause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb" ::: "memory");  // `yield` is a no-op on most Arm cores
#endif
}

// ---------------------------------------------------------------- control groups
namespace {

std::string firstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Calls visit(folder) for the group's folder and each parent up to the mount itself. A container
// often sees its own group as the mount's root while /proc still names the host's path, so folders
// that are not there are simply passed over.
template <class Visit>
void walkUp(const std::string& mount, std::string group, Visit visit) {
  for (;;) {
    visit(mount + group);
    if (group.empty()) return;
    group.resize(group.find_last_of('/') == std::string::npos ? 0 : group.find_last_of('/'));
  }
}

// Calls visitV1(folder) or visitV2(folder) for every group folder of `controller`. Lines of
// /proc/self/cgroup are "id:controllers:path"; version 2 is "0::path".
template <class VisitV1, class VisitV2>
void visitGroups(const std::string& root, const std::string& controller, VisitV1 visitV1,
                 VisitV2 visitV2) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    std::string group = line.substr(second + 1);
    if (group == "/") group.clear();
    const std::string mount = root + "/sys/fs/cgroup";
    if (controllers == ",,") {
      walkUp(mount, group, visitV2);
      walkUp(mount + "/unified", group, visitV2);  // beside version 1
    } else if (controllers.find("," + controller + ",") != std::string::npos) {
      walkUp(mount + "/" + controller, group, visitV1);
    }
  }
}

// "max" and anything unreadable parse as no limit.
bool parsePositive(const std::string& text, double& value) {
  std::istringstream stream(text);
  return stream >> value && value > 0;
}

}  // namespace

double cgroupQuota(const std::string& root) {
  double least = kNoQuota;
  const auto take = [&](const std::string& quota, const std::string& period) {
    double q, p;
    if (parsePositive(quota, q) && parsePositive(period, p)) least = std::min(least, q / p);
  };
  visitGroups(
      root, "cpu",
      [&](const std::string& folder) {
        take(firstLine(folder + "/cpu.cfs_quota_us"), firstLine(folder + "/cpu.cfs_period_us"));
      },
      [&](const std::string& folder) {  // "max 100000" or "150000 100000"
        std::istringstream line(firstLine(folder + "/cpu.max"));
        std::string quota, period;
        line >> quota >> period;
        take(quota, period);
      });
  return least;
}

uint64_t cgroupMemoryLimit(const std::string& root) {
  double least = kNoQuota;
  const auto take = [&](const std::string& text) {
    double bytes;
    if (parsePositive(text, bytes)) least = std::min(least, bytes);
  };
  visitGroups(
      root, "memory",
      [&](const std::string& folder) { take(firstLine(folder + "/memory.limit_in_bytes")); },
      [&](const std::string& folder) { take(firstLine(folder + "/memory.max")); });
  // Version 1 writes "no limit" as a number near 2^63.
  return least >= 0x1p62 ? UINT64_MAX : static_cast<uint64_t>(least);
}

#ifdef ADJOINT_OS_LINUX
// ================================================================ Linux
const char* name() {
  return "linux";
}

// A std::atomic<uint32_t> is a plain 32-bit word, which is what a futex wants.
static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);

void wait(const std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void wake(const std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

Processors processors() {
  Processors p{hardwareThreads(), 0, cgroupQuota(""), 0};
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  if (online > 0) p.hardware = static_cast<int>(online);
  p.affinity = p.hardware;
  // The set is as long as the kernel's, which may know more processors than cpu_set_t holds.
  for (int capacity = 1024; capacity <= 1 << 20; capacity *= 2) {
    cpu_set_t* set = CPU_ALLOC(capacity);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(capacity);
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    if (known) p.affinity = CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
    if (known) break;
  }
  p.usable = usableOf(p);
  return p;
}

namespace {

// The first "key : value" line of /proc/cpuinfo with one of two keys.
std::string processorFact(const std::string& key, const std::string& otherKey) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string found = line.substr(0, line.find_last_not_of(" \t:", colon) + 1);
    if (found == key || found == otherKey) {
      return line.substr(std::min(line.find_first_not_of(' ', colon + 1), line.size()));
    }
  }
  return "";
}

}  // namespace

std::string processorName() {
  return processorFact("model name", "Model");
}

std::string processorFeatures() {
  static const std::set<std::string> wanted = {
      "avx2",     "fma",         "f16c",     "avx512f",     "avx512bw", "avx512dq",
      "avx512vl", "avx512_bf16", "avx_vnni", "avx512_vnni", "amx_tile", "amx_bf16",
      "amx_int8", "asimd",       "asimddp",  "bf16",        "i8mm",     "sve"};
  std::istringstream flags(processorFact("flags", "Features"));
  std::string chosen;
  for (std::string flag; flags >> flag;) {
    if (wanted.count(flag) > 0) chosen += (chosen.empty() ? "" : " ") + flag;
  }
  return chosen;
}

// Linux saves the 8 KiB of tiles only for processes that have asked
// (Documentation/arch/x86/xstate).
bool permitTiles() {
#if defined(__x86_64__)
  constexpr long kArchRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kArchRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

void enterWorkerThread(int index) {
  sigset_t all;
  sigfillset(&all);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  char text[16];  // the kernel's limit
  std::snprintf(text, sizeof text, "adjoint-%d", index);
  pthread_setname_np(pthread_self(), text);
}

void onForkChild(void (*handler)()) {
  pthread_atfork(nullptr, nullptr, handler);
}

size_t memoryLimit() {
  const long pages = sysconf(_SC_PHYS_PAGES), pageSize = sysconf(_SC_PAGESIZE);
  uint64_t limit = cgroupMemoryLimit("");
  if (pages > 0 && pageSize > 0) {
    limit = std::min(limit, static_cast<uint64_t>(pages) * static_cast<uint64_t>(pageSize));
  }
  return limit >= SIZE_MAX ? 0 : static_cast<size_t>(limit);
}

void* mapPages(size_t bytes) {
  const bool huge = bytes % kHugePage == 0;
  // A mapping is aligned to a small page only: ask for one huge page more and cut off the ends.
  const size_t slack = huge ? kHugePage : 0;
  if (bytes > SIZE_MAX / 2) return nullptr;
  void* mapped = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  if (!huge) return mapped;
  const uintptr_t start = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t aligned = (start + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > start) munmap(mapped, aligned - start);
  if (aligned < start + slack) {
    munmap(reinterpret_cast<void*>(aligned + bytes), start + slack - aligned);
  }
  void* pages = reinterpret_cast<void*>(aligned);
  madvise(pages, bytes, MADV_HUGEPAGE);
  return pages;
}

void unmapPages(void* pages, size_t bytes) {
  munmap(pages, bytes);
}

#else
// ================================================================ the portable twin
const char* name() {
  return "portable";
}

namespace {

// Waiters of a word meet in one of a few queues, chosen by its address; a queue that several words
// share only costs needless wake-ups. Never destroyed: threads may wait while the process exits.
struct Queue {
  std::mutex mutex;
  std::condition_variable changed;
};

Queue& queueOf(const void* word) {
  constexpr size_t kQueues = 16;
  static Queue* const queues = new Queue[kQueues];
  return queues[reinterpret_cast<uintptr_t>(word) / 64 % kQueues];
}

}  // namespace

void wait(const std::atomic<uint32_t>& word, uint32_t expected) {
  Queue& queue = queueOf(&word);
  std::unique_lock<std::mutex> lock(queue.mutex);
  if (word.load(std::memory_order_acquire) == expected) queue.changed.wait(lock);
}

void wake(const std::atomic<uint32_t>& word, int) {
  Queue& queue = queueOf(&word);
  // Whoever saw the old value holds the mutex until it waits, so it cannot miss this.
  { std::lock_guard<std::mutex> lock(queue.mutex); }
  queue.changed.notify_all();
}

Processors processors() {
  Processors p{hardwareThreads(), hardwareThreads(), kNoQuota, 0};
  p.usable = usableOf(p);
  return p;
}

std::string processorName() {
  return "";
}
std::string processorFeatures() {
  return "";
}
bool permitTiles() {
  return false;
}
void enterWorkerThread(int) {}
void onForkChild(void (*)()) {}
size_t memoryLimit() {
  return 0;
}

void* mapPages(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  return ::operator new (bytes, std::align_val_t{kHugePage}, std::nothrow);
}
void unmapPages(void* pages, size_t) {
  ::operator delete (pages, std::align_val_t{kHugePage});
}
#endif

}  // namespace adjoint::cpu::os
