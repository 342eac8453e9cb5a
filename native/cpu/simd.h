// The SIMD level: which of the compiled kernel sets runs. Chosen once, from what the processor has;
// ADJOINT_SIMD=scalar|avx2|avx512|neon overrides it.
#pragma once
#include <atomic>

namespace adjoint::cpu {

enum class SimdLevel : int { scalar, avx2, avx512, neon };
constexpr int kSimdLevels = 4;

const char* simdLevelName(SimdLevel level);
// Compiled in, and runnable on this processor.
bool isSimdLevelSupported(SimdLevel level);
// For tests: throws where the level is not supported.
void setSimdLevel(SimdLevel level);

namespace detail {
extern std::atomic<int> currentSimdLevel;  // -1: not chosen yet
// Throws where ADJOINT_SIMD names no level, or one that this processor or build does not have.
int chooseSimdLevel();
}  // namespace detail

inline SimdLevel simdLevel() {
  const int level = detail::currentSimdLevel.load(std::memory_order_relaxed);
  return static_cast<SimdLevel>(level >= 0 ? level : detail::chooseSimdLevel());
}

}  // namespace adjoint::cpu

// A family's header, at global scope: ADJOINT_KERNEL_TABLE(SoftmaxTable, softmaxTable) declares the
// table of each level, `adjoint::cpu::<level>::softmaxTable`, and the function
// `adjoint::cpu::softmaxTable()` that gives the one of the current level.
#if defined(ADJOINT_HAS_AVX2)
#define ADJOINT_AVX2_DECLARATION(Type, name) \
  namespace adjoint::cpu::avx2 {             \
  extern const Type name;                    \
  }
#define ADJOINT_AVX2_POINTER(name) &avx2::name
#else
#define ADJOINT_AVX2_DECLARATION(Type, name)
#define ADJOINT_AVX2_POINTER(name) nullptr
#endif
#if defined(ADJOINT_HAS_AVX512)
#define ADJOINT_AVX512_DECLARATION(Type, name) \
  namespace adjoint::cpu::avx512 {             \
  extern const Type name;                      \
  }
#define ADJOINT_AVX512_POINTER(name) &avx512::name
#else
#define ADJOINT_AVX512_DECLARATION(Type, name)
#define ADJOINT_AVX512_POINTER(name) nullptr
#endif
#if defined(ADJOINT_HAS_NEON)
#define ADJOINT_NEON_DECLARATION(Type, name) \
  namespace adjoint::cpu::neon {             \
  extern const Type name;                    \
  }
#define ADJOINT_NEON_POINTER(name) &neon::name
#else
#define ADJOINT_NEON_DECLARATION(Type, name)
#define ADJOINT_NEON_POINTER(name) nullptr
#endif

#if defined(ADJOINT_LEVEL)
// Inside a kernel file only the level's own table is visible; nothing inline is emitted.
#define ADJOINT_KERNEL_TABLE(Type, name)  \
  namespace adjoint::cpu::ADJOINT_LEVEL { \
  extern const Type name;                 \
  }
#else
#define ADJOINT_KERNEL_TABLE(Type, name)                                                       \
  namespace adjoint::cpu::scalar {                                                             \
  extern const Type name;                                                                      \
  }                                                                                            \
  ADJOINT_AVX2_DECLARATION(Type, name)                                                         \
  ADJOINT_AVX512_DECLARATION(Type, name)                                                       \
  ADJOINT_NEON_DECLARATION(Type, name)                                                         \
  namespace adjoint::cpu {                                                                     \
  inline const Type& name() {                                                                  \
    static const Type* const tables[kSimdLevels] = {&scalar::name, ADJOINT_AVX2_POINTER(name), \
                                                    ADJOINT_AVX512_POINTER(name),              \
                                                    ADJOINT_NEON_POINTER(name)};               \
    return *tables[static_cast<int>(simdLevel())];                                             \
  }                                                                                            \
  }
#endif
