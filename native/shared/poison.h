// AddressSanitizer sees our blocks as its own: memory that is not handed out is poisoned, and every
// block ends in a red zone. Nothing of this exists in other builds.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define ADJOINT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADJOINT_ASAN 1
#endif
#endif

#ifdef ADJOINT_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace adjoint {

#ifdef ADJOINT_ASAN
constexpr size_t kRedZone = 64;
inline void poison(const void* start, size_t bytes) {
  __asan_poison_memory_region(start, bytes);
}
inline void unpoison(const void* start, size_t bytes) {
  __asan_unpoison_memory_region(start, bytes);
}
#else
constexpr size_t kRedZone = 0;
inline void poison(const void*, size_t) {}
inline void unpoison(const void*, size_t) {}
#endif

}  // namespace adjoint
