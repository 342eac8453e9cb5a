// argmax and argmin along one axis: rows, columns or chunks, as in reduce.cpp.
#include <vector>

#include "contract.h"
#include "cpu/blocks.h"
#include "cpu/kernels/reduce.h"
#include "shared/convert.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kChunk = 32768;  // inputs of a chunk

struct Best {
  alignas(64) char value[kBlock * 8];
  int64_t index[kBlock];
  void clear(int64_t n) {
    std::memset(value, 0, static_cast<size_t>(n) * 8);
    std::fill(index, index + n, -1);
  }
};

class ArgReduction {
 public:
  ArgReduction(ArgOp op, const View& y, const View& x, int axis)
      : compute_(computeType(x.dtype)),
        size_(itemSize(storedAs(compute_))),
        kernel_(reduceTable().arg[static_cast<int>(op)][static_cast<int>(compute_)]),
        xType_(x.dtype) {
    View others = x;  // the axes that stay
    others.size[axis] = 1;
    kept_ = makePlan<2>({&others, &y});
    along_.data[0] = x.data;
    along_.ndim = 1;
    along_.size[0] = along_.numel = x.size[axis];
    along_.stride[0][0] = x.stride[axis];
    byColumns_ = kept_.innerSize() > 1 && kept_.innerStride(0) < x.stride[axis];
  }

  void run() {
    constexpr int64_t kManyOutputs = 64;
    const int64_t outputs = kept_.numel, inputs = along_.numel;
    if (outputs < kManyOutputs && inputs > kChunk) return runInChunks();
    int64_t grain = std::max<int64_t>(1, kGrain / inputs);
    if (byColumns_) grain = std::max(grain, std::min(kBlock, kept_.innerSize()));
    parallelFor(outputs, grain, [&](int64_t begin, int64_t end) {
      Best best;
      Writer writer(kept_, 1, DType::int64, Compute::i64);
      Reader reader = makeReader();
      forEachOutputs(begin, end, [&](const Cursor& at, int64_t n) {
        best.clear(n);
        search(best, reader, at, n, 0, inputs);
        commit(writer, at, n, best);
      });
    });
  }

 private:
  // Fewer than kBlock outputs, so one block holds the best of a chunk.
  void runInChunks() {
    const int64_t outputs = kept_.numel, chunks = (along_.numel + kChunk - 1) / kChunk;
    std::vector<Best> found(static_cast<size_t>(chunks));
    parallelFor(chunks, 1, [&](int64_t first, int64_t last) {
      Reader reader = makeReader();
      for (int64_t chunk = first; chunk < last; chunk++) {
        Best& best = found[static_cast<size_t>(chunk)];
        best.clear(outputs);
        forEachOutputs(0, outputs, [&](const Cursor& at, int64_t n) {
          Best part;
          part.clear(n);
          search(part, reader, at, n, chunk * kChunk, std::min((chunk + 1) * kChunk, along_.numel));
          std::memcpy(best.value + static_cast<size_t>(at.linear()) * size_, part.value,
                      static_cast<size_t>(n) * size_);
          std::copy(part.index, part.index + n, best.index + at.linear());
        });
      }
    });
    Best& best = found[0];
    for (size_t chunk = 1; chunk < found.size(); chunk++) {
      kernel_.merge(best.value, best.index, found[chunk].value, found[chunk].index, outputs);
    }
    Writer writer(kept_, 1, DType::int64, Compute::i64);
    forEachOutputs(0, outputs, [&](const Cursor& at, int64_t n) {
      void* target = writer.target(at, n);
      std::memcpy(target, best.index + at.linear(), static_cast<size_t>(n) * sizeof(int64_t));
      writer.commit(at, n, target);
    });
  }

  template <class F>
  void forEachOutputs(int64_t begin, int64_t end, F body) {
    Cursor at(kept_, begin);
    while (at.linear() < end) {
      const int64_t n = std::min({at.leftInRow(), kBlock, end - at.linear()});
      body(at, n);
      at.advance(n);
    }
  }

  Reader makeReader() const {
    return byColumns_ ? Reader(kept_, 0, xType_, compute_) : Reader(along_, 0, xType_, compute_);
  }

  // Elements [begin, end) of the axis for n outputs from `at`.
  void search(Best& best, Reader& reader, const Cursor& at, int64_t n, int64_t begin,
              int64_t end) const {
    if (byColumns_) {
      for (int64_t row = begin; row < end; row++) {
        reader.moveTo(row * along_.stride[0][0]);
        kernel_.columns(best.value, best.index, reader.read(at, n), row, n);
      }
      return;
    }
    Cursor output = at;
    for (int64_t j = 0; j < n; j++) {
      reader.moveTo(output.offset(kept_.stride[0]));
      forEachBlock(along_, begin, end, reader.isDirect(), [&](const Cursor& place, int64_t m) {
        kernel_.row(best.value + static_cast<size_t>(j) * size_, best.index + j,
                    reader.read(place, m), place.linear(), m);
      });
      output.advance(1);
    }
  }

  static void commit(Writer& writer, const Cursor& at, int64_t n, const Best& best) {
    void* target = writer.target(at, n);
    std::memcpy(target, best.index, static_cast<size_t>(n) * sizeof(int64_t));
    writer.commit(at, n, target);
  }

  Compute compute_;
  size_t size_;
  const ArgKernel& kernel_;
  DType xType_;
  Plan<2> kept_;   // 0: x, 1: y
  Plan<1> along_;  // the axis
  bool byColumns_;
};

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void argReduce(ArgOp op, const View& y, const View& x, int axis) {
  const char* name = op == ArgOp::argmax ? "argmax" : "argmin";
  if (y.dtype != DType::int64) {
    fail(ErrorKind::dtype, "%s: expected an int64 output, got %s", name, dtypeName(y.dtype));
  }
  if (y.numel() == 0) return;
  if (x.ndim == 0) return fill(y, Scalar::of(int64_t{0}));
  if (x.numel() == 0) fail(ErrorKind::shape, "%s: expected an axis that is not empty", name);
  ArgReduction(op, y, x, axis).run();
}

}  // namespace adjoint::backend
