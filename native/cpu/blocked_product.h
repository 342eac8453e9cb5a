// A product in panels (Van Zee & van de Geijn 2015), packed or read in place; c is cut into tasks.
// How the sum of an element of c is formed depends on the shape alone.
#pragma once
#include <algorithm>
#include <cmath>

#include "cpu/gemm.h"
#include "cpu/workspace.h"

namespace adjoint::cpu {

template <class T>
class BlockedProduct {
 public:
  BlockedProduct(const Product<T>& p, const GemmKernels<T>& kernels)
      : p_(p), kernels_(kernels), depth_(p.k, DepthBlocks::kInL2) {
    const int64_t fewest = ceilDivide(p.m, kernels.rows);
    panelRows_ = ceilDivide(p.m, fewest);
    const int64_t rowPanels = ceilDivide(p.m, panelRows_);
    const int64_t columnPanels = ceilDivide(p.n, kernels.columns);
    // b is read in place where its rows are whole vectors and not so many panels of a pass over it
    // that packing pays; so is a, which costs nothing while each element is used for few panels of
    // b, or where its rows lie side by side, as b's do (the gradient of weights, x^T dy): then all
    // comes from the L2 cache line by line, asked for ahead. Rows along the depth that lie whole
    // pages apart would put a step of all of them in one set of the L1 cache.
    readsB_ = p.bColumn == 1 && rowPanels <= kInPlacePanels;
    const bool isAcross = p.aRow == 1 && p.aK != 1;
    const bool isPaged = p.aK == 1 && p.aRow * sizeof(T) % kPageBytes == 0;
    const int64_t mostColumnPanels = isAcross ? 4 : p.aK != 1 ? 1 : isPaged ? 2 : 24;
    packsA_ = !(readsB_ && isAcross) && columnPanels > mostColumnPanels;
    // Where one task takes all rows, no other wants its panels of b: it packs each as it comes,
    // which saves small products a parallel loop. There must be panels for as many tasks as the
    // product is worth. The steps of the depth being shorter there, a task may take more rows; so
    // it does where b is so large that it would be written to memory and read again.
    const bool isLarge = static_cast<double>(p.k) * p.n * sizeof(T) > kLargeBytes;
    const int64_t mostPanels = kRowPanels * (isLarge ? DepthBlocks::kInL2 / DepthBlocks::kInL1 : 1);
    const double tasks = 2.0 * p.m * p.n * p.k / kTaskOperations;
    const bool fillsTasks = columnPanels >= kManyPanels || (tasks >= 2 && columnPanels >= tasks);
    packsInTask_ = !readsB_ && rowPanels <= mostPanels && fillsTasks;
    // A small b is packed once a thread, each in parts of the rows: that takes less time than to
    // hand it to other cores.
    packsPerThread_ = !readsB_ && !packsInTask_ && rowPanels <= kMostRowPanels &&
                      p.k * p.n <= std::min(kSmallElements, p.m * kSmallElementsPerRow);
    packsInTask_ |= packsPerThread_;
    if (packsInTask_ || readsB_) depth_ = DepthBlocks(p.k, DepthBlocks::kInL1);
    slabRows_ = packsA_ ? slab(rowPanels, panelRows_) : rowPanels * panelRows_;
    slabColumns_ = readsB_ || packsInTask_ ? columnPanels * kernels.columns
                                           : slab(columnPanels, kernels.columns);
  }

  void run() {
    const int64_t edge = p_.n % kernels_.columns;
    const int64_t columnsKept = packsInTask_ ? 0
                                : readsB_    ? padded(edge)
                                             : std::min(slabColumns_, padded(p_.n));
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
  // Tasks are worth 10 µs at least; beyond some tasks they had better grow, since a block of c uses
  // its panels the more often the larger it is.
  static constexpr double kTaskOperations = 2e6, kLargeTaskOperations = 64e6;
  static constexpr double kHalvedOperations = 1.5e6;  // 12 µs of one thread
  static constexpr double kFewTasks = 8, kSomeTasks = 16, kMostTasks = 64;
  static constexpr int64_t kPackGrain = 1 << 15;   // elements packed in one chunk
  static constexpr int64_t kPackSteps = 16;        // of the depth, packed for one panel at a time
  static constexpr int64_t kSlabBytes = 16 << 20;  // of packed panels of each operand
  static constexpr double kLargeBytes = 2 << 20;   // of an operand that leaves the L2 cache
  static constexpr int64_t kRowPanels = 16;        // of a in one task: they stay in the L2 cache
  static constexpr int64_t kInPlacePanels = 64;    // of a, up to which b is read in place
  static constexpr int64_t kPageBytes = 4096;
  static constexpr int64_t kTaskColumns = 1024;
  static constexpr int64_t kManyPanels = 8;
  // Of b, where each thread packs it by itself, and panels of a, whose columns of c fit the caches.
  static constexpr int64_t kSmallElements = 1 << 18, kSmallElementsPerRow = 1 << 11;
  static constexpr int64_t kMostRowPanels = 256;
  // Steps of the depth that are summed in registers at a stretch: a sum of sums of so many has a
  // smaller rounding error, and meets c often enough to cost about 1 %.
  static constexpr int64_t kRun = 128;

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

  // Panels of one operand in the slab at hand, over the whole depth: a block of the depth of all
  // panels is contiguous, and the blocks follow one another.
  struct Panels {
    T* to;
    int64_t kept;   // columns of all panels together, padded
    int64_t width;  // of a panel
    const T* from;  // the first column, of `count`, at step 0 of the depth
    int64_t stride, kStride, count;
    bool isRows;  // padded to whole panels, not to whole vectors

    // Rows along the depth lie far apart and hold many panels side by side: those are packed
    // together, step after step, so that memory is read in the order in which it lies.
    bool goesByDepth() const { return stride == 1 && kStride != 1 && count > width; }
  };

  // The slab of a, and that of b for the first slab of a.
  void pack(bool first) {
    const int64_t edge = columns_.size() % kernels_.columns;
    Panels b{packedB_, padded(columns_.size()), kernels_.columns, nullptr, p_.bColumn, p_.bK, 0,
             false};
    if (first && !packsInTask_) {
      b.count = readsB_ ? edge : columns_.size();
      if (readsB_) b.kept = padded(edge);
      b.from = p_.b + (columns_.end - b.count) * p_.bColumn;
    }
    const Panels a{packedA_,
                   slabRows_,
                   panelRows_,
                   p_.a + rows_.begin * p_.aRow,
                   p_.aRow,
                   p_.aK,
                   packsA_ ? rows_.size() : 0,
                   true};
    const int64_t aChunks = chunks(a), bChunks = chunks(b);
    // Chunks of both operands alternate: whoever packs a part of the rows of a multiplies it too.
    const int64_t all = aChunks + bChunks;
    parallelFor(all, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t ofA = i * aChunks / all, next = (i + 1) * aChunks / all;
        if (next > ofA) {
          pack(a, ofA);
        } else {
          pack(b, i - ofA);
        }
      }
    });
  }

  // Panels in a chunk, or steps of the depth.
  int64_t chunkSize(const Panels& x) const {
    if (x.goesByDepth()) {
      return ceilDivide(std::max<int64_t>(1, kPackGrain / x.count), kPackSteps) * kPackSteps;
    }
    return std::max<int64_t>(1, kPackGrain / std::max<int64_t>(1, p_.k * x.width));
  }
  int64_t chunks(const Panels& x) const {
    return ceilDivide(x.goesByDepth() ? p_.k : ceilDivide(x.count, x.width), chunkSize(x));
  }

  void pack(const Panels& x, int64_t chunk) const {
    const int64_t size = chunkSize(x), begin = chunk * size;
    if (x.goesByDepth()) {
      const int64_t end = std::min(p_.k, begin + size);
      for (int64_t d = 0; d < depth_.count; d++) {
        const int64_t last = std::min(end, depth_.end(d));
        for (int64_t k = std::max(begin, depth_.begin(d)); k < last; k += kPackSteps) {
          for (int64_t i = 0; i < x.count; i += x.width) {
            packPart(x, i, d, k, std::min(last, k + kPackSteps));
          }
        }
      }
      return;
    }
    const int64_t end = std::min(x.count, (begin + size) * x.width);
    for (int64_t i = begin * x.width; i < end; i += x.width) {
      for (int64_t d = 0; d < depth_.count; d++) {
        packPart(x, i, d, depth_.begin(d), depth_.end(d));
      }
    }
  }

  // Of the panel whose first column is i, steps k..end of the depth, in block d of it.
  void packPart(const Panels& x, int64_t i, int64_t d, int64_t k, int64_t end) const {
    const int64_t count = std::min(x.width, x.count - i);
    const int64_t width = x.isRows ? x.width : padded(count);
    const int64_t first = depth_.begin(d);
    kernels_.pack(x.to + first * x.kept + i * (depth_.end(d) - first) + (k - first) * width, width,
                  x.from + i * x.stride + k * x.kStride, x.stride, x.kStride, count, end - k);
  }

  // Cuts the slab of c into tasks.
  void multiply() {
    const int64_t rowPanels = ceilDivide(rows_.size(), panelRows_);
    const int64_t columnPanels = ceilDivide(columns_.size(), kernels_.columns);
    const double operations = 2.0 * rows_.size() * columns_.size() * std::max<int64_t>(1, p_.k);
    // Fewer where nothing is packed: a task had better read whole rows.
    const double some = readsB_ ? std::max(kFewTasks, 2.0 * threadsHere()) : kSomeTasks;
    double tasks = std::max(std::min(some, operations / kTaskOperations),
                            std::min(kMostTasks, operations / kLargeTaskOperations));
    if (operations >= kHalvedOperations) tasks = std::max(tasks, 2.0);
    // Blocks of c near squares read the least. Even cuts of the rows give two threads halves.
    const double aspect = static_cast<double>(rows_.size()) / columns_.size();
    const auto evenly = [](double cuts) { return static_cast<int64_t>(cuts + 0.5); };
    int64_t rowCuts = 1, columnCuts = 1;
    if (packsPerThread_) {
      rowCuts = std::min<int64_t>({std::max<int64_t>(1, evenly(tasks)), rowPanels, threadsHere()});
    } else if (readsB_ && tasks <= 2) {  // halves of that side of which they are more even
      const bool byColumns =
          ceilDivide(columnPanels, 2) * rowPanels <= ceilDivide(rowPanels, 2) * columnPanels;
      if (tasks == 2 && rowPanels * columnPanels > 1) (byColumns ? columnCuts : rowCuts) = 2;
    } else {
      if (!packsInTask_ && !(readsB_ && columnPanels >= tasks)) {
        rowCuts = std::clamp(2 * evenly(std::sqrt(tasks * aspect) / 2),
                             ceilDivide(rowPanels, kRowPanels), rowPanels);
      }
      columnCuts = std::clamp(evenly(tasks / rowCuts),
                              std::min(columnPanels, ceilDivide(columns_.size(), kTaskColumns)),
                              columnPanels);
    }
    // Row by row: a thread's share of the tasks is a run of rows of c, as it is of a tensor's
    // elements in most operations that write a and read c.
    parallelFor(rowCuts * columnCuts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        multiplyBlock(part(rows_, panelRows_, t / columnCuts, rowCuts),
                      part(columns_, kernels_.columns, t % columnCuts, columnCuts));
      }
    });
  }

  // Part i of so many of a range: as many panels of `width` in each as in the others, or one more.
  static Range part(Range all, int64_t width, int64_t i, int64_t parts) {
    const int64_t panels = ceilDivide(all.size(), width);
    return {all.begin + panels * i / parts * width,
            std::min(all.end, all.begin + panels * (i + 1) / parts * width)};
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
    const int64_t panelSize = packsInTask_ ? depth_.size * kernels_.columns : 0;
    Workspace space((panelSize + biasSize + (isDirect ? 0 : m * width)) * sizeof(T));
    T* panel = space.as<T>();
    T* bias = panel + panelSize;
    T* c = isDirect ? p_.c + rows.begin * p_.cRow + columns.begin : bias + biasSize;
    const int64_t cRow = isDirect ? p_.cRow : width;

    GemmBlock<T> block;
    block.m = m;
    block.n = n;
    block.panelRows = panelRows_;
    block.c = c;
    block.cRow = cRow;
    block.run = kRun;
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
      block.rectify = p_.rectify && d + 1 == depth_.count;
      if (packsInTask_) {
        multiplyPanels(block, columns, depth_.begin(d), panel);
      } else {
        setNext(block, rows, columns, d + 1);
        kernels_.multiply(block);
      }
      block.init = c;
      block.initRow = cRow;
      block.initColumn = 1;
    }
    if (!isDirect) {
      kernels_.store(p_.c + rows.begin * p_.cRow + columns.begin * p_.cColumn, p_.cRow, p_.cColumn,
                     c, cRow, m, n);
    }
  }

  // Where columns 0..count of an operand lie, steps 0..depth of them.
  static Runs<T> runs(const T* from, int64_t count, int64_t depth, int64_t stride,
                      int64_t kStride) {
    if (kStride == 1) return {from, count, depth, stride};
    return {from, depth, count, kStride};
  }

  // What is read in place of block d of the depth, if there is one.
  void setNext(GemmBlock<T>& block, Range rows, Range columns, int64_t d) const {
    block.nextA = block.nextB = {};
    if (d == depth_.count) return;
    const int64_t k = depth_.begin(d), size = depth_.end(d) - k;
    if (readsB_) {
      block.nextB = runs(p_.b + columns.begin * p_.bColumn + k * p_.bK,
                         std::min(kernels_.columns, columns.size()), size, p_.bColumn, p_.bK);
    }
    if (!packsA_) {
      block.nextA =
          runs(p_.a + rows.begin * p_.aRow + k * p_.aK, rows.size(), size, p_.aRow, p_.aK);
    }
  }

  // Panel after panel of b, packed where it stays in the L1 cache.
  void multiplyPanels(const GemmBlock<T>& block, Range columns, int64_t k, T* panel) const {
    for (int64_t j = 0; j < columns.size(); j += kernels_.columns) {
      GemmBlock<T> part = block;
      part.n = std::min(kernels_.columns, columns.size() - j);
      const T* from = p_.b + (columns.begin + j) * p_.bColumn + k * p_.bK;
      kernels_.pack(panel, padded(part.n), from, p_.bColumn, p_.bK, part.n, block.k);
      const int64_t left = std::min(kernels_.columns, columns.size() - j - part.n);
      part.nextB = runs(from + part.n * p_.bColumn, left, block.k, p_.bColumn, p_.bK);
      part.b = part.bEdge = panel;
      part.bRow = kernels_.columns;
      part.c += j;
      part.init += j * part.initColumn;
      kernels_.multiply(part);
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
    if (packsInTask_) return;
    const int64_t whole = columns.size() / kernels_.columns;
    if (readsB_) {
      block.b = p_.b + columns.begin + k * p_.bK;
      block.bPanel = kernels_.columns;
      block.bRow = p_.bK;
      block.bEdge = packedB_ + k * padded(columns.size() % kernels_.columns);
    } else {
      block.b = packedB_ + k * padded(columns_.size()) + (columns.begin - columns_.begin) * size;
      block.bPanel = kernels_.columns * size;
      block.bRow = kernels_.columns;
      block.bEdge = block.b + whole * block.bPanel;
    }
  }

  const Product<T>& p_;
  const GemmKernels<T>& kernels_;
  DepthBlocks depth_;
  int64_t panelRows_, slabRows_, slabColumns_;
  bool packsA_, readsB_, packsInTask_, packsPerThread_;
  T *packedA_ = nullptr, *packedB_ = nullptr;
  Range rows_{}, columns_{};  // of the slab at hand
};

}  // namespace adjoint::cpu
