// Products of bfloat16 with sums in float32, where the processor multiplies bfloat16 faster than
// float32. Elsewhere operands are converted and the float32 product runs.
//
// The units that multiply round each step to nearest and take denormals for zeros, in operands and
// in sums.
#pragma once
#include <cstdint>

#include "cpu/kernels/gemm_bf16.h"

namespace adjoint::cpu {

// c [m, n] = a [m, k] b [k, n] + bias; strides in elements. Operands and c are float32 or bfloat16;
// float32 operands are rounded while they are packed. bias[i biasRow + j biasColumn] of float32 or
// bfloat16, one of the strides 0; nullptr for none. rectify: c = max(that, 0).
struct Bf16Product {
  struct Operand {
    const void* data;
    bool isFloat;
    int64_t outer, depth;  // strides: of rows of a or columns of b, and of the depth
  };
  int64_t m, n, k;
  Operand a, b;
  void* c;
  bool cIsFloat;
  int64_t cRow, cColumn;
  const void* bias = nullptr;
  bool biasIsFloat = true;
  int64_t biasRow = 0, biasColumn = 0;
  // 1: each operand is one bfloat16. 3: float32 operands are split into two, x = hi + lo, and
  // hi hi + hi lo + lo hi is summed.
  int terms = 1;
  bool rectify = false;
};

// The fastest form that this processor has; an empty one for none.
Bf16Multiply bf16Multiply();

// Parallel over tasks that depend on the shape alone. Returns false, with c undefined, where
// terms == 3 and an operand is not finite or rounds to infinity: the product of parts would make a
// NaN of an infinity.
bool gemmBf16(const Bf16Product& product, Bf16Multiply multiply);

}  // namespace adjoint::cpu
