// The operands of attention as its kernels take them.
#pragma once
#include <cstdint>
#include <limits>

#include "cuda/attention.h"
#include "shared/functors.h"

namespace adjoint::cuda {

// One head's matrix, `rows` x `columns`.
template <class S>
struct TileSource {
  const S* data;
  int64_t row, column;
  int rows, columns;
  bool isVector, isWide;
};

template <class S>
ADJOINT_DEVICE TileSource<S> tileSource(const Heads<const S>& x, int b, int h, int rows,
                                        int columns) {
  return {x.at(b, h), x.row, x.column, rows, columns, x.isVector, x.isWide};
}

// A score as the softmax takes it: -infinity where the key is not seen.
template <class T, class S>
struct Scores {
  AttentionMask mask;
  T scale;
  bool isCausal;
  int tq, tk;

  ADJOINT_DEVICE T score(T product, const char* headMask, int query, int key) const {
    if (query >= tq || key >= tk || (isCausal && key > query))
      return -std::numeric_limits<T>::infinity();
    if (!headMask) return scale * product;
    const int64_t i = query * mask.row + key * mask.column;
    if (mask.isBoolean) return headMask[i] ? scale * product : -std::numeric_limits<T>::infinity();
    return scale * product + convert<T>(reinterpret_cast<const S*>(headMask)[i]);
  }
  ADJOINT_DEVICE const char* headMask(int b, int h) const {
    if (!mask.data) return nullptr;
    const int64_t at = b * mask.batch + h * mask.head;
    return static_cast<const char*>(mask.data) +
           at * static_cast<int64_t>(mask.isBoolean ? 1 : sizeof(S));
  }
};

template <class S>
struct ForwardOperands {
  using T = ComputeOf<S>;
  Heads<const S> q, k, v;
  Heads<S> y;
  T* lse;
  AttentionSizes size;
  Scores<T, S> scores;
  int tiles;  // of queries
};

template <class S>
struct BackwardOperands {
  using T = ComputeOf<S>;
  Heads<const S> q, k, v, y, dy;
  Heads<S> dq, dk, dv;
  const T* lse;
  T* delta;  // [B H, Tq]: sum(dy y) of each row
  AttentionSizes size;
  Scores<T, S> scores;
  int tiles;  // of the sequence that a kernel's blocks share
};

// One block for each tile of a sequence and each of the parts, `tileWidth` columns at most, of what
// is summed up.
dim3 attentionGrid(int64_t tiles, int64_t heads, int64_t width, int64_t tileWidth);

// For half types and float32 on devices that have tensor cores for them, and heads that are narrow
// enough; false elsewhere. They set `tiles` themselves, and read delta.
template <class S>
bool attentionOnTensorCores(const ForwardOperands<S>& a);
template <class S>
bool attentionBackwardOnTensorCores(const BackwardOperands<S>& a);

}  // namespace adjoint::cuda
