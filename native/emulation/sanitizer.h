// AddressSanitizer's marks on memory; without it they do nothing.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define ADJOINT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADJOINT_ASAN 1
#endif
#endif
#if defined(ADJOINT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace adjoint::emulation {

inline void poisonMemory(void* p, size_t bytes) {
#if defined(ADJOINT_ASAN)
  __asan_poison_memory_region(p, bytes);
#endif
}
inline void unpoisonMemory(void* p, size_t bytes) {
#if defined(ADJOINT_ASAN)
  __asan_unpoison_memory_region(p, bytes);
#endif
}

}  // namespace adjoint::emulation
