#include "cpu/kernels/random.h"

#include "cpu/kernels/philox_vec.h"
#include "cpu/kernels/vec_math.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// The lanes that the elements of a draw take, perElement each; drawn from the start of a counter.
template <int perElement>
struct Lanes {
  alignas(64) uint32_t drawn[perElement * kRandomBlock + 4 * kCountersAtOnce + 4];
  int64_t skipped;       // lanes before those of the first element
  const uint32_t* lane;  // those of the first element

  ADJOINT_INLINE explicit Lanes(const Draw& d) {
    const int64_t start = d.first * perElement;
    skipped = start % 4;
    lane = drawn + skipped;
    const uint64_t counter = d.offset + static_cast<uint64_t>(start / 4);
    const int64_t counters = (skipped + d.n * perElement + 3) / 4;
    for (int64_t c = 0; c < counters; c += kCountersAtOnce) {
      drawCounters(drawn + 4 * c, d.seed, counter + static_cast<uint64_t>(c));
    }
  }
};
struct Lanes32 : Lanes<1> {
  ADJOINT_INLINE explicit Lanes32(const Draw& d) : Lanes<1>(d) {}
  ADJOINT_INLINE uint32_t operator[](int64_t i) const { return lane[i]; }
};
struct Lanes64 : Lanes<2> {
  ADJOINT_INLINE explicit Lanes64(const Draw& d) : Lanes<2>(d) {}
  ADJOINT_INLINE uint64_t operator[](int64_t i) const {
    return joinLanes(lane[2 * i], lane[2 * i + 1]);
  }
};

// Copies of the loops' bounds and of the pointers into the lanes are local, so that the compiler
// sees that no store changes them.
template <class T, class Bits>
void uniform(T* y, const Draw& d, T a, T b, T highest) {
  const Bits bits(d);
  const int64_t n = d.n;
  ADJOINT_INDEPENDENT
  for (int64_t i = 0; i < n; i++) {
    const T x = uniformOf(bits[i]) * (b - a) + a;
    y[i] = x < highest ? x : highest;
  }
}

template <class T, class Bits>
void bernoulli(T* y, const Draw& d, T p) {
  const Bits bits(d);
  const int64_t n = d.n;
  ADJOINT_INDEPENDENT
  for (int64_t i = 0; i < n; i++) y[i] = uniformOf(bits[i]) < p ? T(1) : T(0);
}

template <class T, class Bits>
void dropout(T* y, const T* x, const Draw& d, T p, T scale) {
  const Bits bits(d);
  const int64_t n = d.n;
  ADJOINT_INDEPENDENT
  for (int64_t i = 0; i < n; i++) {
    const T kept = x[i] * scale;
    y[i] = uniformOf(bits[i]) < p ? T(0) : kept;
  }
}

template <class Bits>
void integers(int64_t* y, const Draw& d, int64_t low, uint64_t range) {
  const Bits bits(d);
  const int64_t n = d.n;
  ADJOINT_INDEPENDENT
  for (int64_t i = 0; i < n; i++) {
    y[i] = plus(low, static_cast<int64_t>(integerBelow(bits[i], range)));
  }
}

// Lanes come in pairs, an even one and its odd neighbour, which share two uniform numbers.
void normal32(float* y, const Draw& d, float mean, float deviation) {
  const Lanes32 bits(d);
  constexpr int64_t kPairs = kRandomBlock / 2 + 2 + 2 * kLanes;
  alignas(64) float first[kPairs] = {}, second[kPairs] = {};
  const int64_t pairs = (bits.skipped + d.n + 1) / 2;
  for (int64_t i = 0; i < pairs; i++) first[i] = uniformOf(bits.drawn[2 * i]);
  for (int64_t i = 0; i < pairs; i++) second[i] = uniformOf(bits.drawn[2 * i + 1]);
  for (int64_t i = 0; i < pairs; i += kLanes) {
    Vec z0, z1;
    normalPair(load(first + i), load(second + i), z0, z1);
    store(first + i, Vec(mean) + Vec(deviation) * z0);
    store(second + i, Vec(mean) + Vec(deviation) * z1);
  }
  alignas(64) float z[2 * kPairs];
  for (int64_t i = 0; i < pairs; i++) {
    z[2 * i] = first[i];
    z[2 * i + 1] = second[i];
  }
  memcpy(y, z + bits.skipped, static_cast<size_t>(d.n) * sizeof(float));
}
void normal64(double* y, const Draw& d, double mean, double deviation) {
  // Start at an even element, whose partner follows it.
  const int64_t odd = d.first % 2;
  const Lanes64 bits(Draw{d.seed, d.offset, d.first - odd, d.n + odd});
  for (int64_t i = -odd; i < d.n; i += 2) {
    double z[2];
    normalPair(uniformOf(bits[i + odd]), uniformOf(bits[i + odd + 1]), z[0], z[1]);
    if (i >= 0) y[i] = mean + deviation * z[0];
    if (i + 1 < d.n) y[i + 1] = mean + deviation * z[1];
  }
}

}  // namespace

const RandomTable randomTable = {
    uniform<float, Lanes32>,   uniform<double, Lanes64>,   normal32,          normal64,
    bernoulli<float, Lanes32>, bernoulli<double, Lanes64>, integers<Lanes32>, integers<Lanes64>,
    dropout<float, Lanes32>,   dropout<double, Lanes64>};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
