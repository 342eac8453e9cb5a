// The rate of vdpbf16ps: sixteen chains, which cover its latency, of four operands by four.
#include <immintrin.h>

#include "cpu/features/probe.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

constexpr int kSide = 4, kLanes = 16;

float multiplyAdds(int64_t steps) {
  alignas(64) uint16_t operands[2 * kSide * 2 * kLanes];
  fillOperands(operands);
  __m512i a[kSide], b[kSide];
  __m512 sum[kSide][kSide];
#pragma GCC unroll 4
  for (int i = 0; i < kSide; i++) {
    a[i] = _mm512_load_si512(operands + 2 * kLanes * i);
    b[i] = _mm512_load_si512(operands + 2 * kLanes * (kSide + i));
#pragma GCC unroll 4
    for (int j = 0; j < kSide; j++) sum[i][j] = _mm512_setzero_ps();
  }
  for (int64_t s = 0; s < steps; s++) {
#pragma GCC unroll 4
    for (int i = 0; i < kSide; i++) {
#pragma GCC unroll 4
      for (int j = 0; j < kSide; j++) {
        sum[i][j] = _mm512_dpbf16_ps(sum[i][j], (__m512bh)a[i], (__m512bh)b[j]);
      }
    }
  }
  float total = 0;
  for (int i = 0; i < kSide; i++) {
    for (int j = 0; j < kSide; j++) {
      float lanes[kLanes];
      _mm512_storeu_ps(lanes, sum[i][j]);
      for (int lane = 0; lane < kLanes; lane++) total += lanes[lane];
    }
  }
  return total;
}

}  // namespace

const ProbeTable probeTable = {multiplyAdds, 2.0 * kSide* kSide * 2 * kLanes};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
