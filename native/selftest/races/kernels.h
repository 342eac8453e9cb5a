// Kernels with and without races.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace adjoint::races {

constexpr unsigned kBlock = 64;

// y[i] = x[i] + its neighbour's, `rounds` times, through shared memory.
template <bool barrierAfterWrite, bool barrierAfterRead>
__global__ void neighbourKernel(float* y, const float* x, int rounds);
// Lane 0 adds up what its warp has left in shared memory.
template <bool synchronized>
__global__ void warpSumKernel(float* y);
// All threads count in one place, without an atomic.
__global__ void countKernel(int* total);
// With one.
__global__ void atomicCountKernel(int* total);
// All blocks write to one place.
__global__ void blocksMeetKernel(float* y);
// Threads write neighbouring bytes.
__global__ void bytesKernel(uint8_t* y);

}  // namespace adjoint::races
