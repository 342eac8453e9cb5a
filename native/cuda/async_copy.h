// Copies from global to shared memory that go on beside the computation (cp.async), where the
// device has them: compute capability 8.0 and up.
#pragma once
#include <cstdint>

#include "cuda/launch.h"

#ifndef __CUDACC__
#include "emulation/async_copy.h"
#endif

namespace adjoint::cuda {

#ifdef __CUDACC__
// Copies 16 bytes, both sides aligned, or writes zeros where there is nothing to copy.
ADJOINT_DEVICE void copyAsync(void* shared, const void* global, bool isThere) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(global),
               "r"(isThere ? 16 : 0)
               : "memory");
#else
  *static_cast<uint4*>(shared) = isThere ? *static_cast<const uint4*>(global) : uint4{};
#endif
}
// Makes a group of the thread's copies since the last group.
ADJOINT_DEVICE void commitCopies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
// Waits until all of the thread's groups but the last `pending` have arrived; other threads see
// them after a barrier.
template <int pending>
ADJOINT_DEVICE void waitForCopies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
#endif
}
#else
using emulation::commitCopies;
using emulation::copyAsync;
using emulation::waitForCopies;
#endif

}  // namespace adjoint::cuda
