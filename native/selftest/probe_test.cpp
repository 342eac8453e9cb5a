#include "cpu/kernels/probe.h"

#include <gtest/gtest.h>

#include "contract.h"
#include "cpu/simd.h"
#include "test_tensor.h"

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

TEST(Probe, GivesRatesOfThisMachine) {
  TestTensor rates(DType::float64, {2});
  backend::probe(rates.view());
  EXPECT_GT(rates.get(0), 1e7);
  EXPECT_LT(rates.get(0), 1e15);
  EXPECT_GT(rates.get(1), 1e7);
  EXPECT_LT(rates.get(1), 1e14);
}

}  // namespace
}  // namespace adjoint
