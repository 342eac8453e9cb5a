// What the probes of the bfloat16 units multiply.
#pragma once
#include "cpu/kernels/probe.h"
#include "shared/host_device.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// Values in [1/2, 1) of many digits: what a unit draws, and so its rate, depends on its operands.
template <int N>
ADJOINT_INLINE void fillOperands(uint16_t (&x)[N]) {
  uint32_t state = 1;
  for (int i = 0; i < N; i++) {
    state = state * 1664525u + 1013904223u;
    x[i] = static_cast<uint16_t>(0x3f00u | state >> 25);
  }
}

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
