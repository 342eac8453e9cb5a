// The SIMD levels that the tests run at.
#pragma once
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpu/simd.h"

namespace adjoint {

// Those that this processor has. ADJOINT_TEST_LEVEL names the only one wanted, where the others
// have been tried elsewhere (CI, on emulated processors).
inline std::vector<cpu::SimdLevel> levelsUnderTest() {
  const char* only = std::getenv("ADJOINT_TEST_LEVEL");
  std::vector<cpu::SimdLevel> levels;
  for (int i = 0; i < cpu::kSimdLevels; i++) {
    const auto level = static_cast<cpu::SimdLevel>(i);
    if (!cpu::isSimdLevelSupported(level)) continue;
    if (!only || std::strcmp(only, cpu::simdLevelName(level)) == 0) levels.push_back(level);
  }
  return levels;
}

}  // namespace adjoint
