#include "cpu/simd.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "shared/error.h"

namespace adjoint::cpu {

namespace detail {
std::atomic<int> currentSimdLevel{-1};
}

const char* simdLevelName(SimdLevel level) {
  constexpr const char* names[kSimdLevels] = {"scalar", "avx2", "avx512", "neon"};
  return names[static_cast<int>(level)];
}

bool isSimdLevelSupported(SimdLevel level) {
  switch (level) {
    case SimdLevel::scalar:
      return true;
    case SimdLevel::avx2:
#if defined(ADJOINT_HAS_AVX2)
      // Every processor with AVX2 has F16C.
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
      return false;
#endif
    case SimdLevel::avx512:
#if defined(ADJOINT_HAS_AVX512)
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
      return false;
#endif
    case SimdLevel::neon:
#if defined(ADJOINT_HAS_NEON)
      return true;  // part of every 64-bit Arm processor
#else
      return false;
#endif
  }
  return false;
}

static std::string supportedNames() {
  std::string names;
  for (int i = 0; i < kSimdLevels; i++) {
    const auto level = static_cast<SimdLevel>(i);
    if (!isSimdLevelSupported(level)) continue;
    if (!names.empty()) names += ", ";
    names += simdLevelName(level);
  }
  return names;
}

void setSimdLevel(SimdLevel level) {
  if (!isSimdLevelSupported(level)) {
    fail(ErrorKind::argument, "setSimdLevel: expected one of %s on this processor, got %s",
         supportedNames().c_str(), simdLevelName(level));
  }
  detail::currentSimdLevel.store(static_cast<int>(level), std::memory_order_relaxed);
}

int detail::chooseSimdLevel() {
  const char* wanted = std::getenv("ADJOINT_SIMD");
  int best = static_cast<int>(SimdLevel::scalar);
  bool found = false;
  for (int i = 0; i < kSimdLevels; i++) {
    const auto level = static_cast<SimdLevel>(i);
    if (!isSimdLevelSupported(level)) continue;
    if (wanted && *wanted && std::strcmp(wanted, simdLevelName(level)) != 0) continue;
    best = i;
    found = true;
  }
  if (!found) {
    fail(ErrorKind::argument, "ADJOINT_SIMD: expected one of %s on this processor, got '%s'",
         supportedNames().c_str(), wanted);
  }
  currentSimdLevel.store(best, std::memory_order_relaxed);
  return best;
}

}  // namespace adjoint::cpu
