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

// Says, while it lives, which features that multiply bfloat16 are used where there are any.
class FeatureChoice {
 public:
  FeatureChoice(bool amx, bool avx512)
      : amxBefore_(setFeature(cpu::Feature::amxBf16, amx)),
        avx512Before_(setFeature(cpu::Feature::avx512Bf16, avx512)) {}
  ~FeatureChoice() {
    setFeature(cpu::Feature::amxBf16, amxBefore_);
    setFeature(cpu::Feature::avx512Bf16, avx512Before_);
  }
  FeatureChoice(const FeatureChoice&) = delete;
  FeatureChoice& operator=(const FeatureChoice&) = delete;

 private:
  const bool amxBefore_, avx512Before_;
};

// Runs `body` with each choice of those that this processor has.
template <class F>
void forEachBf16Form(F body) {
  for (bool amx : {true, false}) {
    if (amx && !isFeatureSupported(cpu::Feature::amxBf16)) continue;
    for (bool avx512 : {true, false}) {
      if (avx512 && !isFeatureSupported(cpu::Feature::avx512Bf16)) continue;
      const FeatureChoice choice(amx, avx512);
      body(amx, avx512);
    }
  }
}

}  // namespace adjoint
