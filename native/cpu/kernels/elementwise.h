// The loops of elementwise operations over contiguous blocks of the type of computation. y may be
// one of the inputs.
#pragma once
#include <cstdint>

#include "cpu/simd.h"
#include "shared/dtype.h"
#include "shared/opcodes.h"

namespace adjoint::cpu {

constexpr int kComputes = 3;  // Compute::f32, f64, i64

struct ElementwiseTable {
  using UnaryLoop = void (*)(void* y, const void* x, int64_t n);
  using BinaryLoop = void (*)(void* y, const void* a, const void* b, int64_t n);
  // y[i] = condition[i] ? a[i] : b[i]
  using WhereLoop = void (*)(void* y, const uint8_t* condition, const void* a, const void* b,
                             int64_t n);
  // nullptr where an operation is not defined (isDefined in functors.h)
  UnaryLoop unary[kComputes][static_cast<int>(UnaryOp::count)];
  BinaryLoop binary[kComputes][static_cast<int>(BinaryOp::count)];
  WhereLoop where[kComputes];
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(ElementwiseTable, elementwiseTable)
