// Reductions over any axes. The axes are split into those kept and those reduced. Where the memory
// runs along reduced axes, each output folds rows (rows mode); where it runs along kept axes, a
// block of outputs folds whole rows at once (columns mode). Few outputs with many inputs are cut
// into chunks of inputs, whose partial results are merged in order.
#include "cpu/kernels/reduce.h"

#include <cmath>
#include <vector>

#include "contract.h"
#include "cpu/blocks.h"
#include "shared/convert.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kChunk = 32768;   // inputs of a chunk
constexpr int64_t kManyTasks = 64;  // tasks enough to need no chunks
constexpr int64_t kRowsAlign = 16;  // rows that the kernels fold at once

// The axes of x: kept (0: x, 1: y) and reduced (0: x).
struct Split {
  Plan<2> kept;
  Plan<1> reduced;
};

template <int N>
void appendAxis(Plan<N>& to, const Plan<2>& from, int axis) {
  to.size[to.ndim] = from.size[axis];
  for (int k = 0; k < N; k++) to.stride[k][to.ndim] = from.stride[k][axis];
  to.numel *= from.size[axis];
  to.ndim++;
}

Split splitAxes(const View& x, const View& y) {
  const Plan<2> plan = makePlan<2>({&x, &y});
  Split split;
  for (int k = 0; k < 2; k++) split.kept.data[k] = plan.data[k];
  split.reduced.data[0] = plan.data[0];
  // y's stride is 0 in a reduced axis alone: outputs do not overlap.
  for (int i = 0; i < plan.ndim; i++) {
    if (plan.stride[1][i] == 0) {
      appendAxis(split.reduced, plan, i);
    } else {
      appendAxis(split.kept, plan, i);
    }
  }
  adjoint::detail::mergeAxes(split.kept);
  adjoint::detail::mergeAxes(split.reduced);
  return split;
}

// Whether neighbouring outputs should be folded together.
bool prefersColumns(const Split& s) {
  constexpr int64_t kShort = 16;
  if (s.kept.ndim == 0) return false;
  if (s.reduced.ndim == 0) return true;
  const int64_t kept = adjoint::detail::magnitude(s.kept.innerStride(0));
  const int64_t reduced = adjoint::detail::magnitude(s.reduced.innerStride(0));
  if (kept < reduced) return s.kept.innerSize() > 1;
  return s.reduced.innerSize() < kShort && s.kept.innerSize() > s.reduced.innerSize();
}

// A block of accumulators; value and low as the kernels take them.
struct Accumulators {
  alignas(64) char value[kBlock * 8];
  alignas(64) double low[kBlock];
  char* valueAt(int64_t j) { return value + j * 8; }
};

class Reduction {
 public:
  Reduction(Fold fold, bool isMean, const View& y, const View& x)
      : split_(splitAxes(x, y)),
        compute_(computeType(x.dtype)),
        kernel_(reduceTable().fold[static_cast<int>(fold)][static_cast<int>(compute_)]),
        carriesError_(fold == Fold::sum && compute_ == Compute::f64),
        divisor_(isMean ? static_cast<double>(split_.reduced.numel) : 0),
        xType_(x.dtype),
        yType_(y.dtype),
        byColumns_(prefersColumns(split_)) {}

  void run() {
    const int64_t outputs = split_.kept.numel, inputs = split_.reduced.numel;
    const int64_t tasks = byColumns_ ? columnBlocks() : outputs;
    const int64_t unit = byColumns_ ? std::min(kBlock, split_.kept.innerSize()) : 1;
    // A chunk has kChunk inputs, or more where that would make more chunks than needed.
    const int64_t wanted = std::max(kChunk / unit, (inputs + kManyTasks - 1) / kManyTasks);
    const int64_t length = (wanted + kRowsAlign - 1) / kRowsAlign * kRowsAlign;
    const int64_t chunks = tasks >= kManyTasks ? 1 : (inputs + length - 1) / length;
    if (chunks <= 1) return runWhole(std::max<int64_t>(1, kGrain / inputs));
    runInChunks(outputs, chunks, length);
  }

 private:
  int64_t columnBlocks() const {
    const int64_t inner = split_.kept.innerSize();
    return split_.kept.numel / inner * ((inner + kBlock - 1) / kBlock);
  }

  // Outputs in blocks within rows of the kept axes; a thread takes `grain` outputs at once.
  void runWhole(int64_t grain) {
    const Plan<2>& kept = split_.kept;
    // Whole rows of outputs, so that columns are not cut to pieces.
    const int64_t inner = kept.innerSize();
    if (byColumns_ && grain < inner) grain = std::min(inner, std::max(grain, kBlock));
    parallelFor(kept.numel, grain, [&](int64_t begin, int64_t end) {
      Accumulators acc;
      Writer writer(kept, 1, yType_, resultType());
      Reader reader = makeReader();
      forEachOutputs(begin, end, [&](const Cursor& at, int64_t n) {
        kernel_.init(acc.value, acc.low, n);
        foldInto(acc, reader, at, n, 0, split_.reduced.numel);
        finish(writer, at, n, acc);
      });
    });
  }

  void runInChunks(int64_t outputs, int64_t chunks, int64_t length) {
    std::vector<int64_t> values(static_cast<size_t>(outputs * chunks));
    std::vector<double> lows(values.size());
    const int64_t blocks = byColumns_ ? columnBlocks() : outputs;
    const int64_t blockSize = byColumns_ ? std::min(kBlock, split_.kept.innerSize()) : 1;
    parallelFor(blocks * chunks, 1, [&](int64_t begin, int64_t end) {
      Reader reader = makeReader();
      for (int64_t task = begin; task < end; task++) {
        const int64_t chunk = task % chunks;
        const auto [first, n] = outputsOfBlock(task / chunks, blockSize);
        Accumulators acc;
        kernel_.init(acc.value, acc.low, n);
        foldInto(acc, reader, Cursor(split_.kept, first), n, chunk * length,
                 std::min((chunk + 1) * length, split_.reduced.numel));
        const auto at = static_cast<size_t>(chunk * outputs + first);
        std::memcpy(&values[at], acc.value, static_cast<size_t>(n) * 8);
        if (carriesError_) std::memcpy(&lows[at], acc.low, static_cast<size_t>(n) * 8);
      }
    });
    Accumulators acc;
    Writer writer(split_.kept, 1, yType_, resultType());
    forEachOutputs(0, outputs, [&](const Cursor& at, int64_t n) {
      kernel_.init(acc.value, acc.low, n);
      for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const auto from = static_cast<size_t>(chunk * outputs + at.linear());
        kernel_.merge(acc.value, acc.low, &values[from], &lows[from], n);
      }
      finish(writer, at, n, acc);
    });
  }

  template <class F>
  void forEachOutputs(int64_t begin, int64_t end, F body) {
    Cursor at(split_.kept, begin);
    while (at.linear() < end) {
      const int64_t n = std::min({at.leftInRow(), kBlock, end - at.linear()});
      body(at, n);
      at.advance(n);
    }
  }

  // First output and count of a block: rows of the kept axes, cut into kBlock.
  std::pair<int64_t, int64_t> outputsOfBlock(int64_t block, int64_t blockSize) const {
    const int64_t inner = split_.kept.innerSize();
    const int64_t perRow = (inner + blockSize - 1) / blockSize;
    const int64_t row = block / perRow, start = block % perRow * blockSize;
    return {row * inner + start, std::min(blockSize, inner - start)};
  }

  // Rows mode reads along the reduced axes, columns mode along the kept ones.
  Reader makeReader() const {
    return byColumns_ ? Reader(split_.kept, 0, xType_, compute_)
                      : Reader(split_.reduced, 0, xType_, compute_);
  }

  // Folds inputs [begin, end) of the reduced axes into n outputs from `at`.
  void foldInto(Accumulators& acc, Reader& reader, const Cursor& at, int64_t n, int64_t begin,
                int64_t end) const {
    if (byColumns_) return foldColumns(acc, reader, at, n, begin, end);
    Cursor output = at;
    for (int64_t j = 0; j < n; j++) {
      reader.moveTo(output.offset(split_.kept.stride[0]));
      forEachBlock(split_.reduced, begin, end, reader.isDirect(),
                   [&](const Cursor& place, int64_t m) {
                     kernel_.row(acc.valueAt(j), acc.low + j, reader.read(place, m), m);
                   });
      output.advance(1);
    }
  }

  void foldColumns(Accumulators& acc, Reader& reader, const Cursor& at, int64_t n, int64_t begin,
                   int64_t end) const {
    const Plan<1>& reduced = split_.reduced;
    const int64_t step = reduced.innerStride(0);
    const bool inPlace = xType_ == storedAs(compute_) && split_.kept.innerStride(0) == 1;
    Cursor place(reduced, begin);
    while (place.linear() < end) {
      const int64_t rows = std::min(place.leftInRow(), end - place.linear());
      const int64_t offset = place.offset(reduced.stride[0]);
      if (inPlace) {
        const int64_t start = offset + at.offset(split_.kept.stride[0]);
        const auto* x = static_cast<const char*>(split_.kept.data[0]);
        kernel_.columns(acc.value, acc.low, x + (start << log2Size(xType_)), rows, step, n);
      } else {
        const size_t size = itemSize(storedAs(compute_));
        alignas(64) char group[kRowsAlign * kBlock * 8];
        for (int64_t r = 0; r < rows; r += kRowsAlign) {
          const int64_t count = std::min(kRowsAlign, rows - r);
          for (int64_t k = 0; k < count; k++) {
            reader.moveTo(offset + (r + k) * step);
            std::memcpy(group + static_cast<size_t>(k * n) * size, reader.read(at, n),
                        static_cast<size_t>(n) * size);
          }
          kernel_.columns(acc.value, acc.low, group, count, n, n);
        }
      }
      place.advance(rows);
    }
  }

  Compute resultType() const {
    return compute_ == Compute::i64 && divisor_ == 0 ? Compute::i64 : Compute::f64;
  }

  // Accumulators become results: the carried error is added, a mean is divided.
  void finish(Writer& writer, const Cursor& at, int64_t n, Accumulators& acc) const {
    auto* value = reinterpret_cast<double*>(acc.value);
    if (compute_ == Compute::i64 && divisor_ != 0) {
      for (int64_t j = 0; j < n; j++) {
        value[j] = static_cast<double>(reinterpret_cast<int64_t*>(acc.value)[j]);
      }
    }
    if (carriesError_) {
      // Where the sum is infinite the error is NaN.
      for (int64_t j = 0; j < n; j++) value[j] += std::isfinite(acc.low[j]) ? acc.low[j] : 0;
    }
    if (divisor_ != 0) {
      for (int64_t j = 0; j < n; j++) value[j] /= divisor_;
    }
    void* target = writer.target(at, n);
    if (yType_ == storedAs(resultType())) {
      std::memcpy(target, acc.value, static_cast<size_t>(n) * 8);
      writer.commit(at, n, target);
    } else {
      writer.commit(at, n, acc.value);
    }
  }

  Split split_;
  Compute compute_;
  const FoldKernel& kernel_;
  bool carriesError_;
  double divisor_;
  DType xType_, yType_;
  bool byColumns_;
};

Fold foldOf(ReduceOp op) {
  switch (op) {
    case ReduceOp::prod:
      return Fold::prod;
    case ReduceOp::amax:
      return Fold::amax;
    case ReduceOp::amin:
      return Fold::amin;
    case ReduceOp::any:
      return Fold::any;
    case ReduceOp::all:
      return Fold::all;
    default:
      return Fold::sum;
  }
}

// The value of a reduction of nothing.
void fillEmpty(ReduceOp op, const View& y) {
  switch (op) {
    case ReduceOp::amax:
    case ReduceOp::amin:
      fail(ErrorKind::shape, "%s: expected axes that are not empty, for nothing has no extremum",
           op == ReduceOp::amax ? "amax" : "amin");
    case ReduceOp::mean:
      return backend::fill(y, Scalar::of(std::nan("")));
    case ReduceOp::prod:
    case ReduceOp::all:
      return backend::fill(y, Scalar::of(int64_t{1}));
    default:
      return backend::fill(y, Scalar::of(int64_t{0}));
  }
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void reduce(ReduceOp op, const View& y, const View& x) {
  if (y.numel() == 0) return;
  if (x.numel() == 0) return fillEmpty(op, y);
  Reduction(foldOf(op), op == ReduceOp::mean, y, x).run();
}

}  // namespace adjoint::backend
