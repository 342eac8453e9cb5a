#pragma once
#include "shared/view.h"

namespace adjoint::cpu {

// What operands of a dtype are converted to where they are multiplied; they may come so already.
DType productDType(DType dtype);
// backend::matmul; rectify: y = max(that, 0), of floating dtypes.
void matrixProduct(const View& y, const View& a, const View& b, const View* bias, bool rectify);
// y [M, N] = a b in float32, of half a and b
void wideProduct(const View& y, const View& a, const View& b);

}  // namespace adjoint::cpu
