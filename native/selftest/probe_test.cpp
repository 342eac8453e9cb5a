#include "cpu/kernels/probe.h"

#include <gtest/gtest.h>

#include <vector>

#include "contract.h"
#include "cpu/features.h"
#include "test_tensor.h"

namespace adjoint::cpu {
namespace emulated_amx {
extern const ProbeTable probeTable;
}
#if defined(ADJOINT_HAS_AVX512)
namespace amx {
extern const ProbeTable probeTable;
}
namespace avx512bf16 {
extern const ProbeTable probeTable;
}
#endif
}  // namespace adjoint::cpu

namespace adjoint {
namespace {

// x -> 0.999 x + 0.001 has the fixed point 1, to which every chain of every lane comes.
TEST(Probe, ComputesItsChainsAtEveryLevel) {
  forEachSimdLevel([](const char* level) {
    const cpu::ProbeTable& table = cpu::probeTable();
    const double chains = table.operationsPerStep / 2;
    EXPECT_NEAR(table.multiplyAdds(40000), chains, 1e-3 * chains) << level;
  });
}

// Every step adds the same products, and the emulation is the definition of AMX's.
TEST(Probe, ComputesItsProductsOnEveryFeature) {
  const cpu::ProbeTable& emulated = cpu::emulated_amx::probeTable;
  std::vector<const cpu::ProbeTable*> tables = {&emulated};
#if defined(ADJOINT_HAS_AVX512)
  if (isFeatureSupported(cpu::Feature::amxBf16)) {
    tables.push_back(&cpu::amx::probeTable);
    EXPECT_EQ(cpu::amx::probeTable.multiplyAdds(3), emulated.multiplyAdds(3));
  }
  if (isFeatureSupported(cpu::Feature::avx512Bf16)) tables.push_back(&cpu::avx512bf16::probeTable);
#endif
  for (const cpu::ProbeTable* table : tables) {
    const double products = table->operationsPerStep / 2, once = table->multiplyAdds(1);
    EXPECT_GT(once, 0.5 * products);
    EXPECT_LT(once, 0.6 * products);
    EXPECT_NEAR(table->multiplyAdds(50), 50 * once, 1e-4 * 50 * once);
  }
}

TEST(Probe, GivesRatesOfThisMachine) {
  TestTensor rates(DType::float64, {3});
  backend::probe(rates.view());
  for (int64_t i = 0; i < 3; i++) {
    EXPECT_GT(rates.get(i), 1e7);
    EXPECT_LT(rates.get(i), 1e15);
  }
}

}  // namespace
}  // namespace adjoint
