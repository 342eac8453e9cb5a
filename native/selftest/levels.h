// The SIMD levels that the tests run at.
#pragma once
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpu/features.h"
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

// Runs `body` with each choice of the features that multiply bfloat16 that this processor has, and
// restores them.
template <class F>
void forEachBf16Form(F body) {
  using cpu::Feature;
  const bool amxBefore = hasFeature(Feature::amxBf16);
  const bool avx512Before = hasFeature(Feature::avx512Bf16);
  for (bool amx : {true, false}) {
    for (bool avx512 : {true, false}) {
      if ((amx && !isFeatureSupported(Feature::amxBf16)) ||
          (avx512 && !isFeatureSupported(Feature::avx512Bf16))) {
        continue;
      }
      setFeature(Feature::amxBf16, amx);
      setFeature(Feature::avx512Bf16, avx512);
      body(amx, avx512);
    }
  }
  setFeature(Feature::amxBf16, amxBefore);
  setFeature(Feature::avx512Bf16, avx512Before);
}

}  // namespace adjoint
