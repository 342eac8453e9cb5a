// What the emulation must run of a kernel, and the mistakes that it must find there.
#include <cmath>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "emulated_stream.h"

namespace adjoint {
namespace {

using cuda::launch;
using emulation::ThreadOrder;
using test::EmulatedStream;

class Emulation : public EmulatedStream {};
INSTANTIATE_TEST_SUITE_P(Orders, Emulation,
                         ::testing::Values(ThreadOrder::forward, ThreadOrder::reverse,
                                           ThreadOrder::shuffled));

// y[i] = the sum of x over the block of i, through shared memory and two barriers per step.
__global__ void blockSumKernel(int* y, const int* x, int steps) {
  ADJOINT_SHARED(int, partial, 256);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  int sum = 0;
  for (int step = 0; step < steps; step++) {
    partial[threadIdx.x] = x[i] + step;
    __syncthreads();
    sum = 0;
    for (unsigned j = 0; j < blockDim.x; j++) sum += partial[j];
    __syncthreads();
  }
  y[i] = sum;
}

TEST_P(Emulation, barriersOrderSharedMemory) {
  const unsigned block = 96, grid = 5;
  int* x = deviceArray<int>(block * grid);
  int* y = deviceArray<int>(block * grid);
  for (unsigned i = 0; i < block * grid; i++) x[i] = static_cast<int>(i * i % 31);
  launch(grid, block, 0, stream, blockSumKernel, y, x, 3);
  EXPECT_EQ(run(), "");
  for (unsigned b = 0; b < grid; b++) {
    int sum = 0;
    for (unsigned j = 0; j < block; j++) sum += x[b * block + j] + 2;
    for (unsigned j = 0; j < block; j++) EXPECT_EQ(y[b * block + j], sum);
  }
  ADJOINT_CUDA(cudaFree(x));
  ADJOINT_CUDA(cudaFree(y));
}

// y[i] = x[n - 1 - i] through memory whose size is given at the launch.
__global__ void reverseKernel(int* y, const int* x) {
  ADJOINT_DYNAMIC_SHARED(int, values);
  values[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

TEST_P(Emulation, dynamicSharedMemory) {
  int* x = deviceArray<int>(100);
  int* y = deviceArray<int>(100);
  for (int i = 0; i < 100; i++) x[i] = i;
  launch(1, 100, 100 * sizeof(int), stream, reverseKernel, y, x);
  EXPECT_EQ(run(), "");
  for (int i = 0; i < 100; i++) EXPECT_EQ(y[i], 99 - i);
  ADJOINT_CUDA(cudaFree(x));
  ADJOINT_CUDA(cudaFree(y));
}

__global__ void warpKernel(int* down, double* xored, unsigned* ballots, int* broadcast) {
  const unsigned i = threadIdx.x, lane = i % 32;
  down[i] = __shfl_down_sync(~0u, static_cast<int>(i), 3u);
  xored[i] = __shfl_xor_sync(~0u, i * 0.5, 5);
  ballots[i] = __ballot_sync(~0u, i % 3 == 0);
  broadcast[i] = __shfl_sync(~0u, static_cast<int>(i), 7, 16);
  // Two halves of a warp may meet by themselves.
  if (lane < 16) {
    down[i] += __shfl_xor_sync(0x0000ffffu, 100, 1, 16);
  } else {
    down[i] += __shfl_xor_sync(0xffff0000u, 200, 1, 16);
  }
  __syncwarp();
}

TEST_P(Emulation, warpOperations) {
  const int n = 96;
  int* down = deviceArray<int>(n);
  double* xored = deviceArray<double>(n);
  unsigned* ballots = deviceArray<unsigned>(n);
  int* broadcast = deviceArray<int>(n);
  launch(1, n, 0, stream, warpKernel, down, xored, ballots, broadcast);
  EXPECT_EQ(run(), "");
  for (int i = 0; i < n; i++) {
    const int lane = i % 32, first = i - lane;
    unsigned ballot = 0;
    for (int j = 0; j < 32; j++) ballot |= unsigned((first + j) % 3 == 0) << j;
    EXPECT_EQ(down[i], (lane + 3 < 32 ? i + 3 : i) + (lane < 16 ? 100 : 200));
    EXPECT_EQ(xored[i], (i ^ 5) * 0.5);
    EXPECT_EQ(ballots[i], ballot);
    EXPECT_EQ(broadcast[i], i - i % 16 + 7);
  }
  for (void* p : {(void*)down, (void*)xored, (void*)ballots, (void*)broadcast}) {
    ADJOINT_CUDA(cudaFree(p));
  }
}

// Each thread takes the next place of `order`; one of them all claims `first`.
__global__ void atomicKernel(unsigned* count, int* order, int* first) {
  const auto i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  order[atomicAdd(count, 1u)] = i;
  const int before = atomicCAS(first, -1, i);
  __threadfence();
  if (before == -1) atomicExch(first + 1, atomicExch(first + 2, i) + 1);
}

TEST_P(Emulation, atomics) {
  const unsigned block = 40, grid = 3, n = block * grid;
  unsigned* count = deviceArray<unsigned>(1);
  int* order = deviceArray<int>(n);
  int* first = deviceArray<int>(3);
  *count = 0;
  first[0] = -1;
  first[2] = 6;
  launch(grid, block, 0, stream, atomicKernel, count, order, first);
  EXPECT_EQ(run(), "");
  EXPECT_EQ(*count, n);
  EXPECT_EQ(first[0], order[0]);
  EXPECT_EQ(first[1], 7);
  EXPECT_EQ(first[2], order[0]);
  std::vector<bool> seen(n);
  for (unsigned i = 0; i < n; i++) seen[static_cast<unsigned>(order[i])] = true;
  EXPECT_EQ(seen, std::vector<bool>(n, true));
  for (void* p : {(void*)count, (void*)order, (void*)first}) ADJOINT_CUDA(cudaFree(p));
}

__global__ void divergentBarrierKernel() {
  if (threadIdx.x < 7) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void earlyReturnKernel() {
  if (threadIdx.x == 5) return;
  __syncthreads();
}
__global__ void missingLaneKernel() {
  if (threadIdx.x != 9) __syncwarp();
}
__global__ void wholeWarpKernel() {
  __syncwarp();
}
__global__ void foreignMaskKernel() {
  if (threadIdx.x == 3) __syncwarp(1u);
}
__global__ void strangeSourceKernel(int* y) {
  if (threadIdx.x < 8) y[threadIdx.x] = __shfl_sync(0xffu, 1, 20);
}
__global__ void tooMuchSharedKernel() {
  ADJOINT_SHARED(double, big, 7000);
  big[threadIdx.x] = 0;
}

__global__ void dynamicSharedKernel(int* y, int n) {
  ADJOINT_DYNAMIC_SHARED(int, all);
  all[threadIdx.x] = all[n - 1 - static_cast<int>(threadIdx.x)] = 7;
  y[threadIdx.x] = all[n - 1 - static_cast<int>(threadIdx.x)];
}

// As a device of compute capability 8.0 and up has it: 99 KiB for a kernel that asks.
TEST_P(Emulation, givesMoreSharedMemoryToKernelsThatAsk) {
  int* y = deviceArray<int>(32);
  launch(1, 32, 60 << 10, stream, dynamicSharedKernel, y, (60 << 10) / 4);
  EXPECT_EQ(run(), "");
  EXPECT_EQ(y[31], 7);
  EXPECT_THROW(launch(1, 32, 100 << 10, stream, dynamicSharedKernel, y, 1), Error);
  emulation::clearError();
}

TEST_P(Emulation, findsDivergence) {
  int* y = deviceArray<int>(32);
  auto failure = [&](auto kernel, auto... arguments) {
    launch(2, 32, 0, stream, kernel, arguments...);
    std::string message = run();
    EXPECT_EQ(run(), message) << "a failed kernel leaves an error that stays";
    emulation::clearError();
    return message;
  };
  EXPECT_NE(failure(divergentBarrierKernel).find("divergent barrier"), std::string::npos);
  EXPECT_NE(failure(earlyReturnKernel).find("has returned"), std::string::npos);
  EXPECT_NE(failure(missingLaneKernel).find("deadlock"), std::string::npos);
  EXPECT_NE(failure(foreignMaskKernel).find("lacks the caller"), std::string::npos);
  EXPECT_NE(failure(strangeSourceKernel, y).find("outside the mask"), std::string::npos);
  EXPECT_NE(failure(tooMuchSharedKernel).find("more shared memory"), std::string::npos);
  launch(1, 48, 0, stream, wholeWarpKernel);
  EXPECT_NE(run().find("missing lanes"), std::string::npos);
  emulation::clearError();
  // The device works again.
  launch(1, 32, 0, stream, blockSumKernel, y, y, 0);
  EXPECT_EQ(run(), "");
  ADJOINT_CUDA(cudaFree(y));
}

__global__ void uninitialisedKernel(float* y) {
  ADJOINT_SHARED(float, values, 32);
  y[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = 1;
}
__global__ void overrunKernel(int past) {
  ADJOINT_SHARED(float, values, 32);
  values[threadIdx.x + (threadIdx.x == 31 ? past : 0)] = 1;
}

TEST_P(Emulation, sharedMemoryStartsAsNaNInEveryBlock) {
  float* y = deviceArray<float>(32);
  launch(3, 32, 0, stream, uninitialisedKernel, y);
  EXPECT_EQ(run(), "");
  for (int i = 0; i < 32; i++) EXPECT_TRUE(std::isnan(y[i]));
  ADJOINT_CUDA(cudaFree(y));
}

TEST_P(Emulation, redZonesCatchOverruns) {
#if defined(__SANITIZE_ADDRESS__)
  launch(1, 32, 0, stream, overrunKernel, 1);
  EXPECT_DEATH(run(), "use-after-poison");
#else
  launch(1, 32, 0, stream, overrunKernel, 1);
  EXPECT_NE(run().find("beyond the shared array values"), std::string::npos);
#endif
  emulation::clearError();
  launch(1, 32, 0, stream, overrunKernel, 0);
  EXPECT_EQ(run(), "");
}

}  // namespace
}  // namespace adjoint
