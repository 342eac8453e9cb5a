// Views as operands of products.
#pragma once
#include <optional>

#include "cuda/dense.h"
#include "cuda/gemm.h"

namespace adjoint::cuda {

// The last two axes of a view, with strides that say something where a size is 1.
struct Matrix {
  int64_t rows, columns, rowStride, columnStride;
};
inline Matrix matrixOf(const View& v) {
  const int r = v.ndim - 2, c = v.ndim - 1;
  Matrix m{v.size[r], v.size[c], v.stride[r], v.stride[c]};
  if (m.columns == 1) m.columnStride = 1;
  if (m.rows == 1) m.rowStride = m.columnStride == 1 ? m.columns : 1;
  return m;
}

// What the library can read as it is.
inline std::optional<GemmMatrix> asGemmMatrix(const View& v) {
  const Matrix m = matrixOf(v);
  if (m.columnStride == 1 && m.rowStride >= m.columns) {
    return GemmMatrix{v.data, false, m.rowStride, 0};
  }
  if (m.rowStride == 1 && m.columnStride >= m.rows) {
    return GemmMatrix{v.data, true, m.columnStride, 0};
  }
  return std::nullopt;
}

// An input whose last two axes are the matrix: as it lies, or else a copy.
class GemmOperand {
 public:
  explicit GemmOperand(const View& v)
      : stand_(asGemmMatrix(v) ? Stand(v) : Stand(v, denseLike(v, v.dtype), true)),
        matrix_(*asGemmMatrix(stand_.view())) {}
  const View& view() const { return stand_.view(); }
  const GemmMatrix& matrix() const { return matrix_; }

 private:
  Stand stand_;
  GemmMatrix matrix_;
};

}  // namespace adjoint::cuda
