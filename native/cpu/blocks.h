// Walking a plan in blocks of contiguous values of the type of computation. A Reader converts and
// gathers what an operand stores, a Writer the reverse; memory that is contiguous and of the right
// type already is used in place. Compiled for the base processor: the work is in the tables.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cpu/kernels/convert.h"
#include "cpu/pool.h"
#include "shared/iterate.h"

namespace adjoint::cpu {

constexpr int64_t kBlock = 512;  // elements
// Elements of work that a thread takes at once: cheap operations, and expensive ones.
constexpr int64_t kGrain = 32768, kGrainExpensive = 8192;

inline int log2Size(DType dtype) {
  const size_t size = itemSize(dtype);
  return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}

// The dtype that values of a type of computation are stored as unconverted.
constexpr DType storedAs(Compute compute) {
  return compute == Compute::f32   ? DType::float32
         : compute == Compute::f64 ? DType::float64
                                   : DType::int64;
}

// A place in a plan: the number of an element and its coordinates.
class Cursor {
 public:
  template <int N>
  Cursor(const Plan<N>& plan, int64_t linear)
      : ndim_(plan.ndim), size_(plan.size), linear_(linear) {
    for (int i = ndim_ - 1; i >= 0; i--) {
      index_[i] = linear == 0 ? 0 : linear % size_[i];  // sizes may be 0 in an empty plan
      if (linear != 0) linear /= size_[i];
    }
  }
  int64_t linear() const { return linear_; }
  int64_t inner() const { return ndim_ ? index_[ndim_ - 1] : 0; }
  int64_t leftInRow() const { return ndim_ ? size_[ndim_ - 1] - index_[ndim_ - 1] : 1; }
  int64_t offset(const int64_t* stride) const {
    int64_t sum = 0;
    for (int i = 0; i < ndim_; i++) sum += index_[i] * stride[i];
    return sum;
  }
  // How many elements the next block may have: within a row where rows are long, else whole rows.
  int64_t blockLength() const {
    const int64_t left = leftInRow();
    if (left >= kBlock || inner() != 0) return std::min(left, kBlock);
    return kBlock / left * left;
  }
  void advance(int64_t n) {
    linear_ += n;
    for (int i = ndim_ - 1; i >= 0; i--) {
      const int64_t next = index_[i] + n;
      if (next < size_[i]) {
        index_[i] = next;
        return;
      }
      index_[i] = next % size_[i];
      n = next / size_[i];
    }
  }

 private:
  int ndim_;
  const int64_t* size_;
  int64_t linear_;
  int64_t index_[kMaxDims];
};

// Calls f(offset in elements, done, run) for each run of a row within n elements from `at`.
template <class F>
inline void forEachRun(Cursor at, const int64_t* stride, int64_t n, F f) {
  for (int64_t done = 0; done < n;) {
    const int64_t run = std::min(at.leftInRow(), n - done);
    f(at.offset(stride), done, run);
    at.advance(run);
    done += run;
  }
}

class Reader {
 public:
  // `to` is what the values are wanted as; `dtype` what they are stored as.
  template <int N>
  Reader(const Plan<N>& plan, int operand, DType dtype, Compute to) : Reader(plan, operand, dtype) {
    if (dtype != storedAs(to)) {
      convert_ = table_.load[static_cast<int>(dtype)][static_cast<int>(to)];
    }
  }
  // The stored elements themselves.
  template <int N>
  Reader(const Plan<N>& plan, int operand, DType dtype)
      : table_(convertTable()),
        origin_(static_cast<const char*>(plan.data[operand])),
        data_(origin_),
        stride_(plan.stride[operand]),
        innerStride_(plan.innerStride(operand)),
        shift_(log2Size(dtype)),
        dense_(plan.isDense(operand)) {
    for (int i = 0; i < plan.ndim - 1; i++) repeats_ = repeats_ && stride_[i] == 0;
  }

  // Whether blocks may be as long as a row: nothing passes through a buffer.
  bool isDirect() const { return convert_ == nullptr && (dense_ || innerStride_ == 1); }
  // Element 0 of the plan lies `elements` after the operand's own.
  void moveTo(int64_t elements) {
    data_ = origin_ + (elements << shift_);
    cached_ = 0;
  }

  // n values from `at`; valid until the next call.
  const void* read(const Cursor& at, int64_t n) {
    if (dense_) return converted(data_ + (at.linear() << shift_), n);
    if (repeats_ && n <= cached_ && (at.inner() == cachedInner_ || innerStride_ == 0)) {
      return buffer_;
    }
    if (n <= at.leftInRow() && innerStride_ == 1) {
      return converted(data_ + (at.offset(stride_) << shift_), n);
    }
    char* raw = convert_ ? raw_ : buffer_;
    const int64_t row = at.leftInRow();
    if (repeats_ && at.inner() == 0 && row < n) {
      gather(at, row, raw);  // one row, repeated by doubling
      for (int64_t filled = row; filled < n; filled *= 2) {
        const int64_t more = std::min(filled, n - filled);
        std::memcpy(raw + (filled << shift_), raw, static_cast<size_t>(more << shift_));
      }
    } else {
      gather(at, n, raw);
    }
    if (convert_) convert_(buffer_, raw_, n);
    cached_ = n;
    cachedInner_ = at.inner();
    return buffer_;
  }

  // The stored elements, without conversion.
  void gather(const Cursor& at, int64_t n, void* out) const {
    const auto move = table_.gather[shift_];
    if (dense_) return move(out, data_ + (at.linear() << shift_), 1, n);
    forEachRun(at, stride_, n, [&](int64_t offset, int64_t done, int64_t run) {
      move(static_cast<char*>(out) + (done << shift_), data_ + (offset << shift_), innerStride_,
           run);
    });
  }

 private:
  const void* converted(const void* p, int64_t n) {
    if (!convert_) return p;
    convert_(buffer_, p, n);
    cached_ = 0;
    return buffer_;
  }

  const ConvertTable& table_;
  const char* origin_;
  const char* data_;
  const int64_t* stride_;
  int64_t innerStride_;
  int shift_;
  bool dense_;
  // The operand is the same in every row, so a buffer filled from the start of one serves others.
  bool repeats_ = true;
  int64_t cached_ = 0, cachedInner_ = 0;
  ConvertTable::Convert convert_ = nullptr;
  alignas(64) char buffer_[kBlock * 8];
  alignas(64) char raw_[kBlock * 8];
};

class Writer {
 public:
  template <int N>
  Writer(const Plan<N>& plan, int operand, DType dtype, Compute from)
      : Writer(plan, operand, dtype) {
    if (dtype != storedAs(from)) {
      convert_ = table_.store[static_cast<int>(from)][static_cast<int>(dtype)];
    }
  }
  template <int N>
  Writer(const Plan<N>& plan, int operand, DType dtype)
      : table_(convertTable()),
        origin_(static_cast<char*>(plan.data[operand])),
        data_(origin_),
        stride_(plan.stride[operand]),
        innerStride_(plan.innerStride(operand)),
        shift_(log2Size(dtype)),
        dense_(plan.isDense(operand)) {}

  bool isDirect() const { return convert_ == nullptr && (dense_ || innerStride_ == 1); }

  void moveTo(int64_t elements) { data_ = origin_ + (elements << shift_); }

  // Where n values from `at` are to be computed; commit() brings them to the tensor.
  void* target(const Cursor& at, int64_t n) {
    return convert_ == nullptr && isContiguous(at, n) ? address(at) : buffer_;
  }
  void commit(const Cursor& at, int64_t n, const void* values) {
    if (isContiguous(at, n)) {
      if (convert_) convert_(address(at), values, n);
      return;
    }
    if (convert_) convert_(raw_, values, n);
    const char* raw = convert_ ? raw_ : static_cast<const char*>(values);
    const auto move = table_.scatter[shift_];
    forEachRun(at, stride_, n, [&](int64_t offset, int64_t done, int64_t run) {
      move(data_ + (offset << shift_), raw + (done << shift_), innerStride_, run);
    });
  }

 private:
  bool isContiguous(const Cursor& at, int64_t n) const {
    return dense_ || (innerStride_ == 1 && n <= at.leftInRow());
  }
  void* address(const Cursor& at) const {
    return data_ + ((dense_ ? at.linear() : at.offset(stride_)) << shift_);
  }

  const ConvertTable& table_;
  char* origin_;
  char* data_;
  const int64_t* stride_;
  int64_t innerStride_;
  int shift_;
  bool dense_;
  ConvertTable::Convert convert_ = nullptr;
  alignas(64) char buffer_[kBlock * 8];
  alignas(64) char raw_[kBlock * 8];
};

// Calls body(at, n) for the blocks of elements [begin, end). Where no operand needs a buffer
// (direct) a block is a whole row, unless rows are so short that gathering them pays.
template <int N, class F>
inline void forEachBlock(const Plan<N>& plan, int64_t begin, int64_t end, bool direct, F body) {
  constexpr int64_t kShortRow = 64;
  const bool byRows = direct && (plan.ndim <= 1 || plan.innerSize() >= kShortRow);
  Cursor at(plan, begin);
  while (at.linear() < end) {
    const int64_t n = std::min(byRows ? at.leftInRow() : at.blockLength(), end - at.linear());
    body(at, n);
    at.advance(n);
  }
}

}  // namespace adjoint::cpu
