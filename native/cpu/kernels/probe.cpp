#include "cpu/kernels/probe.h"

#include "cpu/kernels/vec.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// Twelve chains cover a latency of 4 cycles at 2 a cycle, and fit 16 registers.
constexpr int kChains = 12;

float multiplyAdds(int64_t steps) {
  // Read at run time: the compiler would see that the chain which starts at 1 stays there, and
  // leave it out.
  volatile float read[] = {0.999f, 1e-3f};
  Vec x[kChains], factor(read[0]), offset(read[1]);
  for (int c = 0; c < kChains; c++) x[c] = Vec(static_cast<float>(c));
  for (int64_t i = 0; i < steps; i++) {
    for (int c = 0; c < kChains; c++) x[c] = x[c] * factor + offset;
  }
  Vec sum = x[0];
  for (int c = 1; c < kChains; c++) sum = sum + x[c];
  float lanes[kLanes], total = 0;
  store(lanes, sum);
  for (int lane = 0; lane < kLanes; lane++) total += lanes[lane];
  return total;
}

}  // namespace

const ProbeTable probeTable = {multiplyAdds, 2.0 * kChains* kLanes};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
