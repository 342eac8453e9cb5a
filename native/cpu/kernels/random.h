// Random numbers for blocks of elements. A block starts at the first lane of a counter.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

constexpr int64_t kRandomBlock = 516;  // elements, at most

struct RandomTable {
  // float32 numbers from a lane each, float64 numbers from two lanes.
  // y = min(a + u (b - a), highest)
  void (*uniform32)(float* y, uint64_t seed, uint64_t counter, int64_t n, float a, float b,
                    float highest);
  void (*uniform64)(double* y, uint64_t seed, uint64_t counter, int64_t n, double a, double b,
                    double highest);
  // y = mean + deviation z
  void (*normal32)(float* y, uint64_t seed, uint64_t counter, int64_t n, float mean,
                   float deviation);
  void (*normal64)(double* y, uint64_t seed, uint64_t counter, int64_t n, double mean,
                   double deviation);
  // y = low + an integer below range, from one lane or from two
  void (*integers32)(int64_t* y, uint64_t seed, uint64_t counter, int64_t n, int64_t low,
                     uint64_t range);
  void (*integers64)(int64_t* y, uint64_t seed, uint64_t counter, int64_t n, int64_t low,
                     uint64_t range);
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(RandomTable, randomTable)
