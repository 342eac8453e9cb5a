// Random numbers for blocks of elements, at most kRandomBlock at once.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

constexpr int64_t kRandomBlock = 512;

// The numbers of elements [first, first + n) of a stream.
struct Draw {
  uint64_t seed, offset;
  int64_t first, n;
};

// Those of float32 take a lane each, those of float64 two.
struct RandomTable {
  // y = min(a + u (b - a), highest)
  void (*uniform32)(float* y, const Draw& d, float a, float b, float highest);
  void (*uniform64)(double* y, const Draw& d, double a, double b, double highest);
  // y = mean + deviation z
  void (*normal32)(float* y, const Draw& d, float mean, float deviation);
  void (*normal64)(double* y, const Draw& d, double mean, double deviation);
  // y = u < p
  void (*bernoulli32)(float* y, const Draw& d, float p);
  void (*bernoulli64)(double* y, const Draw& d, double p);
  // y = low + an integer below range, from one lane or from two
  void (*integers32)(int64_t* y, const Draw& d, int64_t low, uint64_t range);
  void (*integers64)(int64_t* y, const Draw& d, int64_t low, uint64_t range);
  // y = u < p ? 0 : x scale; y may be x
  void (*dropout32)(float* y, const float* x, const Draw& d, float p, float scale);
  void (*dropout64)(double* y, const double* x, const Draw& d, double p, double scale);
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(RandomTable, randomTable)
