#include "cpu/gemm.h"

#include <algorithm>
#include <cmath>

#include "cpu/pool.h"
#include "cpu/workspace.h"

namespace adjoint::cpu {
namespace {

// Tasks are worth 10 µs at least; beyond some tasks they had better grow, since a block of c uses
// its panels the more often the larger it is.
constexpr double kTaskOperations = 2e6, kLargeTaskOperations = 64e6;
constexpr double kSomeTasks = 16, kMostTasks = 64;
constexpr int64_t kPackGrain = 1 << 15;    // elements packed in one chunk
constexpr int64_t kVectorGrain = 1 << 16;  // elements of the matrix in one chunk
constexpr int64_t kSlabBytes = 16 << 20;   // of packed panels of each operand
constexpr int64_t kRowPanels = 16;         // of a in one task: they stay in the L2 cache
constexpr int64_t kTaskColumns = 1024;
// So few columns that dot products along the rows beat filling a vector with them.
constexpr int64_t kFewColumns = 4;

template <class T>
Product<T> transposed(const Product<T>& p) {
  return {p.n,    p.m, p.k,       p.b,    p.bColumn, p.bK,         p.a,      p.aK,
          p.aRow, p.c, p.cColumn, p.cRow, p.bias,    p.biasColumn, p.biasRow};
}

template <class T>
bool hasFewColumns(const Product<T>& p) {
  return p.aK == 1 && (p.n == 1 || (p.n <= kFewColumns && p.k >= 32));
}

// y_j = a x_j for few columns j; a's rows have unit stride.
template <class T>
void matrixVectors(const Product<T>& p) {
  const GemmKernels<T>& kernels = gemmKernels<T>();
  const bool copies = p.bK != 1;
  Workspace columns(copies ? p.n * p.k * sizeof(T) : 0);
  const T* x = p.b;
  int64_t xColumn = p.bColumn;
  if (copies) {
    T* copy = columns.as<T>();
    for (int64_t j = 0; j < p.n; j++) {
      for (int64_t k = 0; k < p.k; k++) copy[j * p.k + k] = p.b[j * p.bColumn + k * p.bK];
    }
    x = copy;
    xColumn = p.k;
  }
  const int64_t grain = std::max<int64_t>(4, kVectorGrain / std::max<int64_t>(1, p.k));
  parallelFor(p.m, grain, [&](int64_t begin, int64_t end) {
    for (int64_t j = 0; j < p.n; j++) {
      const T* bias = p.bias ? p.bias + begin * p.biasRow + j * p.biasColumn : nullptr;
      kernels.dots(p.c + begin * p.cRow + j * p.cColumn, p.cRow, p.a + begin * p.aRow, p.aRow,
                   x + j * xColumn, bias, p.biasRow, end - begin, p.k);
    }
  });
}

// Whether c^T = b^T a^T is the better way to see it.
template <class T>
bool prefersTransposed(const Product<T>& p, const GemmKernels<T>& kernels) {
  if (p.cColumn != 1 && p.n > 1) return p.cRow == 1 || p.m == 1;
  if (p.n == 1 && p.aK != 1) return p.aRow == 1;  // a's rows can be read by vectors
  // b would be transposed while it is packed, for few rows of a: pack a instead, and read b as it
  // is. c is then transposed while it is stored.
  return p.bColumn != 1 && p.bK == 1 && p.m <= 4 * kernels.columns && p.n >= 2 * p.m;
}

template <class T>
class BlockedProduct {
 public:
  BlockedProduct(const Product<T>& p, const GemmKernels<T>& kernels)
      : p_(p), kernels_(kernels), depth_(p.k) {
    const int64_t fewest = ceilDivide(p.m, kernels.rows);
    panelRows_ = ceilDivide(p.m, fewest);
    const int64_t rowPanels = ceilDivide(p.m, panelRows_);
    const int64_t columnPanels = ceilDivide(p.n, kernels.columns);
    // Reading a in place costs nothing while each element is used for few panels of b, and b while
    // few panels of a pass over it.
    packsA_ = columnPanels > (p.aK == 1 || p.aRow == 1 ? 4 : 1);
    packsB_ = p.bColumn != 1 || rowPanels > 2;
    slabRows_ = packsA_ ? slab(rowPanels, panelRows_) : rowPanels * panelRows_;
    slabColumns_ = packsB_ ? slab(columnPanels, kernels.columns) : columnPanels * kernels.columns;
  }

  void run() {
    const int64_t edge = p_.n % kernels_.columns;
    const int64_t columnsKept = packsB_ ? std::min(slabColumns_, padded(p_.n)) : padded(edge);
    const int64_t rowsKept = packsA_ ? slabRows_ : 0;
    Workspace packed((columnsKept + rowsKept) * p_.k * sizeof(T));
    packedB_ = packed.as<T>();
    packedA_ = packedB_ + columnsKept * p_.k;
    for (int64_t j = 0; j < p_.n; j += slabColumns_) {
      for (int64_t i = 0; i < p_.m; i += slabRows_) {
        rows_ = {i, std::min(p_.m, i + slabRows_)};
        columns_ = {j, std::min(p_.n, j + slabColumns_)};
        pack(i == 0);
        multiply();
      }
    }
  }

 private:
  struct Range {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
  };

  // Packed columns are padded to whole vectors.
  int64_t padded(int64_t n) const { return ceilDivide(n, kernels_.lanes) * kernels_.lanes; }
  // So many panels of `width` that they fit kSlabBytes, evenly cut.
  int64_t slab(int64_t panels, int64_t width) const {
    const double bytes = static_cast<double>(p_.k) * width * sizeof(T);
    const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(kSlabBytes / (bytes + 1)));
    return ceilDivide(panels, ceilDivide(panels, most)) * width;
  }

  // Packs the slab's panels, those of b only for the first slab of a: over the whole depth, block
  // after block of it, so that a block of the depth of all panels is contiguous.
  void pack(bool first) {
    const int64_t aPanels = packsA_ ? ceilDivide(rows_.size(), panelRows_) : 0;
    int64_t bPanels = 0, bSkipped = 0;
    if (first) {
      bPanels = ceilDivide(columns_.size(), kernels_.columns);
      if (!packsB_) {
        bSkipped = columns_.size() / kernels_.columns;
        bPanels -= bSkipped;
      }
    }
    const int64_t grain = std::max<int64_t>(
        1, kPackGrain / std::max<int64_t>(1, p_.k * std::max(panelRows_, kernels_.columns)));
    parallelFor(aPanels + bPanels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        if (i < aPanels) {
          packRows(i);
        } else {
          packColumns(i - aPanels + bSkipped, bSkipped);
        }
      }
    });
  }

  void packRows(int64_t panel) {
    const int64_t row = rows_.begin + panel * panelRows_;
    const int64_t count = std::min(panelRows_, rows_.end - row);
    for (int64_t d = 0; d < depth_.count; d++) {
      const int64_t k = depth_.begin(d), size = depth_.end(d) - k;
      kernels_.pack(packedA_ + k * slabRows_ + panel * panelRows_ * size, panelRows_,
                    p_.a + row * p_.aRow + k * p_.aK, p_.aRow, p_.aK, count, size);
    }
  }

  void packColumns(int64_t panel, int64_t skipped) {
    const int64_t column = columns_.begin + panel * kernels_.columns;
    const int64_t count = std::min(kernels_.columns, columns_.end - column);
    const int64_t kept = packsB_ ? padded(columns_.size()) : padded(count);
    for (int64_t d = 0; d < depth_.count; d++) {
      const int64_t k = depth_.begin(d), size = depth_.end(d) - k;
      kernels_.pack(packedB_ + k * kept + (panel - skipped) * kernels_.columns * size,
                    padded(count), p_.b + column * p_.bColumn + k * p_.bK, p_.bColumn, p_.bK, count,
                    size);
    }
  }

  // Cuts the slab of c into tasks, by its shape alone.
  void multiply() {
    const int64_t rowPanels = ceilDivide(rows_.size(), panelRows_);
    const int64_t columnPanels = ceilDivide(columns_.size(), kernels_.columns);
    const double operations = 2.0 * rows_.size() * columns_.size() * std::max<int64_t>(1, p_.k);
    const double tasks = std::max(std::min(kSomeTasks, operations / kTaskOperations),
                                  std::min(kMostTasks, operations / kLargeTaskOperations));
    const double aspect = static_cast<double>(rows_.size()) / columns_.size();
    const int64_t rowCuts =
        std::min(rowPanels, std::max(ceilDivide(rowPanels, kRowPanels),
                                     static_cast<int64_t>(std::sqrt(tasks * aspect) + 0.5)));
    const int64_t taskRows = ceilDivide(rowPanels, std::max<int64_t>(1, rowCuts)) * panelRows_;
    const int64_t columnCuts = std::min(
        columnPanels, std::max(ceilDivide(columns_.size(), kTaskColumns),
                               static_cast<int64_t>(tasks / std::max<int64_t>(1, rowCuts) + 0.5)));
    const int64_t taskColumns =
        ceilDivide(columnPanels, std::max<int64_t>(1, columnCuts)) * kernels_.columns;
    const int64_t down = ceilDivide(rows_.size(), taskRows);
    const int64_t across = ceilDivide(columns_.size(), taskColumns);
    parallelFor(down * across, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        const int64_t i = rows_.begin + t % down * taskRows;
        const int64_t j = columns_.begin + t / down * taskColumns;
        multiplyBlock({i, std::min(rows_.end, i + taskRows)},
                      {j, std::min(columns_.end, j + taskColumns)});
      }
    });
  }

  void multiplyBlock(Range rows, Range columns) {
    alignas(64) static const T zeros[64] = {};
    const int64_t m = rows.size(), n = columns.size();
    // A bias of the rows becomes a panel of its repeated values. c without unit column stride is
    // computed beside it.
    const bool isDirect = p_.cColumn == 1 || p_.n == 1;
    const bool hasRowBias = p_.bias && p_.biasColumn == 0;
    const bool copiesBias = p_.bias && !hasRowBias && p_.biasColumn != 1;
    const int64_t width = ceilDivide(n, kernels_.columns) * kernels_.columns;
    const int64_t biasSize = hasRowBias ? m * kernels_.columns : copiesBias ? width : 0;
    Workspace space((biasSize + (isDirect ? 0 : m * width)) * sizeof(T));
    T* bias = space.as<T>();
    T* c = isDirect ? p_.c + rows.begin * p_.cRow + columns.begin : bias + biasSize;
    const int64_t cRow = isDirect ? p_.cRow : width;

    GemmBlock<T> block;
    block.m = m;
    block.n = n;
    block.panelRows = panelRows_;
    block.c = c;
    block.cRow = cRow;
    block.init = zeros;
    block.initRow = block.initColumn = 0;
    if (hasRowBias) {
      for (int64_t i = 0; i < m; i++) {
        const T value = p_.bias[(rows.begin + i) * p_.biasRow];
        std::fill_n(bias + i * kernels_.columns, kernels_.columns, value);
      }
      block.init = bias;
      block.initRow = kernels_.columns;
    } else if (p_.bias) {
      block.init = p_.bias + columns.begin * p_.biasColumn;
      if (copiesBias) {
        for (int64_t j = 0; j < n; j++) bias[j] = block.init[j * p_.biasColumn];
        block.init = bias;
      }
      block.initColumn = 1;
    }
    for (int64_t d = 0; d < depth_.count; d++) {
      setOperands(block, rows.begin, columns, depth_.begin(d), depth_.end(d));
      setAhead(block, rows, columns, d + 1);
      kernels_.multiply(block);
      block.init = c;
      block.initRow = cRow;
      block.initColumn = 1;
    }
    if (!isDirect) {
      kernels_.store(p_.c + rows.begin * p_.cRow + columns.begin * p_.cColumn, p_.cRow, p_.cColumn,
                     c, cRow, m, n);
    }
  }

  void setOperands(GemmBlock<T>& block, int64_t row, Range columns, int64_t k, int64_t kEnd) const {
    const int64_t size = kEnd - k;
    block.k = size;
    if (packsA_) {
      const int64_t panel = (row - rows_.begin) / panelRows_;
      block.a = packedA_ + k * slabRows_ + panel * panelRows_ * size;
      block.aPanel = panelRows_ * size;
      block.aRow = 1;
      block.aK = panelRows_;
    } else {
      block.a = p_.a + row * p_.aRow + k * p_.aK;
      block.aPanel = panelRows_ * p_.aRow;
      block.aRow = p_.aRow;
      block.aK = p_.aK;
    }
    const int64_t whole = columns.size() / kernels_.columns;
    if (packsB_) {
      block.b = packedB_ + k * padded(columns_.size()) + (columns.begin - columns_.begin) * size;
      block.bPanel = kernels_.columns * size;
      block.bRow = kernels_.columns;
      block.bEdge = block.b + whole * block.bPanel;
    } else {
      block.b = p_.b + columns.begin + k * p_.bK;
      block.bPanel = kernels_.columns;
      block.bRow = p_.bK;
      block.bEdge = packedB_ + k * padded(columns.size() % kernels_.columns);
    }
  }

  // Panels of large slabs have left the L2 cache by the time that they are needed.
  void setAhead(GemmBlock<T>& block, Range rows, Range columns, int64_t d) const {
    constexpr int64_t kFarBytes = 4 << 20;
    const int64_t packed = (packsA_ ? rows_.size() : 0) + (packsB_ ? columns_.size() : 0);
    const bool isFar = packed * p_.k * static_cast<int64_t>(sizeof(T)) > kFarBytes;
    const int64_t size = isFar && d < depth_.count ? depth_.end(d) - depth_.begin(d) : 0;
    GemmBlock<T> next = block;
    if (size > 0) setOperands(next, rows.begin, columns, depth_.begin(d), depth_.end(d));
    block.aAhead = next.a;
    block.bAhead = next.b;
    block.aAheadSize = packsA_ ? rows.size() * size : 0;
    block.bAheadSize = packsB_ ? columns.size() * size : 0;
  }

  const Product<T>& p_;
  const GemmKernels<T>& kernels_;
  const DepthBlocks depth_;
  int64_t panelRows_, slabRows_, slabColumns_;
  bool packsA_, packsB_;
  T *packedA_ = nullptr, *packedB_ = nullptr;
  Range rows_{}, columns_{};  // of the slab at hand
};

// A small c of a great depth: the depth is shared out, and the sums of its parts are added in
// order.
template <class T>
bool hasGreatDepth(const Product<T>& p) {
  constexpr int64_t kSmallResult = 1 << 15, kGreatDepth = 4096;
  return p.k >= kGreatDepth && p.m <= kSmallResult && p.n <= kSmallResult &&
         p.m * p.n <= kSmallResult;
}

template <class T>
void splitDepth(const Product<T>& p) {
  constexpr int64_t kPart = 1024, kMostParts = 16;
  const int64_t size = ceilDivide(p.k, std::min(kMostParts, p.k / kPart));
  const int64_t parts = ceilDivide(p.k, size), area = p.m * p.n;
  Workspace space(parts * area * sizeof(T));
  T* sums = space.as<T>();
  parallelFor(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      Product<T> part = p;
      part.a += i * size * p.aK;
      part.b += i * size * p.bK;
      part.k = std::min(size, p.k - i * size);
      part.c = sums + i * area;
      part.cRow = p.n;
      part.cColumn = 1;
      part.bias = i == 0 ? p.bias : nullptr;
      gemm(part);
    }
  });
  parallelFor(p.m, std::max<int64_t>(1, kPackGrain / (p.n * parts)),
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; i++) {
                  for (int64_t j = 0; j < p.n; j++) {
                    T sum = sums[i * p.n + j];
                    for (int64_t t = 1; t < parts; t++) sum += sums[t * area + i * p.n + j];
                    p.c[i * p.cRow + j * p.cColumn] = sum;
                  }
                }
              });
}

}  // namespace

template <>
const GemmKernels<float>& gemmKernels<float>() {
  return gemmTable().f32;
}
template <>
const GemmKernels<double>& gemmKernels<double>() {
  return gemmTable().f64;
}
template <>
const GemmKernels<uint64_t>& gemmKernels<uint64_t>() {
  return gemmTable().i64;
}

template <class T>
void gemm(const Product<T>& product) {
  if (product.m == 0 || product.n == 0) return;
  const Product<T> flipped = transposed(product);
  if (hasFewColumns(product)) return matrixVectors(product);
  if (hasFewColumns(flipped)) return matrixVectors(flipped);
  if (hasGreatDepth(product)) return splitDepth(product);
  const GemmKernels<T>& kernels = gemmKernels<T>();
  BlockedProduct<T>(prefersTransposed(product, kernels) ? flipped : product, kernels).run();
}

template void gemm(const Product<float>&);
template void gemm(const Product<double>&);
template void gemm(const Product<uint64_t>&);

}  // namespace adjoint::cpu
