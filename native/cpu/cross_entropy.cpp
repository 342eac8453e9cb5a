// Cross entropy, fused: a row of logits is read for its maximum and once more for the sum of its
// exponentials; no softmax is stored between the passes.
#include <initializer_list>
#include <memory>

#include "contract.h"
#include "cpu/blocks.h"
#include "cpu/kernels/softmax.h"
#include "cpu/workspace.h"
#include "shared/convert.h"
#include "shared/loss_checks.h"

namespace adjoint::cpu {
namespace {

// Element i of a one-dimensional view.
void* elementOf(const View& v, int64_t i) {
  return v.as<char>() + i * v.stride[0] * static_cast<int64_t>(itemSize(v.dtype));
}
double readNumber(const View& v, int64_t i) {
  double value = 0;
  visitDType(v.dtype, [&](auto tag) {
    value = convert<double>(*static_cast<const typename decltype(tag)::type*>(elementOf(v, i)));
  });
  return value;
}
void writeNumber(const View& v, int64_t i, double value) {
  storeScalar(elementOf(v, i), v.dtype, Scalar::of(value));
}
int64_t targetOf(const View& target, int64_t row) {
  return *static_cast<const int64_t*>(elementOf(target, row));
}

// perRow: tensors [N]
void checkArguments(const char* name, const View& logits, const View& target,
                    std::initializer_list<const View*> perRow, int64_t ignoreIndex) {
  checkLossArguments(name, logits, target, perRow);
  for (int64_t row = 0; row < target.size[0]; row++) {
    const int64_t t = targetOf(target, row);
    if (t != ignoreIndex && (t < 0 || t >= logits.size[1])) {
      fail(ErrorKind::index, "%s: expected targets in [0, %lld), got %lld at %lld", name,
           static_cast<long long>(logits.size[1]), static_cast<long long>(t),
           static_cast<long long>(row));
    }
  }
}

// Rows of a matrix as contiguous values of the type of computation: in place, or through scratch.
class Rows {
 public:
  explicit Rows(const View& matrix)
      : matrix_(matrix), columns_(matrix.size[1]), compute_(computeType(matrix.dtype)) {
    size_ = itemSize(storedAs(compute_));
    inPlace_ = matrix.dtype == storedAs(compute_) && (matrix.stride[1] == 1 || columns_ == 1);
    if (!inPlace_) scratch_.reset(new char[static_cast<size_t>(columns_) * size_]);
    along_.ndim = 1;
    along_.data[0] = matrix.data;
    along_.size[0] = along_.numel = columns_;
    along_.stride[0][0] = matrix.stride[1];
  }

  const void* read(int64_t row) {
    if (inPlace_) return address(row);
    Reader reader(along_, 0, matrix_.dtype, compute_);
    reader.moveTo(row * matrix_.stride[0]);
    forEachBlock(along_, 0, columns_, false, [&](const Cursor& at, int64_t n) {
      std::memcpy(scratch_.get() + static_cast<size_t>(at.linear()) * size_, reader.read(at, n),
                  static_cast<size_t>(n) * size_);
    });
    return scratch_.get();
  }
  // Where a row is to be computed, and how it gets from there to the matrix.
  void* target(int64_t row) { return inPlace_ ? address(row) : scratch_.get(); }
  void commit(int64_t row) {
    if (inPlace_) return;
    Writer writer(along_, 0, matrix_.dtype, compute_);
    writer.moveTo(row * matrix_.stride[0]);
    forEachBlock(along_, 0, columns_, false, [&](const Cursor& at, int64_t n) {
      const char* values = scratch_.get() + static_cast<size_t>(at.linear()) * size_;
      void* place = writer.target(at, n);
      const bool sameType = matrix_.dtype == storedAs(compute_);
      if (sameType) std::memcpy(place, values, static_cast<size_t>(n) * size_);
      writer.commit(at, n, sameType ? place : values);
    });
  }

 private:
  char* address(int64_t row) const {
    return matrix_.as<char>() + row * matrix_.stride[0] * static_cast<int64_t>(size_);
  }

  const View& matrix_;
  int64_t columns_;
  Compute compute_;
  size_t size_;
  bool inPlace_;
  std::unique_ptr<char[]> scratch_;
  Plan<1> along_;
};

double valueAt(const void* row, Compute compute, int64_t i) {
  return compute == Compute::f64 ? static_cast<const double*>(row)[i]
                                 : static_cast<double>(static_cast<const float*>(row)[i]);
}

// row[i] -= x
void subtractAt(void* row, Compute compute, int64_t i, double x) {
  if (compute == Compute::f64) {
    static_cast<double*>(row)[i] -= x;
  } else {
    static_cast<float*>(row)[i] -= static_cast<float>(x);
  }
}

int64_t rowGrain(int64_t columns) {
  return std::max<int64_t>(1, kGrainExpensive / std::max<int64_t>(1, columns));
}

// Writes lse and calls store(row, loss), in parallel.
template <class Store>
void forEachLoss(const View& lse, const View& logits, const View& target, int64_t ignoreIndex,
                 const Store& store) {
  const Compute compute = computeType(logits.dtype);
  const auto logSumExp = softmaxTable().logSumExp[static_cast<int>(compute)];
  const int64_t columns = logits.size[1];
  parallelFor(logits.size[0], rowGrain(columns), [&](int64_t begin, int64_t end) {
    Rows rows(logits);
    for (int64_t row = begin; row < end; row++) {
      const void* x = rows.read(row);
      double maximum, logSum;
      logSumExp(x, columns, &maximum, &logSum);
      writeNumber(lse, row, maximum + logSum);
      const int64_t t = targetOf(target, row);
      // (max - x[t]) + log sum: the small difference is not rounded against lse
      store(row, t == ignoreIndex ? 0 : (maximum - valueAt(x, compute, t)) + logSum);
    }
  });
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void crossEntropy(const View& loss, const View& lse, const View& logits, const View& target,
                  int64_t ignoreIndex) {
  checkArguments("crossEntropy", logits, target, {&loss, &lse}, ignoreIndex);
  forEachLoss(lse, logits, target, ignoreIndex,
              [&](int64_t row, double value) { writeNumber(loss, row, value); });
}

void crossEntropyMean(const View& loss, const View& rate, const View& lse, const View& logits,
                      const View& target, int64_t ignoreIndex) {
  checkArguments("crossEntropyMean", logits, target, {&lse}, ignoreIndex);
  if (loss.numel() != 1 || rate.numel() != 1) {
    fail(ErrorKind::shape, "crossEntropyMean: expected a loss and a rate of one element");
  }
  const int64_t rows = logits.size[0];
  Workspace space(static_cast<size_t>(rows) * sizeof(double));
  double* losses = space.as<double>();
  forEachLoss(lse, logits, target, ignoreIndex,
              [&](int64_t row, double value) { losses[row] = value; });
  double sum = 0;
  int64_t count = 0;
  for (int64_t row = 0; row < rows; row++) {
    sum += losses[row];
    count += targetOf(target, row) != ignoreIndex;
  }
  storeScalar(loss.data, loss.dtype, Scalar::of(sum / static_cast<double>(count)));
  storeScalar(rate.data, rate.dtype, Scalar::of(1 / static_cast<double>(count)));
}

void crossEntropyBackward(const View& dlogits, const View& dy, const View& logits, const View& lse,
                          const View& target, int64_t ignoreIndex) {
  checkArguments("crossEntropyBackward", logits, target, {&dy, &lse}, ignoreIndex);
  if (dlogits.dtype != logits.dtype) {
    fail(ErrorKind::dtype, "crossEntropyBackward: expected a gradient of %s, got %s",
         dtypeName(logits.dtype), dtypeName(dlogits.dtype));
  }
  const Compute compute = computeType(logits.dtype);
  const auto scaledExp = softmaxTable().scaledExp[static_cast<int>(compute)];
  const int64_t columns = logits.size[1];
  parallelFor(logits.size[0], rowGrain(columns), [&](int64_t begin, int64_t end) {
    Rows in(logits), out(dlogits);
    for (int64_t row = begin; row < end; row++) {
      const int64_t t = targetOf(target, row);
      void* dx = out.target(row);
      if (t == ignoreIndex) {
        std::memset(dx, 0, static_cast<size_t>(columns) * itemSize(storedAs(compute)));
      } else {
        const double g = readNumber(dy, row);
        scaledExp(dx, in.read(row), columns, readNumber(lse, row), g);
        subtractAt(dx, compute, t, g);
      }
      out.commit(row);
    }
  });
}

}  // namespace adjoint::backend
