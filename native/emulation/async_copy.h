// The copies of native/cuda/async_copy.h. What is copied arrives when the thread waits for it;
// until then its place holds NaN bits, written at the start, so that a read too early and a copy
// too early both show.
#pragma once
#include <cstdint>
#include <cstring>

namespace adjoint::emulation {

struct AsyncCopy {
  void* shared;
  const void* global;
  bool isThere;
};
// Of the thread that runs (async_copy.cpp).
void queueCopy(const AsyncCopy& copy);
void closeCopyGroup();
// The next copy that belongs to none of the last `pending` groups, if any.
bool takeCopy(int pending, AsyncCopy* copy);

inline void copyAsync(void* shared, const void* global, bool isThere) {
  auto* target = static_cast<uint64_t*>(shared);
  target[0] = target[1] = ~uint64_t(0);
  queueCopy({shared, global, isThere});
}
inline void commitCopies() {
  closeCopyGroup();
}
template <int pending>
void waitForCopies() {
  AsyncCopy copy;
  while (takeCopy(pending, &copy)) {
    auto* target = static_cast<uint64_t*>(copy.shared);
    const auto* source = static_cast<const uint64_t*>(copy.global);
    for (int i = 0; i < 2; i++) target[i] = copy.isThere ? source[i] : 0;
  }
}

}  // namespace adjoint::emulation
