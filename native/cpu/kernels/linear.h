// The activation that follows a matrix product, and its slope.
#pragma once
#include <cstdint>

#include "cpu/simd.h"
#include "shared/convert.h"
#include "shared/opcodes.h"

namespace adjoint::cpu {

constexpr int kActivations = static_cast<int>(Activation::count);

// y = f(z) and slopes = f'(z); y may be z
template <class S>
using ActivateLoop = void (*)(S* y, S* slopes, const S* z, int64_t n);
// dz = dy f'; sums[j] += dz[j], nullptr for none. Of relu `kept` is y, of the others the slopes.
template <class T, class S>
using SlopeLoop = void (*)(S* dz, const S* dy, const S* kept, T* sums, int64_t n);

// By Activation; nullptr where there is none.
template <class T, class S>
struct LinearKernels {
  ActivateLoop<S> activate[kActivations];
  SlopeLoop<T, S> slopes[kActivations];
};
struct LinearTable {
  LinearKernels<float, float> f32;
  LinearKernels<double, double> f64;
  LinearKernels<float, BFloat16> bf16;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(LinearTable, linearTable)
