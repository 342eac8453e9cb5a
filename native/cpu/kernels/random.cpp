#include "cpu/kernels/random.h"

#include "cpu/kernels/vec_math.h"
#include "shared/philox.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// The lanes of `counters` successive counters, element by element. Sixteen counters side by side
// keep the rounds in vector registers.
void drawLanes(uint32_t* out, uint64_t seed, uint64_t counter, int64_t counters) {
  constexpr int kSide = 16;
  for (int64_t start = 0; start < counters; start += kSide) {
    const int count = static_cast<int>(counters - start < kSide ? counters - start : kSide);
    Philox4 numbers[kSide];
    for (int k = 0; k < kSide; k++) {
      numbers[k] = philox(seed, counter + static_cast<uint64_t>(start + k));
    }
    memcpy(out + 4 * start, numbers, static_cast<size_t>(count) * sizeof(Philox4));
  }
}

constexpr int64_t kLanesOfBlock = 2 * kRandomBlock;

struct Lanes32 {
  alignas(64) uint32_t lane[kLanesOfBlock];
  Lanes32(uint64_t seed, uint64_t counter, int64_t n) {
    drawLanes(lane, seed, counter, (n + 3) / 4);
  }
};
struct Lanes64 {
  alignas(64) uint32_t lane[kLanesOfBlock];
  Lanes64(uint64_t seed, uint64_t counter, int64_t n) {
    drawLanes(lane, seed, counter, (n + 1) / 2);
  }
  ADJOINT_INLINE uint64_t operator[](int64_t i) const {
    return joinLanes(lane[2 * i], lane[2 * i + 1]);
  }
};

void uniform32(float* y, uint64_t seed, uint64_t counter, int64_t n, float a, float b,
               float highest) {
  const Lanes32 bits(seed, counter, n);
  for (int64_t i = 0; i < n; i++) {
    const float x = uniformOf(bits.lane[i]) * (b - a) + a;
    y[i] = x < highest ? x : highest;
  }
}
void uniform64(double* y, uint64_t seed, uint64_t counter, int64_t n, double a, double b,
               double highest) {
  const Lanes64 bits(seed, counter, n);
  for (int64_t i = 0; i < n; i++) {
    const double x = uniformOf(bits[i]) * (b - a) + a;
    y[i] = x < highest ? x : highest;
  }
}

// Elements come in pairs: an even one and its odd neighbour share two uniform numbers.
void normal32(float* y, uint64_t seed, uint64_t counter, int64_t n, float mean, float deviation) {
  const Lanes32 bits(seed, counter, n);
  alignas(64) float first[kRandomBlock / 2 + 64], second[kRandomBlock / 2 + 64];
  const int64_t pairs = (n + 1) / 2;
  for (int64_t i = 0; i < pairs; i++) first[i] = uniformOf(bits.lane[2 * i]);
  for (int64_t i = 0; i < pairs; i++) second[i] = uniformOf(bits.lane[2 * i + 1]);
  // Numbers for the lanes past the end, which are computed and not used.
  for (int64_t i = pairs; i < pairs + kLanes; i++) first[i] = second[i] = 0;
  for (int64_t i = 0; i < pairs; i += kLanes) {
    Vec z0, z1;
    normalPair(load(first + i), load(second + i), z0, z1);
    store(first + i, Vec(mean) + Vec(deviation) * z0);
    store(second + i, Vec(mean) + Vec(deviation) * z1);
  }
  for (int64_t i = 0; i < n; i++) y[i] = i % 2 ? second[i / 2] : first[i / 2];
}
void normal64(double* y, uint64_t seed, uint64_t counter, int64_t n, double mean,
              double deviation) {
  const Lanes64 bits(seed, counter, n);
  for (int64_t i = 0; i < n; i += 2) {
    double z0, z1;
    normalPair(uniformOf(bits[i]), uniformOf(bits[i + 1]), z0, z1);
    y[i] = mean + deviation * z0;
    if (i + 1 < n) y[i + 1] = mean + deviation * z1;
  }
}

void integers32(int64_t* y, uint64_t seed, uint64_t counter, int64_t n, int64_t low,
                uint64_t range) {
  const Lanes32 bits(seed, counter, n);
  for (int64_t i = 0; i < n; i++) {
    y[i] = plus(low, static_cast<int64_t>(integerBelow(bits.lane[i], range)));
  }
}
void integers64(int64_t* y, uint64_t seed, uint64_t counter, int64_t n, int64_t low,
                uint64_t range) {
  const Lanes64 bits(seed, counter, n);
  for (int64_t i = 0; i < n; i++) {
    y[i] = plus(low, static_cast<int64_t>(integerBelow(bits[i], range)));
  }
}

}  // namespace

const RandomTable randomTable = {uniform32, uniform64, normal32, normal64, integers32, integers64};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
