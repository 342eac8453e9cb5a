#include "cuda/launch.h"
#include "selftest/races/kernels.h"

namespace adjoint::races {

template <bool barrierAfterWrite, bool barrierAfterRead>
__global__ void neighbourKernel(float* y, const float* x, int rounds) {
  ADJOINT_SHARED(float, values, kBlock);
  const unsigned i = threadIdx.x;
  for (int round = 0; round < rounds; round++) {
    values[i] = x[i];
    if (barrierAfterWrite) __syncthreads();
    y[i] = values[i] + values[(i + 1) % kBlock];
    if (barrierAfterRead) __syncthreads();
  }
}

template <bool synchronized>
__global__ void warpSumKernel(float* y) {
  ADJOINT_SHARED(float, values, kBlock);
  const unsigned i = threadIdx.x, lane = i % 32;
  values[i] = static_cast<float>(i);
  if (synchronized) __syncwarp();
  float sum = 0;
  for (unsigned j = 0; lane == 0 && j < 32; j++) sum += values[i + j];
  if (lane == 0) y[i / 32] = sum;
}

__global__ void countKernel(int* total) {
  *total += 1;
}
__global__ void atomicCountKernel(int* total) {
  atomicAdd(total, 1);
}
__global__ void blocksMeetKernel(float* y) {
  if (threadIdx.x == 0) y[0] = static_cast<float>(blockIdx.x);
}
__global__ void bytesKernel(uint8_t* y) {
  y[threadIdx.x] = static_cast<uint8_t>(threadIdx.x);
}

template __global__ void neighbourKernel<false, true>(float*, const float*, int);
template __global__ void neighbourKernel<true, false>(float*, const float*, int);
template __global__ void neighbourKernel<true, true>(float*, const float*, int);
template __global__ void warpSumKernel<false>(float*);
template __global__ void warpSumKernel<true>(float*);

}  // namespace adjoint::races
