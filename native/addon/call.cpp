#include "call.h"

#include <algorithm>
#include <cstdlib>

#include "overlap.h"

namespace adjoint {

std::vector<Kernel>& kernels() {
  static std::vector<Kernel> all;
  return all;
}

void Call::badWord(const char* expected) {
  fail(ErrorKind::internal, "%s: expected %s at word %zu of %zu", name_, expected, position_,
       length_);
}

int Call::axis(int ndim) {
  int64_t v = integer();
  if (v < 0 || v >= ndim) badWord("an axis");
  return static_cast<int>(v);
}

DType Call::dtype() {
  int64_t v = integer();
  if (v < 0 || v >= kDTypeCount) badWord("a dtype");
  return static_cast<DType>(v);
}

double Call::slot() {
  int64_t v = integer();
  if (v < 0 || v >= static_cast<int64_t>(environment_.slots.size())) badWord("a slot");
  if (environment_.recorder) environment_.recorder->noteChange();
  return environment_.slots[v];
}

// Checks that every element that the view can reach lies inside its storage.
Call::Pinned& Call::readView() {
  const size_t start = position_;
  Table::Tensor tensor = environment_.table.tensor(static_cast<Handle>(integer()));
  Pinned& pinned = pinned_.push();
  pinned.storage = StorageRef(tensor.storage);
  pinned.position = start;
  View& v = pinned.view;
  v.dtype = tensor.dtype;
  int64_t offset = integer();
  int64_t ndim = integer();
  if (ndim < 0 || ndim > kMaxDims) badWord("at most 8 axes");
  v.ndim = static_cast<int>(ndim);
  bool empty = false;
  for (int i = 0; i < v.ndim; i++) {
    v.size[i] = integer();
    if (v.size[i] < 0) badWord("a size");
    empty = empty || v.size[i] == 0;
  }
  int64_t item = static_cast<int64_t>(itemSize(v.dtype));
  int64_t low = offset, high = offset;
  for (int i = 0; i < v.ndim; i++) {
    v.stride[i] = integer();
    if (v.size[i] <= 1) continue;
    int64_t reach;
    if (__builtin_mul_overflow(v.size[i] - 1, v.stride[i], &reach) ||
        __builtin_add_overflow(reach < 0 ? low : high, reach, reach < 0 ? &low : &high)) {
      badWord("a stride inside the storage");
    }
  }
  int64_t end;  // in bytes
  if (!empty && (low < 0 || __builtin_add_overflow(high, 1, &end) ||
                 __builtin_mul_overflow(end, item, &end) ||
                 end > static_cast<int64_t>(tensor.storage->bytes))) {
    fail(ErrorKind::internal,
         "%s: expected a view inside its storage of %lld elements, got [%lld, %lld]", name_,
         static_cast<long long>(tensor.storage->bytes) / item, static_cast<long long>(low),
         static_cast<long long>(high));
  }
  v.data = empty ? tensor.storage->data : static_cast<char*>(tensor.storage->data) + offset * item;
  return pinned;
}

const View& Call::input() {
  if (recorded_) return again(3, 2);
  if (outputs_.size() > 0) badWord("inputs before outputs");
  return readView().view;
}

const View* Call::optionalInput() {
  if (position_ < length_ && words_[position_] == 0) {
    position_++;
    return nullptr;
  }
  return &input();
}

Operand Call::operand() {
  Operand o;
  double first = position_ < length_ ? words_[position_] : 0;
  if (first > 0) {
    // By element: a copy in larger pieces would wait until the values just written are in the
    // cache.
    const View& x = input();
    o.view.data = x.data;
    o.view.dtype = x.dtype;
    o.view.ndim = x.ndim;
    for (int i = 0; i < x.ndim; i++) {
      o.view.size[i] = x.size[i];
      o.view.stride[i] = x.stride[i];
    }
    return o;
  }
  position_++;
  o.isScalar = true;
  if (first == 0) {
    o.scalar = Scalar::of(number());
  } else {
    uint64_t high = static_cast<uint32_t>(integer());
    uint64_t low = static_cast<uint32_t>(integer());
    o.scalar = Scalar::of(static_cast<int64_t>(high << 32 | low));
  }
  return o;
}

const View& Call::allocate() {
  if (recorded_) return again(3, 1);
  const size_t start = position_;
  const bool isChannelsLast = words_[position_++] < 0;
  if (outputs_.size() == kMaxOutputs || (ownerCount_ > 0 && outputs_.size() >= ownerCount_)) {
    badWord("as many owners as outputs");
  }
  Pinned& made = outputs_.push();
  made.position = start;
  made.isWritten = true;
  View& v = made.view;
  v.dtype = dtype();
  int64_t ndim = integer();
  if (ndim < 0 || ndim > kMaxDims) badWord("at most 8 axes");
  v.ndim = static_cast<int>(ndim);
  for (int i = 0; i < v.ndim; i++) {
    v.size[i] = integer();
    if (v.size[i] < 0) badWord("a size");
  }
  if (isChannelsLast && v.ndim != 4) badWord("four axes");
  static constexpr int kChannelsLast[] = {0, 2, 3, 1};
  int64_t count = 1;
  bool tooLarge = false;
  for (int i = v.ndim - 1; i >= 0; i--) {
    const int axis = isChannelsLast ? kChannelsLast[i] : i;
    v.stride[axis] = count;
    tooLarge =
        tooLarge || __builtin_mul_overflow(count, std::max<int64_t>(v.size[axis], 1), &count);
  }
  int64_t bytes = 0;
  tooLarge = tooLarge ||
             __builtin_mul_overflow(count, static_cast<int64_t>(itemSize(v.dtype)), &bytes) ||
             bytes > (int64_t{1} << 47);
  if (tooLarge) {
    fail(ErrorKind::outOfMemory,
         "%s: expected a tensor that fits the address space, got more than 2^47 bytes", name_);
  }
  if (v.numel() == 0) bytes = 0;
  Storage* storage = environment_.allocate(static_cast<size_t>(bytes));
  made.storage = StorageRef(storage);
  release(storage);  // the reference is now the call's
  v.data = storage->data;
  return v;
}

void Call::checkWritable(const Pinned& target) {
  if (selfOverlaps(target.view)) {
    fail(ErrorKind::argument,
         "%s: expected a tensor whose elements have memory of their own to write to, got an "
         "expanded one; clone it first",
         name_);
  }
  for (size_t i = 0; i < pinned_.size(); i++) {
    const Pinned& p = pinned_[i];
    if (p.storage.get() == target.storage.get() && overlapsPartly(p.view, target.view)) {
      fail(ErrorKind::argument,
           "%s: expected an input that does not overlap with the tensor written to, got views of "
           "one memory; clone one first",
           name_);
    }
  }
}

const View& Call::output() {
  if (position_ < length_ && words_[position_] <= 0) return allocate();
  return inPlace();
}

const View& Call::inPlace() {
  if (recorded_) return again(3, 2);
  Pinned& pinned = readView();
  checkWritable(pinned);
  noteWrite(pinned);
  return pinned.view;
}

const View& Call::overlapping() {
  if (recorded_) return again(3, 2);
  Pinned& pinned = readView();
  noteWrite(pinned);
  return pinned.view;
}

void Call::noteWrite(Pinned& pinned) {
  // A replay would not wait for copies of the memory.
  if (pinned.storage->pinned) environment_.refuseWhileCapturing(name_, "a write to pinned memory");
  pinned.isWritten = true;
  beforeWrite(pinned.storage.get());
}

const View* Call::optionalInPlace() {
  if (position_ < length_ && words_[position_] == 0) {
    position_++;
    return nullptr;
  }
  return &inPlace();
}

void Call::finish() {
  for (size_t i = 0; i < outputs_.size(); i++) {
    const Pinned& made = outputs_[i];
    napi_value owner = ownerCount_ > 0 ? owners_[i] : nullptr;
    Handle handle = environment_.table.addTensor(owner, made.storage.get(), made.view.dtype);
    retain(made.storage.get());
    environment_.words[i] = handle;
  }
}

}  // namespace adjoint
