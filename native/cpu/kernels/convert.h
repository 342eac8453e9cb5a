// Between stored elements and contiguous blocks of the type of computation.
#pragma once
#include <cstdint>

#include "cpu/simd.h"
#include "shared/dtype.h"

namespace adjoint::cpu {

struct ConvertTable {
  using Convert = void (*)(void* y, const void* x, int64_t n);
  using Move = void (*)(void* y, const void* x, int64_t stride, int64_t n);
  using Transpose = void (*)(void* y, const void* x, int64_t rows, int64_t columns, int64_t yStride,
                             int64_t xStride);
  Convert load[10][3];   // [dtype][Compute]: contiguous, stored -> computed
  Convert store[3][10];  // [Compute][dtype]
  // By log2 of the element's size. gather: y[i] = x[i * stride]; scatter: y[i * stride] = x[i].
  Move gather[4], scatter[4];
  // y[r, c] = x[c, r]: y [rows, columns] with rows yStride apart, x [columns, rows].
  Transpose transpose[4];
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(ConvertTable, convertTable)
