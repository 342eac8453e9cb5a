// Attention of bfloat16 on AVX512-BF16, whose products add pairs: all six matrix products take
// bfloat16 operands and sum in float32. The weights p and their gradients ds are rounded to
// bfloat16 where they are multiplied; maxima, sums of exponentials and rowsum(dy y) are float32
// (Dao et al. 2022, as in half precision on a GPU).
//
// What goes to all lanes is read by rows where it lies, q, dy, p and ds, or, for products with p^T
// and ds^T, from a block that holds neighbouring rows in pairs. The other operand is packed for a
// whole head into panels of 16 columns, which have the order of pairs that bfloat16 products take
// everywhere (cpu/kernels/gemm_bf16.h): k and v by keys and, for ds k and p v, by elements of the
// head; q and dy by elements.
#pragma once
#include "cpu/attention.h"
#include "cpu/features/attention_pairs.h"
#include "cpu/kernels/gemm_bf16.h"

namespace adjoint::cpu {

// nullptr where the processor has no AVX512-BF16.
const AttentionPairsKernels* attentionPairs();

// All of bfloat16 but lse, which is float32, and a mask that is added, which is float32.
void attentionPairsForward(const AttentionPairsKernels& kernels, const View& y, const View& lse,
                           const View& q, const View& k, const View& v, const View* mask,
                           double scale, bool isCausal);
void attentionPairsBackward(const AttentionPairsKernels& kernels,
                            const backend::AttentionBackwardArgs& args);

// AttentionSizes::write; rows with unit stride by the kernel for them.
inline void writeRounded(const AttentionPairsKernels& kernels, const AttentionSizes& z,
                         const View& y, int64_t index, int64_t begin, int64_t rows, const float* o,
                         int64_t oRow) {
  const Head<uint16_t> to = z.head<uint16_t>(y, index);
  if (to.column != 1) return z.write(y, index, begin, rows, o, oRow);
  kernels.store(to.at(begin), to.row, o, oRow, rows, y.size[3]);
}

// Pieces of scratch memory that hold halves.
inline int64_t floatsOfHalves(int64_t elements) {
  return lineAligned(ceilDivide(elements, 2));
}
inline uint16_t* takeHalves(Pieces<float>& pieces, int64_t elements) {
  return reinterpret_cast<uint16_t*>(pieces.take(floatsOfHalves(elements)));
}

// The right operand b [k, n] of products in panels.
class PackedPanels {
 public:
  static int64_t panel(int64_t k) { return ceilDivide(k, kTileDepth) * kTileElements; }
  static int64_t elements(int64_t n, int64_t k) { return ceilDivide(n, kPanelColumns) * panel(k); }
  // b[i, j] = source[j nStride + i kStride]
  PackedPanels(const AttentionPairsKernels& kernels, uint16_t* space, const uint16_t* source,
               int64_t nStride, int64_t kStride, int64_t n, int64_t k)
      : data_(space), panel_(panel(k)) {
    if (nStride == 1) {
      prefetchHead(source, k, kStride, n);
      kernels.packRows(space, panel_, source, kStride, k, n);
    } else if (kStride == 1) {
      prefetchHead(source, n, nStride, k);
      kernels.packTurned(space, panel_, source, nStride, k, n);
    } else {
      for (int64_t j = 0; j < n; j += kPanelColumns, space += panel_) {
        gemmBf16Table().packPairs(
            space, 0,
            {source + j * nStride, false, nStride, kStride, std::min(kPanelColumns, n - j), k});
      }
    }
  }
  // Sets the right operand to b[row.., column..]: row even, column a multiple of kPanelColumns.
  void setOperand(PairsProduct& product, int64_t row, int64_t column) const {
    product.b = data_ + column / kPanelColumns * panel_ + row * kPanelColumns;
    product.bPanel = panel_;
  }

 private:
  const uint16_t* data_;
  int64_t panel_;
};

// Rows of a head whose elements are pairs in memory: in place, or copied to `space` of
// elements(x), where an odd width gets a zero.
class PairedRows {
 public:
  static int64_t width(const View& x) { return ceilDivide(x.size[3], 2) * 2; }
  static bool isInPlace(const View& x) { return x.stride[3] == 1 && x.size[3] % 2 == 0; }
  static int64_t elements(const View& x) { return isInPlace(x) ? 0 : x.size[2] * width(x); }

  PairedRows(const AttentionSizes& z, const View& x, int64_t index, int64_t begin, int64_t end,
             uint16_t* space) {
    const Head<const uint16_t> head = z.head<const uint16_t>(x, index);
    if (isInPlace(x)) {
      data_ = head.data;
      row_ = head.row;
      return;
    }
    row_ = width(x);
    data_ = space;
    for (int64_t i = begin; i < end; i++) {
      uint16_t* row = space + i * row_;
      if (x.size[3] > 0) row[row_ - 1] = 0;
      convertTable().gather[1](row, head.at(i), head.column, x.size[3]);
    }
  }
  const uint16_t* at(int64_t i) const { return data_ + i * row_; }
  int64_t row() const { return row_; }
  // Sets the left operand to rows from i on.
  void setOperand(PairsProduct& product, int64_t i) const {
    product.a = at(i);
    product.aRow = row_;
    product.aPair = 2;
  }

 private:
  const uint16_t* data_;
  int64_t row_;
};

}  // namespace adjoint::cpu
