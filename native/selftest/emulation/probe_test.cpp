// The card's rates are numbers that a card can have.
#include "device_tensor.h"

namespace adjoint::test {
namespace {

TEST(ProbeOnDevice, givesRatesOfThisDevice) {
  const DeviceTensor rates = DeviceTensor::empty(DType::float64, {3});
  backend::probe(rates);
  for (double rate : rates.read()) {
    EXPECT_GT(rate, 1e5);
    EXPECT_LT(rate, 1e17);
  }
}

}  // namespace
}  // namespace adjoint::test
