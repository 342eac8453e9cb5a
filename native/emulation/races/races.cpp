// Finds data races in kernels. For the build selftest_races alone: native/cuda/*.cu are compiled
// with -fsanitize=thread, which calls the functions at the end of this file before each access to
// memory, and linked with them instead of with ThreadSanitizer itself.
//
// Two accesses to a byte of one launch, one of them a write, race unless they are the same
// thread's, or of one block with a __syncthreads in between, or of one warp with a __syncwarp.
#include <dlfcn.h>

#include <cstdio>
#include <unordered_map>

#include "emulation/block.h"
#include "emulation/emulation.h"
#include "emulation/fiber.h"
#include "emulation/races/traffic.h"

namespace adjoint::emulation {
namespace {

struct Access {
  uint64_t block = 0;  // 0: none yet
  uint32_t thread = 0, blockEpoch = 0, warpEpoch = 0;
  bool isShared = false;  // to the block's own memory, which the next block gets anew
  const void* pc = nullptr;

  bool isSameThread(const Access& o) const { return block == o.block && thread == o.thread; }
  bool isBefore(const Access& later) const {
    if (block != later.block) return false;
    if (blockEpoch < later.blockEpoch) return true;
    return thread / 32 == later.thread / 32 && warpEpoch < later.warpEpoch;
  }
  bool races(const Access& later) const {
    if (block == 0 || (isShared && block != later.block)) return false;
    return !isSameThread(later) && !isBefore(later);
  }
};

// The last write and the last reads by two different threads: whoever writes next, one of the two
// was somebody else's.
struct Byte {
  Access write, reads[2];
};
struct Word {
  Byte bytes[4];
};

struct Shadow {
  std::unordered_map<uintptr_t, Word> words;
  uint64_t launch = 0;
};
Shadow& shadow() {
  static Shadow* s = new Shadow;
  return *s;
}

// The function that holds an instruction, and how far into the file it stands (for addr2line).
void describe(char* text, size_t size, const Access& a, const char* kind) {
  Dl_info info{};
  dladdr(a.pc, &info);
  const auto offset = static_cast<const char*>(a.pc) - static_cast<const char*>(info.dli_fbase);
  std::snprintf(text, size, "%s by thread %u of block %llu in %s (+0x%zx)", kind, a.thread,
                static_cast<unsigned long long>(a.block),
                info.dli_sname ? info.dli_sname : "a kernel", static_cast<size_t>(offset));
}

void report(const Access& earlier, bool earlierWrites, const Access& later, bool laterWrites) {
  char first[600], second[600], text[1400];
  describe(first, sizeof first, earlier, earlierWrites ? "write" : "read");
  describe(second, sizeof second, later, laterWrites ? "write" : "read");
  std::snprintf(text, sizeof text, "data race: %s and %s", first, second);
  failBlock(text);
}

void touchByte(Byte& b, const Access& now, bool writes) {
  if (b.write.races(now)) report(b.write, true, now, writes);
  if (writes) {
    for (const Access& read : b.reads) {
      if (read.races(now)) report(read, false, now, true);
    }
    b.write = now;
  } else {
    if (!b.reads[0].isSameThread(now)) b.reads[1] = b.reads[0];
    b.reads[0] = now;
  }
}

std::vector<MemoryRange>* traffic = nullptr;

void count(const void* p, size_t bytes, bool writes) {
  if (!isDeviceMemory(p, bytes)) return;
  const char* at = static_cast<const char*>(p);
  for (MemoryRange& range : *traffic) {
    if ((at < range.begin || at >= range.end) && &range != &traffic->back()) continue;
    (writes ? range.written : range.read) += bytes;
    return;
  }
}

void touch(const void* p, size_t bytes, bool writes, const void* pc) {
  if (!running.thread || running.host != hostThread() || Fiber::isOnStack(p)) return;
  if (traffic) count(p, bytes, writes);
  Shadow& s = shadow();
  if (s.launch != running.launchSerial) {
    s.words.clear();
    s.launch = running.launchSerial;
  }
  const Thread& t = *running.thread;
  const Access now{running.blockSerial, t.linear, t.blockEpoch, t.warpEpoch, isSharedMemory(p), pc};
  const auto address = reinterpret_cast<uintptr_t>(p);
  for (uintptr_t a = address; a < address + bytes; a++) {
    touchByte(s.words[a / 4].bytes[a % 4], now, writes);
  }
}

}  // namespace

void countTraffic(std::vector<MemoryRange>* ranges) {
  traffic = ranges;
}

}  // namespace adjoint::emulation

// What the compiler calls. The names are ThreadSanitizer's interface.
#define ADJOINT_HOOK __attribute__((visibility("default")))
#define ADJOINT_HOOKS(bytes)                                                 \
  ADJOINT_HOOK void __tsan_read##bytes(void* p) {                            \
    adjoint::emulation::touch(p, bytes, false, __builtin_return_address(0)); \
  }                                                                          \
  ADJOINT_HOOK void __tsan_write##bytes(void* p) {                           \
    adjoint::emulation::touch(p, bytes, true, __builtin_return_address(0));  \
  }                                                                          \
  ADJOINT_HOOK void __tsan_unaligned_read##bytes(void* p) {                  \
    adjoint::emulation::touch(p, bytes, false, __builtin_return_address(0)); \
  }                                                                          \
  ADJOINT_HOOK void __tsan_unaligned_write##bytes(void* p) {                 \
    adjoint::emulation::touch(p, bytes, true, __builtin_return_address(0));  \
  }
extern "C" {
ADJOINT_HOOK void __tsan_init() {}
ADJOINT_HOOK void __tsan_vptr_update(void**, void*) {}  // objects of the host
ADJOINT_HOOKS(1)
ADJOINT_HOOKS(2)
ADJOINT_HOOKS(4)
ADJOINT_HOOKS(8)
ADJOINT_HOOKS(16)
ADJOINT_HOOK void __tsan_read_range(void* p, size_t bytes) {
  adjoint::emulation::touch(p, bytes, false, __builtin_return_address(0));
}
ADJOINT_HOOK void __tsan_write_range(void* p, size_t bytes) {
  adjoint::emulation::touch(p, bytes, true, __builtin_return_address(0));
}
}
