// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror & Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011). A number depends on the seed and its place alone, so a
// stream is the same on every backend and for any number of threads.
#pragma once
#include <cmath>
#include <cstdint>

#include "shared/convert.h"
#include "shared/functors.h"
#include "shared/host_device.h"

namespace adjoint {

struct Philox4 {
  uint32_t lane[4];
};

// Ten rounds over the counter (c, 0) with the seed as the key.
ADJOINT_INLINE Philox4 philox(uint64_t seed, uint64_t counter) {
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = static_cast<uint64_t>(c0) * 0xD2511F53u;
    const uint64_t p1 = static_cast<uint64_t>(c2) * 0xCD9E8D57u;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

ADJOINT_INLINE uint64_t joinLanes(uint32_t low, uint32_t high) {
  return static_cast<uint64_t>(high) << 32 | low;
}

// [0, 1) in steps of 2^-24 and of 2^-53.
ADJOINT_INLINE float uniformOf(uint32_t bits) {
  return static_cast<float>(static_cast<int32_t>(bits >> 8)) * 0x1p-24f;
}
ADJOINT_INLINE double uniformOf(uint64_t bits) {
  return static_cast<double>(static_cast<int64_t>(bits >> 11)) * 0x1p-53;
}

// An integer in [0, range), range >= 1: the high half of bits * range. Ranges up to 2^32 take one
// lane, larger ones two lanes, as float64 numbers do.
constexpr uint64_t kNarrowRange = static_cast<uint64_t>(1) << 32;
ADJOINT_INLINE uint64_t integerBelow(uint32_t bits, uint64_t range) {
  return range == kNarrowRange ? bits : (bits * range) >> 32;
}
ADJOINT_INLINE uint64_t integerBelow(uint64_t bits, uint64_t range) {
  // the high 64 bits of a 128-bit product, by halves: no type of 128 bits everywhere
  const uint64_t bl = bits & 0xffffffffu, bh = bits >> 32;
  const uint64_t rl = range & 0xffffffffu, rh = range >> 32;
  const uint64_t middle = bh * rl + ((bl * rl) >> 32);
  return bh * rh + (middle >> 32) + ((bl * rh + (middle & 0xffffffffu)) >> 32);
}

// The largest value of a stored type S below x: a + (b - a) u may round to b, which [a, b)
// excludes.
template <class S>
inline double largestBelow(double x) {
  S s = convert<S>(x);
  if (convert<double>(s) < x) return convert<double>(s);
  if constexpr (std::is_floating_point<S>::value) {
    return static_cast<double>(std::nextafter(s, -std::numeric_limits<S>::infinity()));
  } else if constexpr (std::is_integral<S>::value) {
    return convert<double>(static_cast<S>(s - 1));
  } else {  // half types: sign and magnitude
    constexpr uint16_t kSign = 0x8000;
    const bool isZero = (s.bits & 0x7fff) == 0;
    s.bits = static_cast<uint16_t>(isZero ? kSign | 1 : s.bits & kSign ? s.bits + 1 : s.bits - 1);
    return convert<double>(s);
  }
}

// Box & Muller (1958): a pair of uniform numbers gives a pair of standard normal ones,
//   r = sqrt(-2 log u0), z0 = r cos(2 pi u1), z1 = r sin(2 pi u1), u0 in (0, 1].
// T is float, double or a vector of floats; u0 and u1 are in [0, 1).
template <class T>
ADJOINT_INLINE void normalPair(T u0, T u1, T& z0, T& z1) {
  const T r = Math<T>::sqrt(T(-2) * Math<T>::log(T(1) - u0));
  const T angle = T(6.283185307179586477) * u1;
  z0 = r * Math<T>::cos(angle);
  z1 = r * Math<T>::sin(angle);
}

// A permutation of 0..n-1 on the host: Fisher & Yates' shuffle, where position i draws from the
// two lanes that a float64 number i would take.
inline void shuffledRange(int64_t* y, int64_t n, uint64_t seed, uint64_t offset) {
  for (int64_t i = 0; i < n; i++) y[i] = i;
  for (int64_t i = n - 1; i > 0; i--) {
    const Philox4 r = philox(seed, offset + static_cast<uint64_t>(i) / 2);
    const int lane = static_cast<int>(i % 2) * 2;
    const uint64_t bits = joinLanes(r.lane[lane], r.lane[lane + 1]);
    const auto j = static_cast<int64_t>(integerBelow(bits, static_cast<uint64_t>(i) + 1));
    const int64_t swapped = y[i];
    y[i] = y[j];
    y[j] = swapped;
  }
}

}  // namespace adjoint
