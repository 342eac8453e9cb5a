// The null runtime, which is the emulation's alone.
#ifndef ADJOINT_REAL_DEVICE
#include "device_tensor.h"

namespace adjoint::test {
namespace {

TEST(NullRuntime, countsAndRunsNothing) {
  const DeviceTensor a(DType::float32, {2, 2}, {1, 2, 3, 4}),
      y(DType::float32, {2, 2}, {5, 6, 7, 8});
  backend::synchronize();
  const emulation::CallCounts before = emulation::callCounts();
  emulation::setNullRuntime(true);
  backend::fill(y, Scalar::of(9.0));
  backend::matmul(y, a, a, nullptr);
  EXPECT_EQ(emulation::pendingWork(), 0u);
  EXPECT_THROW(cuda::launch(
                   1, 1025, 0, cuda::stream(), +[](int) {}, 1),
               Error);
  emulation::setNullRuntime(false);
  const emulation::CallCounts after = emulation::callCounts();
  EXPECT_EQ(after.kernels - before.kernels, 1u);
  EXPECT_EQ(after.libraryCalls - before.libraryCalls, 1u);
  EXPECT_EQ(y.read(), (Values{5, 6, 7, 8}));
  backend::fill(y, Scalar::of(9.0));
  EXPECT_EQ(y.read(), (Values{9, 9, 9, 9}));
}

}  // namespace
}  // namespace adjoint::test
#endif
