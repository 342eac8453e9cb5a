// Moving blocks of a matrix through vectors: packing and transposing. Included by per-level sources
// alone; everything has internal linkage.
#pragma once
#include "cpu/kernels/lanes.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// Lanes of (a, b) in which blocks of D lanes alternate: the even blocks of both, or the odd ones.
template <int L, int D, bool Odd>
constexpr int blockLane(int i) {
  return (i & D ? L + i - D : i) + (Odd ? D : 0);
}
template <int D, bool Odd, class V, int... I>
ADJOINT_INLINE V blocks(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, blockLane<sizeof...(I), D, Odd>(I)...);
}

// Transposes a square of lanes x lanes by exchanging off-diagonal blocks of halving size.
template <int D, int L, class V>
ADJOINT_INLINE void transposeSquare(V (&x)[L]) {
#pragma GCC unroll 16
  for (int i = 0; i < L; i++) {
    if (i & D) continue;
    const V a = x[i], b = x[i + D];
    x[i] = blocks<D, false>(a, b, std::make_integer_sequence<int, L>());
    x[i + D] = blocks<D, true>(a, b, std::make_integer_sequence<int, L>());
  }
  if constexpr (D > 1) transposeSquare<D / 2, L, V>(x);
}

// y[j * yRow + i] = x[i * xRow + j] for i < rows <= lanes, j < lanes. Lanes of y beyond `rows` are
// written too (zeros), except at and after `end`; rows of y ascend.
template <class T>
ADJOINT_INLINE void transposeLanes(T* y, int64_t yRow, const T* x, int64_t xRow, int64_t rows,
                                   const T* end) {
  constexpr int lanes = kLanes<T>;
  Vector<T> square[lanes];
#pragma GCC unroll 16
  for (int i = 0; i < lanes; i++) square[i] = i < rows ? load(x + i * xRow) : Vector<T>{};
  transposeSquare<lanes / 2, lanes>(square);
#pragma GCC unroll 16
  for (int j = 0; j < lanes; j++) {
    T* p = y + j * yRow;
    if (p + lanes <= end) {
      storeVector(p, square[j]);
    } else {
      storePartial(p, square[j], rows);
    }
  }
}

// Elements along rows that lie pages apart: so many side by side are more streams than the
// processor follows by itself.
constexpr int64_t kTransposeAhead = 64, kFarApart = 2048;

template <class T>
void packTransposed(T* panel, int64_t width, const T* source, int64_t stride, int64_t count,
                    int64_t depth) {
  constexpr int64_t lanes = kLanes<T>;
  const bool isFar = stride >= kFarApart;
  const T* end = panel + width * depth;
  for (int64_t k0 = 0; k0 < depth; k0 += lanes) {
    // The last square is moved back and repeats what is there.
    const int64_t k = k0 + lanes <= depth ? k0 : depth - lanes;
    // Where width is no multiple of the lanes, a group of rows spills into the next row of the
    // panel; so the last group comes first, and rows ascend.
    for (int64_t i = (width - 1) / lanes * lanes; i >= 0; i -= lanes) {
      int64_t rows = count - i < lanes ? count - i : lanes;
      if (rows < 0) rows = 0;
      for (int64_t r = 0; isFar && r < rows; r++) {
        __builtin_prefetch(source + (i + r) * stride + k + kTransposeAhead, 0, 2);
      }
      transposeLanes(panel + k * width + i, width, source + i * stride + k, stride, rows, end);
    }
  }
}

template <class T>
void pack(T* panel, int64_t width, const T* source, int64_t stride, int64_t kStride, int64_t count,
          int64_t depth) {
  constexpr int64_t lanes = kLanes<T>;
  if (kStride == 1 && depth >= lanes) {
    return packTransposed(panel, width, source, stride, count, depth);
  }
  const bool padded = count < width;
  if (stride == 1 && (count == width ? kStride >= lanes || count % lanes == 0 : false)) {
    // Whole vectors, read and written beyond `count` where the next row follows.
    for (int64_t k = 0; k < depth; k++) {
      const T* from = source + k * kStride;
      T* to = panel + k * width;
      if (k + 1 < depth || count % lanes == 0) {
        for (int64_t i = 0; i < count; i += lanes) storeVector(to + i, load(from + i));
      } else {
        copyElements(to, from, count);
      }
    }
    return;
  }
  for (int64_t k = 0; k < depth; k++) {
    const T* from = source + k * kStride;
    T* to = panel + k * width;
    for (int64_t i = 0; i < count; i++) to[i] = from[i * stride];
    if (padded) {
      for (int64_t i = count; i < width; i++) to[i] = 0;
    }
  }
}

template <class T>
void store(T* c, int64_t cRow, int64_t cColumn, const T* block, int64_t blockRow, int64_t m,
           int64_t n) {
  constexpr int64_t lanes = kLanes<T>;
  if (cRow == 1 && m >= lanes) {
    for (int64_t i0 = 0; i0 < m; i0 += lanes) {
      const int64_t i = i0 + lanes <= m ? i0 : m - lanes;
      int64_t j = 0;
      for (; j + lanes <= n; j += lanes) {
        T* y = c + i + j * cColumn;
        transposeLanes(y, cColumn, block + i * blockRow + j, blockRow, lanes,
                       y + (lanes - 1) * cColumn + lanes);
      }
      for (; j < n; j++) {
        for (int64_t x = i; x < i + lanes; x++) c[x + j * cColumn] = block[x * blockRow + j];
      }
    }
    return;
  }
  for (int64_t i = 0; i < m; i++) {
    int64_t j = 0;
    if (cColumn == 1) {
      for (; j + lanes <= n; j += lanes) {
        storeVector(c + i * cRow + j, load(block + i * blockRow + j));
      }
    }
    for (; j < n; j++) c[i * cRow + j * cColumn] = block[i * blockRow + j];
  }
}

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
