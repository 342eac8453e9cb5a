// The race detector itself, on kernels that lack a barrier or an atomic, or lack nothing.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <string>

#include "cuda/launch.h"
#include "emulation/emulation.h"
#include "selftest/races/kernels.h"

namespace adjoint {
namespace {

using namespace races;

class Races : public ::testing::TestWithParam<emulation::ThreadOrder> {
 protected:
  void SetUp() override {
    emulation::setThreadOrder(GetParam());
    ADJOINT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    ADJOINT_CUDA(cudaMalloc(&memory, 4096));
  }
  void TearDown() override {
    cudaStreamDestroy(stream);
    cudaFree(memory);
    emulation::setThreadOrder(emulation::ThreadOrder::forward);
  }
  template <class T, class... Parameters, class... Arguments>
  std::string run(unsigned grid, void (*kernel)(T*, Parameters...), Arguments... arguments) {
    cuda::launch(grid, kBlock, 0, stream, kernel, static_cast<T*>(memory), arguments...);
    const cudaError_t status = cudaStreamSynchronize(stream);
    const std::string message = status == cudaSuccess ? "" : cudaGetErrorString(status);
    emulation::clearError();
    return message;
  }
  bool isRace(const std::string& message) { return message.find("data race") == 0; }

  cudaStream_t stream = nullptr;
  void* memory = nullptr;
};
INSTANTIATE_TEST_SUITE_P(Orders, Races,
                         ::testing::Values(emulation::ThreadOrder::forward,
                                           emulation::ThreadOrder::reverse,
                                           emulation::ThreadOrder::shuffled));

TEST_P(Races, findsWhatIsMissing) {
  const float* x = static_cast<float*>(memory) + 512;
  EXPECT_TRUE(isRace(run(1, neighbourKernel<false, true>, x, 1)));
  EXPECT_TRUE(isRace(run(1, neighbourKernel<true, false>, x, 2)));
  EXPECT_TRUE(isRace(run(1, warpSumKernel<false>)));
  EXPECT_TRUE(isRace(run(1, countKernel)));
  EXPECT_TRUE(isRace(run(2, blocksMeetKernel)));
  EXPECT_NE(run(1, countKernel).find("countKernel"), std::string::npos) << "names the kernel";
}

TEST_P(Races, findsNothingWhereNothingIsMissing) {
  const float* x = static_cast<float*>(memory) + 512;
  EXPECT_EQ(run(1, neighbourKernel<true, true>, x, 3), "");
  EXPECT_EQ(run(1, neighbourKernel<true, false>, x, 1), "");
  EXPECT_EQ(run(1, warpSumKernel<true>), "");
  EXPECT_EQ(run(1, blocksMeetKernel), "");
  EXPECT_EQ(run(2, atomicCountKernel), "");
  EXPECT_EQ(run(1, bytesKernel), "") << "neighbouring bytes are different places";
}

}  // namespace
}  // namespace adjoint
