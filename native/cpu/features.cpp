#include "cpu/features.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "cpu/os.h"
#include "cpu/simd.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace adjoint::cpu {
namespace {

struct Facts {
  const char* name;
  const char* variable;
};
constexpr Facts kFacts[kFeatures] = {{"avx512_bf16", "ADJOINT_AVX512_BF16"},
                                     {"amx_bf16", "ADJOINT_AMX"}};

bool isIntel() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx && c == signature_INTEL_ecx &&
         d == signature_INTEL_edx;
#else
  return false;
#endif
}

// Intel's cores do vdpbf16ps at half the rate of float32's multiply-adds (Emerald Rapids: 89 and
// 178 GFLOP/s a core), AMD's at twice (Zen 4: 233 and 117).
bool isFasterThanFloat32(Feature feature) {
  return feature != Feature::avx512Bf16 || !isIntel();
}

bool isWanted(Feature feature) {
  const char* value = std::getenv(kFacts[static_cast<int>(feature)].variable);
  return value ? std::strcmp(value, "0") != 0 : isFasterThanFloat32(feature);
}

std::atomic<bool>& enabled(Feature feature) {
  static std::atomic<bool> flags[kFeatures] = {{isWanted(Feature::avx512Bf16)},
                                               {isWanted(Feature::amxBf16)}};
  return flags[static_cast<int>(feature)];
}

// Intel, Software Developer's Manual, volume 2, CPUID: leaf 7.
bool processorHas(Feature feature) {
#if defined(ADJOINT_HAS_AVX512) && defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool hasBf16 = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
  if (feature == Feature::avx512Bf16) return hasBf16;
  const bool hasTiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 1);
  return hasBf16 && hasTiles && (d >> 22 & 1) && os::permitTiles();
#else
  return false;
#endif
}

}  // namespace

const char* featureName(Feature feature) {
  return kFacts[static_cast<int>(feature)].name;
}

bool isFeatureSupported(Feature feature) {
  if (!isSimdLevelSupported(SimdLevel::avx512)) return false;
  static const bool supported[kFeatures] = {processorHas(Feature::avx512Bf16),
                                            processorHas(Feature::amxBf16)};
  return supported[static_cast<int>(feature)];
}

bool hasFeature(Feature feature) {
  return simdLevel() == SimdLevel::avx512 && enabled(feature).load(std::memory_order_relaxed) &&
         isFeatureSupported(feature);
}

bool setFeature(Feature feature, bool on) {
  return enabled(feature).exchange(on, std::memory_order_relaxed);
}

}  // namespace adjoint::cpu
