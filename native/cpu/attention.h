// What the passes of attention share: sizes, the heads of the tensors, and products of blocks with
// packed operands.
#pragma once
#include <algorithm>
#include <optional>

#include "contract.h"
#include "cpu/compute_view.h"
#include "cpu/gemm.h"
#include "cpu/kernels/attention.h"
#include "cpu/kernels/convert.h"
#include "cpu/pool.h"
#include "shared/attention_checks.h"

namespace adjoint::cpu {

template <class T>
const AttentionKernels<T>& attentionKernels();

// One head of a tensor [B, H, rows, columns].
template <class T>
struct Head {
  T* data;
  int64_t row, column;
  T* at(int64_t i) const { return data + i * row; }
};

// Rows of one head lie far apart, where the processor does not fetch them by itself: asks for all
// at once, or for as many as the L2 cache has room for.
template <class T>
void prefetchHead(const T* rows, int64_t count, int64_t stride, int64_t width) {
  constexpr int64_t kLine = 64 / sizeof(T), kMost = 2048;
  count = std::min(count, kMost * kLine / (width + kLine));
  for (int64_t i = 0; i < count; i++) {
    for (int64_t j = 0; j < width; j += kLine) __builtin_prefetch(rows + i * stride + j, 0, 2);
  }
}

struct AttentionSizes {
  AttentionSizes(const View& q, const View& v)
      : batch(q.size[0]),
        heads(q.size[1]),
        tq(q.size[2]),
        tk(v.size[2]),
        d(q.size[3]),
        dv(v.size[3]) {}

  template <class T>
  Head<T> head(const View& x, int64_t index) const {
    return {x.as<T>() + index / heads * x.stride[0] + index % heads * x.stride[1], x.stride[2],
            x.stride[3]};
  }
  // Rows begin..end of a head as values of T: in place, or those of half types converted to
  // `space`, of convertedElements(). `at` counts from the head's first row all the same.
  template <class T>
  Head<const T> read(const View& x, int64_t index, int64_t begin, int64_t end, T* space) const;
  // y = o [rows, columns of y] from row `begin` of the head on
  template <class T>
  void write(const View& y, int64_t index, int64_t begin, int64_t rows, const T* o,
             int64_t oRow) const;
  // Asks for rows of a head that are soon to be read or written.
  void prefetch(const View& x, int64_t index, int64_t begin, int64_t rows) const {
    if (x.stride[3] != 1) return;
    const auto ask = [&](auto tag) {
      const auto of = head<const decltype(tag)>(x, index);
      prefetchHead(of.at(begin), rows, of.row, x.size[3]);
    };
    const size_t size = itemSize(x.dtype);
    size == 2 ? ask(uint16_t()) : size == 4 ? ask(float()) : ask(double());
  }
  int64_t count() const { return batch * heads; }
  // How much of the sequence of a head a task takes: all of it, but where heads alone do not make
  // enough tasks; at least `fewest` positions, and a multiple of `block`.
  int64_t part(int64_t length, int64_t fewest, int64_t block) const {
    constexpr int64_t kTasks = 16;
    const int64_t wanted = ceilDivide(kTasks, std::max<int64_t>(1, count()));
    const int64_t size = std::max(fewest, ceilDivide(length, wanted));
    return ceilDivide(size, block) * block;
  }
  // Tasks that make one worth a thread, each of so many rows of products with keys or queries.
  int64_t grain(double rows) const {
    constexpr double kOperations = 1e6;
    return std::max<int64_t>(1, static_cast<int64_t>(kOperations / (rows * (d + dv) + 1)));
  }

  int64_t batch, heads, tq, tk, d, dv;
};

inline bool isHalf(const View& x) {
  return x.dtype != computeDType(x.dtype);
}
inline int64_t convertedElements(const View& x) {
  return isHalf(x) ? lineAligned(x.size[2] * x.size[3]) : 0;
}

template <class T>
Head<const T> AttentionSizes::read(const View& x, int64_t index, int64_t begin, int64_t end,
                                   T* space) const {
  if (!isHalf(x)) return head<const T>(x, index);
  constexpr int64_t kPiece = 256;
  const ConvertTable& table = convertTable();
  const auto convert = table.load[static_cast<int>(x.dtype)][static_cast<int>(Compute::f32)];
  const Head<const uint16_t> from = head<const uint16_t>(x, index);
  const int64_t width = x.size[3];
  if (from.column == 1 && from.row == width) {
    convert(space + begin * width, from.at(begin), (end - begin) * width);
    return {space, width, 1};
  }
  for (int64_t i = begin; i < end; i++) {
    for (int64_t j = 0; j < width && from.column != 1; j += kPiece) {
      uint16_t piece[kPiece];
      const int64_t n = std::min(kPiece, width - j);
      table.gather[1](piece, from.at(i) + j * from.column, from.column, n);
      convert(space + i * width + j, piece, n);
    }
    if (from.column == 1) convert(space + i * width, from.at(i), width);
  }
  return {space, width, 1};
}

template <class T>
void AttentionSizes::write(const View& y, int64_t index, int64_t begin, int64_t rows, const T* o,
                           int64_t oRow) const {
  const int64_t width = y.size[3];
  if (!isHalf(y)) {
    const Head<T> to = head<T>(y, index);
    gemmKernels<T>().store(to.at(begin), to.row, to.column, o, oRow, rows, width);
    return;
  }
  constexpr int64_t kPiece = 256;
  const ConvertTable& table = convertTable();
  const auto convert = table.store[static_cast<int>(Compute::f32)][static_cast<int>(y.dtype)];
  const Head<uint16_t> to = head<uint16_t>(y, index);
  for (int64_t i = 0; i < rows; i++) {
    uint16_t* row = to.at(begin + i);
    for (int64_t j = 0; j < width && to.column != 1; j += kPiece) {
      uint16_t piece[kPiece];
      const int64_t n = std::min(kPiece, width - j);
      convert(piece, o + i * oRow + j, n);
      table.scatter[1](row + j * to.column, piece, to.column, n);
    }
    if (to.column == 1) convert(row, o + i * oRow, width);
  }
}

// Checks the inputs; a mask that is added is held in the type of computation.
class AttentionInputs : public AttentionChecks {
 public:
  AttentionInputs(const char* name, const View& q, const View& k, const View& v, const View* mask)
      : AttentionChecks(name, q, k, v, mask), mask_(mask) {
    if (mask && mask->dtype != DType::boolean) floatMask_.emplace(*mask);
  }
  const View* mask() const { return floatMask_ ? &floatMask_->view() : mask_; }

 private:
  const View* mask_;
  std::optional<ComputeInput> floatMask_;
};

// The mask of one head, or none.
class HeadMask {
 public:
  HeadMask(const View* mask, const AttentionSizes& z, int64_t index) : mask_(mask) {
    if (!mask) return;
    offset_ = index / z.heads * mask->stride[0] + index % z.heads * mask->stride[1];
  }
  // Masks the scores of queries from `row` and keys from `column` on; their scale is then 1.
  template <class T>
  void apply(ScoreBlock<T>& block, int64_t row, int64_t column) const {
    if (!mask_) return;
    const int64_t at = offset_ + row * mask_->stride[2] + column * mask_->stride[3];
    const bool isBoolean = mask_->dtype == DType::boolean;
    const auto* data = mask_->as<char>() + at * static_cast<int64_t>(itemSize(mask_->dtype));
    attentionKernels<T>().applyMask(block, {data, isBoolean, mask_->stride[2], mask_->stride[3]});
    block.scale = 1;
  }

 private:
  const View* mask_;
  int64_t offset_ = 0;
};

// The right operand b [k, n] of products, packed whole into panels of columns.
template <class T>
class PackedMatrix {
 public:
  static int64_t elements(int64_t n, int64_t k) {
    const int64_t columns = gemmKernels<T>().columns;
    return lineAligned(ceilDivide(n, columns) * columns * k);
  }
  // b[i, j] = source[j nStride + i kStride]
  PackedMatrix(T* space, const T* source, int64_t nStride, int64_t kStride, int64_t n, int64_t k)
      : kernels_(gemmKernels<T>()), data_(space), n_(n), k_(k) {
    if (nStride == 1) {
      prefetchHead(source, k, kStride, n);
    } else if (kStride == 1) {
      prefetchHead(source, n, nStride, k);
    }
    for (int64_t j = 0; j < n; j += kernels_.columns) {
      const int64_t count = std::min(kernels_.columns, n - j);
      kernels_.pack(space + j * k, width(count), source + j * nStride, nStride, kStride, count, k);
    }
  }
  // The columns up to n that products can stop at: whole panels, or the end.
  int64_t upTo(int64_t n) const {
    return std::min(n_, ceilDivide(n, kernels_.columns) * kernels_.columns);
  }

  // c [m, n] = a [m, k] b[row.., column..] + init: `column` is a whole number of panels, n as upTo
  // says; init is c itself or, where `accumulates` is false, nothing.
  void multiply(T* c, int64_t cRow, int64_t m, int64_t n, int64_t k, const T* a, int64_t aRow,
                int64_t aK, int64_t row, int64_t column, bool accumulates) const {
    alignas(64) static const T zeros[64] = {};
    GemmBlock<T> g;
    g.m = m;
    g.n = n;
    g.k = k;
    g.a = a;
    g.aRow = aRow;
    g.aK = aK;
    g.panelRows = ceilDivide(m, ceilDivide(m, kernels_.rows));
    g.aPanel = g.panelRows * aRow;
    g.b = data_ + column * k_ + row * kernels_.columns;
    g.bPanel = kernels_.columns * k_;
    g.bRow = kernels_.columns;
    const int64_t end = column + n, edge = end % kernels_.columns;
    g.bEdge = data_ + (end - edge) * k_ + row * width(edge);
    g.c = c;
    g.cRow = cRow;
    g.init = accumulates ? c : zeros;
    g.initRow = accumulates ? cRow : 0;
    g.initColumn = accumulates ? 1 : 0;
    kernels_.multiply(g);
  }

 private:
  // As wide as the panels that multiply() reads.
  int64_t width(int64_t count) const {
    return count <= kernels_.lanes ? kernels_.lanes : kernels_.columns;
  }

  const GemmKernels<T>& kernels_;
  const T* data_;
  int64_t n_, k_;
};

// A [rows, width] matrix in scratch memory.
template <class T>
struct Block {
  static int64_t elements(int64_t rows, int64_t width) { return rows * lineAligned(width); }
  T* data;
  int64_t stride;
  T* at(int64_t row) const { return data + row * stride; }
};

// Cuts one piece of scratch memory after the other.
template <class T>
class Pieces {
 public:
  explicit Pieces(T* space) : next_(space) {}
  T* take(int64_t elements) {
    T* piece = next_;
    next_ += lineAligned(elements);
    return piece;
  }
  Block<T> block(int64_t rows, int64_t width) {
    return {take(Block<T>::elements(rows, width)), lineAligned(width)};
  }

 private:
  T* next_;
};

// Queries taken together: a few tiles of products, about `most` rows.
template <class T>
int64_t queryBlock(int64_t most) {
  const int64_t rows = gemmKernels<T>().rows;
  return most / rows * rows;
}

// Calls task(space, index of a head, begin, end) for parts of its queries, whole multiples of
// `block` but for the last, with `scratch` elements of memory.
template <class T, class F>
void forEachQueryPart(const AttentionSizes& z, int64_t block, int64_t scratch, const F& task) {
  constexpr int64_t kFewestQueries = 128;
  const int64_t part = z.part(z.tq, kFewestQueries, block), parts = ceilDivide(z.tq, part);
  parallelFor(z.count() * parts, z.grain(2.0 * part * z.tk), [&](int64_t begin, int64_t end) {
    Workspace space(scratch * sizeof(T));
    for (int64_t i = begin; i < end; i++) {
      const int64_t row = i % parts * part;
      task(space.as<T>(), i / parts, row, std::min(z.tq, row + part));
    }
  });
}

}  // namespace adjoint::cpu
