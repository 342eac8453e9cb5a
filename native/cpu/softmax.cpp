// Softmax over any axis. Where the axis is contiguous the kernel runs along rows; elsewhere it runs
// down the columns of tiles that stay in the cache. Half types and odd strides pass through a
// scratch tile of the type of computation.
#include "cpu/kernels/softmax.h"

#include <memory>

#include "contract.h"
#include "cpu/blocks.h"
#include "shared/convert.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kTile = 65536;  // elements of a tile of columns

// One output and I inputs of the same shape, all walked along one axis.
template <int I>
class AxisWalk {
 public:
  AxisWalk(const SoftmaxKernel* kernels, const char* name, const View* const (&views)[I + 1],
           int axis)
      : compute_(computeType(views[0]->dtype)) {
    if (compute_ == Compute::i64) {
      fail(ErrorKind::dtype, "%s: expected a floating-point dtype, got %s", name,
           dtypeName(views[0]->dtype));
    }
    kernel_ = kernels[static_cast<int>(compute_)];
    View others[I + 1];
    const View* pointers[I + 1];
    const bool isScalar = views[0]->ndim == 0;
    length_ = isScalar ? 1 : views[0]->size[axis];
    for (int k = 0; k <= I; k++) {
      others[k] = *views[k];
      pointers[k] = &others[k];
      dtype_[k] = views[k]->dtype;
      stride_[k] = isScalar ? 1 : views[k]->stride[axis];
      if (!isScalar) others[k].size[axis] = 1;
    }
    plan_ = makeAxisPlan(pointers, std::make_integer_sequence<int, I + 1>());
  }

  void run() {
    if (length_ == 0 || plan_.numel == 0) return;
    bool sameType = true, rows = true, columns = plan_.innerSize() > 1;
    for (int k = 0; k <= I; k++) {
      sameType = sameType && dtype_[k] == storedAs(compute_);
      rows = rows && stride_[k] == 1;
      columns = columns && plan_.innerStride(k) == 1;
    }
    const int64_t width = std::clamp<int64_t>(kTile / length_, 16, kSoftmaxColumns);
    const int64_t grain = std::max<int64_t>(1, kGrainExpensive / length_);
    const int64_t columnGrain = std::max(grain, std::min(width, plan_.innerSize()));
    if (sameType && (rows || length_ == 1)) {
      parallelFor(plan_.numel, grain, [&](int64_t b, int64_t e) { inRows(b, e); });
    } else if (sameType && columns) {
      parallelFor(plan_.numel, columnGrain, [&](int64_t b, int64_t e) { inColumns(b, e, width); });
    } else if (rows) {
      parallelFor(plan_.numel, grain, [&](int64_t b, int64_t e) { rowsByScratch(b, e); });
    } else {
      parallelFor(plan_.numel, columnGrain,
                  [&](int64_t b, int64_t e) { columnsByScratch(b, e, width); });
    }
  }

 private:
  template <int... K>
  static Plan<I + 1> makeAxisPlan(const View* const* views, std::integer_sequence<int, K...>) {
    return makePlan<I + 1>({views[K]...});
  }

  void* address(int k, int64_t offset) const {
    return static_cast<char*>(plan_.data[k]) + (offset << log2Size(dtype_[k]));
  }

  void inRows(int64_t begin, int64_t end) const {
    Cursor at(plan_, begin);
    for (int64_t row = begin; row < end; row++) {
      const void* in[I];
      for (int k = 0; k < I; k++) in[k] = address(k + 1, at.offset(plan_.stride[k + 1]));
      kernel_.row(address(0, at.offset(plan_.stride[0])), in, length_);
      at.advance(1);
    }
  }

  // Calls body(at, n) for runs of at most `width` neighbouring columns.
  template <class F>
  void forEachTile(int64_t begin, int64_t end, int64_t width, F body) const {
    Cursor at(plan_, begin);
    while (at.linear() < end) {
      const int64_t n = std::min({width, at.leftInRow(), end - at.linear()});
      body(at, n);
      at.advance(n);
    }
  }

  void inColumns(int64_t begin, int64_t end, int64_t width) const {
    forEachTile(begin, end, width, [&](const Cursor& at, int64_t n) {
      const void* in[I];
      for (int k = 0; k < I; k++) in[k] = address(k + 1, at.offset(plan_.stride[k + 1]));
      kernel_.columns(address(0, at.offset(plan_.stride[0])), in, length_, stride_[0], stride_ + 1,
                      n);
    });
  }

  // A row is converted into scratch, computed there, and written back.
  void rowsByScratch(int64_t begin, int64_t end) const {
    const size_t size = itemSize(storedAs(compute_));
    const auto scratch = makeScratch(length_);
    Plan<I + 1> along;  // the axis alone
    along.ndim = 1;
    along.size[0] = along.numel = length_;
    for (int k = 0; k <= I; k++) {
      along.data[k] = plan_.data[k];
      along.stride[k][0] = stride_[k];
    }
    Cursor at(plan_, begin);
    for (int64_t row = begin; row < end; row++) {
      const void* in[I];
      for (int k = 0; k < I; k++) {
        char* values = scratch.get() + static_cast<size_t>(k * length_) * size;
        Reader reader(along, k + 1, dtype_[k + 1], compute_);
        reader.moveTo(at.offset(plan_.stride[k + 1]));
        forEachBlock(along, 0, length_, false, [&](const Cursor& place, int64_t n) {
          std::memcpy(values + static_cast<size_t>(place.linear()) * size, reader.read(place, n),
                      static_cast<size_t>(n) * size);
        });
        in[k] = values;
      }
      kernel_.row(scratch.get(), in, length_);
      Writer writer(along, 0, dtype_[0], compute_);
      writer.moveTo(at.offset(plan_.stride[0]));
      forEachBlock(along, 0, length_, false, [&](const Cursor& place, int64_t n) {
        write(writer, place, n, scratch.get() + static_cast<size_t>(place.linear()) * size);
      });
      at.advance(1);
    }
  }

  // A tile [length, n] is converted row by row into scratch, computed there, and written back.
  void columnsByScratch(int64_t begin, int64_t end, int64_t width) const {
    const size_t size = itemSize(storedAs(compute_));
    const auto scratch = makeScratch(length_ * width);
    forEachTile(begin, end, width, [&](const Cursor& at, int64_t n) {
      const void* in[I];
      int64_t strides[I];
      for (int k = 0; k < I; k++) {
        char* values = scratch.get() + static_cast<size_t>(k * length_ * width) * size;
        Reader reader(plan_, k + 1, dtype_[k + 1], compute_);
        for (int64_t r = 0; r < length_; r++) {
          reader.moveTo(r * stride_[k + 1]);
          std::memcpy(values + static_cast<size_t>(r * n) * size, reader.read(at, n),
                      static_cast<size_t>(n) * size);
        }
        in[k] = values;
        strides[k] = n;
      }
      kernel_.columns(scratch.get(), in, length_, n, strides, n);
      Writer writer(plan_, 0, dtype_[0], compute_);
      for (int64_t r = 0; r < length_; r++) {
        writer.moveTo(r * stride_[0]);
        write(writer, at, n, scratch.get() + static_cast<size_t>(r * n) * size);
      }
    });
  }

  std::unique_ptr<char[]> makeScratch(int64_t elements) const {
    return std::unique_ptr<char[]>(
        new char[static_cast<size_t>(I * elements) * itemSize(storedAs(compute_))]);
  }

  void write(Writer& writer, const Cursor& at, int64_t n, const char* values) const {
    void* target = writer.target(at, n);
    if (dtype_[0] == storedAs(compute_)) {
      std::memcpy(target, values, static_cast<size_t>(n) * itemSize(dtype_[0]));
      writer.commit(at, n, target);
    } else {
      writer.commit(at, n, values);
    }
  }

  Compute compute_;
  SoftmaxKernel kernel_;
  Plan<I + 1> plan_;  // the axes but one; 0: the output
  int64_t length_;
  int64_t stride_[I + 1];  // along the axis
  DType dtype_[I + 1];
};

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void softmax(const View& y, const View& x, int axis, bool logarithm) {
  const SoftmaxTable& table = softmaxTable();
  AxisWalk<1>(logarithm ? table.forwardLog : table.forward, logarithm ? "logSoftmax" : "softmax",
              {&y, &x}, axis)
      .run();
}

void softmaxBackward(const View& dx, const View& dy, const View& y, int axis, bool logarithm) {
  const SoftmaxTable& table = softmaxTable();
  AxisWalk<2>(logarithm ? table.backwardLog : table.backward,
              logarithm ? "logSoftmaxBackward" : "softmaxBackward", {&dx, &dy, &y}, axis)
      .run();
}

}  // namespace adjoint::backend
