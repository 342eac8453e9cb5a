// Registers of a warp alone meet here, so that the race detector has nothing to watch.
#include "emulation/tensor_core.h"

#include <cmath>

namespace adjoint::emulation {
namespace {

// The matrices of a warp, of which each lane brings its share, by rows and by columns.
struct Operands {
  double left[16][16], right[8][16];
};

// Number i of a register. tf32 has the upper 19 bits of a float32: the unit does not read the
// others.
template <MmaKind kind>
double numberOf(uint32_t bits, int i) {
  const auto half = static_cast<uint16_t>(bits >> 16 * i);
  if constexpr (kind == MmaKind::tf32) return bitCast<float>(bits & ~0x1fffu);
  return kind == MmaKind::bfloat16 ? toFloat(BFloat16{half}) : toFloat(Float16{half});
}

// As the unit adds (Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores"): exact products,
// and a sum that is cut off rather than rounded.
float towardsZero(double x) {
  const auto y = static_cast<float>(x);
  return std::isfinite(x) && std::fabs(static_cast<double>(y)) > std::fabs(x)
             ? std::nextafterf(y, 0)
             : y;
}

// Unlike __syncwarp it orders no memory, as the instruction does not.
void meet() {
  __shfl_sync(~0u, 0, 0);
}

template <MmaKind kind>
void multiply(float (&sum)[4], const uint32_t (&left)[4], uint32_t right0, uint32_t right1) {
  constexpr int kEach = kind == MmaKind::tf32 ? 1 : 2, kDepth = 8 * kEach;
  const int g = static_cast<int>(lane()) / 4, t = static_cast<int>(lane()) % 4;
  static thread_local Operands operands[32];
  Operands& all = operands[running.thread->linear / 32];
  const uint32_t right[2] = {right0, right1};
  for (int half = 0; half < 2; half++) {
    for (int i = 0; i < kEach; i++) {
      const int k = half * kDepth / 2 + t * kEach + i;
      all.left[g][k] = numberOf<kind>(left[2 * half], i);
      all.left[g + 8][k] = numberOf<kind>(left[2 * half + 1], i);
      all.right[g][k] = numberOf<kind>(right[half], i);
    }
  }
  meet();
  double totals[4] = {sum[0], sum[1], sum[2], sum[3]};
  for (int k = 0; k < kDepth; k++) {
    for (int i = 0; i < 4; i++) {
      totals[i] += all.left[g + i / 2 * 8][k] * all.right[2 * t + i % 2][k];
    }
  }
  for (int i = 0; i < 4; i++) sum[i] = towardsZero(totals[i]);
  meet();
}

}  // namespace

void multiplyOnTensorCore(MmaKind kind, float (&sum)[4], const uint32_t (&left)[4], uint32_t right0,
                          uint32_t right1) {
  switch (kind) {
    case MmaKind::bfloat16:
      return multiply<MmaKind::bfloat16>(sum, left, right0, right1);
    case MmaKind::float16:
      return multiply<MmaKind::float16>(sum, left, right0, right1);
    case MmaKind::tf32:
      return multiply<MmaKind::tf32>(sum, left, right0, right1);
  }
}

}  // namespace adjoint::emulation
