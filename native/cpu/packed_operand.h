// The right operand of many products of few rows each, such as the weights of a recurrent layer:
// packed once in panels, then read by every product.
#pragma once
#include <algorithm>

#include "cpu/gemm.h"
#include "cpu/workspace.h"

namespace adjoint::cpu {

template <class T>
class PackedOperand {
 public:
  // b [k, n] at strides bK and bColumn; it is read here and not kept.
  PackedOperand(int64_t k, int64_t n, const T* b, int64_t bK, int64_t bColumn)
      : kernels_(gemmKernels<T>()),
        depth_(k, DepthBlocks::kInL2),
        n_(n),
        whole_(n / kernels_.columns),
        edge_(ceilDivide(n % kernels_.columns, kernels_.lanes) * kernels_.lanes),
        width_(whole_ * kernels_.columns + edge_),
        space_(k * width_ * sizeof(T)),
        panels_(space_.template as<T>()) {
    parallelFor(ceilDivide(n, kernels_.columns), 1, [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; panel++) {
        pack(panel, b + panel * kernels_.columns * bColumn, bK, bColumn);
      }
    });
  }

  // c [m, n] = a [m, k] b + init, on the calling thread; rows of a and c at strides aRow and cRow,
  // init[i initRow + j initColumn]. init may be c.
  void multiply(int64_t m, const T* a, int64_t aRow, T* c, int64_t cRow, const T* init,
                int64_t initRow, int64_t initColumn) const {
    GemmBlock<T> block;
    block.m = m;
    block.n = n_;
    block.panelRows = ceilDivide(m, ceilDivide(m, kernels_.rows));
    block.aRow = aRow;
    block.aK = 1;
    block.aPanel = block.panelRows * aRow;
    block.c = c;
    block.cRow = cRow;
    block.init = init;
    block.initRow = initRow;
    block.initColumn = initColumn;
    for (int64_t d = 0; d < depth_.count; d++) {
      const int64_t k = depth_.begin(d);
      block.k = depth_.end(d) - k;
      block.a = a + k;
      block.b = panels_ + k * width_;
      block.bPanel = kernels_.columns * block.k;
      block.bRow = kernels_.columns;
      block.bEdge = block.b + whole_ * block.bPanel;
      kernels_.multiply(block);
      block.init = c;
      block.initRow = cRow;
      block.initColumn = 1;
    }
  }

  double bytes() const { return static_cast<double>(depth_.k) * width_ * sizeof(T); }

 private:
  void pack(int64_t panel, const T* b, int64_t bK, int64_t bColumn) {
    const int64_t count = std::min(kernels_.columns, n_ - panel * kernels_.columns);
    for (int64_t d = 0; d < depth_.count; d++) {
      const int64_t k = depth_.begin(d), size = depth_.end(d) - k;
      kernels_.pack(panels_ + k * width_ + panel * kernels_.columns * size,
                    panel < whole_ ? kernels_.columns : edge_, b + k * bK, bColumn, bK, count,
                    size);
    }
  }

  const GemmKernels<T>& kernels_;
  DepthBlocks depth_;
  int64_t n_, whole_, edge_, width_;  // whole panels; the width of the last one; of all together
  Workspace space_;
  T* panels_;
};

}  // namespace adjoint::cpu
