// Features: instruction sets beside the SIMD levels, which a family may use where the processor has
// them. Their code lies in native/cpu/features, compiled with the flags of the feature alone. They
// belong to the level avx512 and are not used at another.
#pragma once

namespace adjoint::cpu {

enum class Feature : int { avx512Bf16, amxBf16 };
constexpr int kFeatures = 2;

const char* featureName(Feature feature);
// Compiled in, and on this processor; for AMX, permitted to this process by the system.
bool isFeatureSupported(Feature feature);
// Supported, faster than float32, and the level is avx512. ADJOINT_AVX512_BF16 and ADJOINT_AMX say
// 0 or 1 instead: never, or wherever it is supported.
bool hasFeature(Feature feature);
// For tests: as the variables do. Returns what was said before.
bool setFeature(Feature feature, bool enabled);

}  // namespace adjoint::cpu
