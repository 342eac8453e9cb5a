// Folding contiguous blocks into accumulators. An accumulator is 8 bytes, a double for floats and
// an int64 for integers; sums of float64 carry a second one, the rounding error so far.
#pragma once
#include <cstdint>

#include "cpu/simd.h"
#include "shared/opcodes.h"

namespace adjoint::cpu {

// The foldings behind the reductions: mean is a sum, any and all are a maximum and a minimum.
enum class Fold : int { sum, prod, amax, amin, any, all, count };

struct FoldKernel {
  void (*init)(void* value, void* low, int64_t n);
  // value[0] takes x[0..n)
  void (*row)(void* value, void* low, const void* x, int64_t n);
  // value[j] takes x[r * rowStride + j] for all r < rows
  void (*columns)(void* value, void* low, const void* x, int64_t rows, int64_t rowStride,
                  int64_t n);
  // value[j] takes another accumulator
  void (*merge)(void* value, void* low, const void* otherValue, const void* otherLow, int64_t n);
};

// Where the best element so far stands; index -1: none yet.
struct ArgKernel {
  // Looks at x[0..n), whose first element has number `first`.
  void (*row)(void* best, int64_t* index, const void* x, int64_t first, int64_t n);
  // Looks at x[j] for each column j; they all have number `row`.
  void (*columns)(void* best, int64_t* index, const void* x, int64_t row, int64_t n);
  // Takes over the best of a later chunk where it is better.
  void (*merge)(void* best, int64_t* index, const void* otherBest, const int64_t* otherIndex,
                int64_t n);
};

struct ReduceTable {
  FoldKernel fold[static_cast<int>(Fold::count)][3];  // [fold][Compute]
  ArgKernel arg[static_cast<int>(ArgOp::count)][3];
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(ReduceTable, reduceTable)
