// What the processor reaches at best, measured: float32 at each SIMD level, bfloat16 on each
// feature.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

struct ProbeTable {
  // Independent multiply-adds on registers; their sum, so that they are computed.
  float (*multiplyAdds)(int64_t steps);
  double operationsPerStep;  // two for each multiply-add
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(ProbeTable, probeTable)
