// The slope of the activation that follows a matrix product.
#pragma once
#include <cstdint>

#include "cpu/simd.h"
#include "shared/convert.h"
#include "shared/opcodes.h"

namespace adjoint::cpu {

constexpr int kActivations = static_cast<int>(Activation::count);

// dz = dy f'(z), told from `kept` (contract.h); sums[j] += dz[j], nullptr for none
template <class T, class S>
using SlopeLoop = void (*)(S* dz, const S* dy, const S* kept, T* sums, int64_t n);

// By Activation; nullptr for none.
struct LinearTable {
  SlopeLoop<float, float> f32[kActivations];
  SlopeLoop<double, double> f64[kActivations];
  SlopeLoop<float, BFloat16> bf16[kActivations];
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(LinearTable, linearTable)
