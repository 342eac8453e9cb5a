// The loops of elementwise operations over contiguous blocks: of the type of computation, or of
// bfloat16, which is computed in float32. y may be one of the inputs.
#pragma once
#include <cstdint>

#include "cpu/simd.h"
#include "shared/dtype.h"
#include "shared/opcodes.h"

namespace adjoint::cpu {

constexpr int kComputes = 3;  // Compute::f32, f64, i64

// Whether an operation takes no longer than to read and write its elements.
constexpr bool isCheap(UnaryOp op) {
  switch (op) {
    case UnaryOp::neg:
    case UnaryOp::abs:
    case UnaryOp::sign:
    case UnaryOp::square:
    case UnaryOp::sqrt:
    case UnaryOp::reciprocal:
    case UnaryOp::floor:
    case UnaryOp::ceil:
    case UnaryOp::round:
    case UnaryOp::trunc:
    case UnaryOp::relu:
    case UnaryOp::isnan:
    case UnaryOp::isinf:
    case UnaryOp::isfinite:
    case UnaryOp::logicalNot:
    case UnaryOp::bitwiseNot:
      return true;
    default:
      return false;
  }
}

constexpr bool isCheap(BinaryOp op) {
  switch (op) {
    case BinaryOp::floorDivide:
    case BinaryOp::remainder:
    case BinaryOp::fmod:
    case BinaryOp::pow:
    case BinaryOp::atan2:
    case BinaryOp::hypot:
    case BinaryOp::geluBackward:
    case BinaryOp::geluTanhBackward:
    case BinaryOp::siluBackward:
      return false;
    default:
      return true;
  }
}

struct ElementwiseTable {
  using UnaryLoop = void (*)(void* y, const void* x, int64_t n);
  using BinaryLoop = void (*)(void* y, const void* a, const void* b, int64_t n);
  // y[i] = condition[i] ? a[i] : b[i]
  using WhereLoop = void (*)(void* y, const uint8_t* condition, const void* a, const void* b,
                             int64_t n);
  // nullptr where an operation is not defined (isDefined in functors.h)
  UnaryLoop unary[kComputes][static_cast<int>(UnaryOp::count)];
  BinaryLoop binary[kComputes][static_cast<int>(BinaryOp::count)];
  UnaryLoop unaryBFloat16[static_cast<int>(UnaryOp::count)];
  BinaryLoop binaryBFloat16[static_cast<int>(BinaryOp::count)];
  WhereLoop where[kComputes];
  // y = x, written past the caches where the processor has stores that do so
  void (*stream)(void* y, const void* x, int64_t bytes);
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(ElementwiseTable, elementwiseTable)
