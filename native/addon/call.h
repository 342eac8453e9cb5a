// Decodes one native call: a row of numbers in the environment's word array. Inputs come first and
// are pinned as they are read, so that nothing which runs later can free them; then outputs, which
// may allocate and so collect garbage; then attributes.
//   input      handle, offset, ndim, sizes…, strides…
//   number     0, value            (operands only)
//   integer    -1, high, low       (operands only: an int64 as two 32-bit halves)
//   no input   0                   (optional inputs)
//   output     0, dtype, ndim, sizes…, then its owner is the next JavaScript argument; a call with
//              no owners makes tensors that are not watched. -1 instead of 0: of four axes, with
//              the second innermost in memory (images, channels last)
//   in place   as an input: its elements are overwritten
#pragma once
#include <cmath>

#include "environment.h"
#include "recording.h"
#include "stable_vector.h"

namespace adjoint {

class Call {
 public:
  Call(Environment& environment, size_t length, napi_value* owners, size_t ownerCount)
      : environment_(environment),
        words_(environment.words),
        length_(length),
        owners_(owners),
        ownerCount_(ownerCount) {}
  // A recorded call that runs again: its views were checked then, and their memory is pinned.
  Call(Environment& environment, const RecordedCall& recorded)
      : environment_(environment),
        words_(recorded.words),
        length_(recorded.length),
        owners_(nullptr),
        ownerCount_(0),
        name_(recorded.name),
        recorded_(recorded.views) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  Environment& environment() { return environment_; }
  void setName(const char* name) { name_ = name; }

  // The views stay where they are as long as the call.
  const View& input();
  // nullptr where the row says none.
  const View* optionalInput();
  Operand operand();

  // A new tensor or an existing one, as the row says.
  const View& output();
  // An existing tensor that is read and written.
  const View& inPlace();
  const View* optionalInPlace();
  // As inPlace, for the kernels that allow elements of the view to share memory.
  const View& overlapping();

  double number() { return word(); }
  int64_t integer() {
    double v = word();
    if (!(std::fabs(v) <= 9007199254740992.0)) badWord("an integer");
    return static_cast<int64_t>(v);
  }
  int axis(int ndim);
  bool flag() { return word() != 0; }
  DType dtype();
  // The current value of a native slot, whose number the row holds.
  double slot();
  template <class Op>
  Op opcode() {
    int64_t v = integer();
    if (v < 0 || v >= static_cast<int64_t>(Op::count)) badWord("an opcode");
    return static_cast<Op>(v);
  }

  // Writes the new handles to the front of the word array.
  void finish();

  const double* words() const { return words_; }
  size_t length() const { return length_; }
  // Calls f(view, storage, isWritten) for each, in the order of the row.
  template <class F>
  void forEachView(F&& f);

 private:
  static constexpr int kMaxOutputs = 8;

  double word() {
    if (position_ >= length_) badWord("another word");
    return words_[position_++];
  }
  [[noreturn]] void badWord(const char* expected);
  struct Pinned {
    StorageRef storage;
    View view;
    size_t position = 0;  // of its first word
    bool isWritten = false;
  };
  Pinned& readView();
  void checkWritable(const Pinned& target);
  void noteWrite(Pinned& pinned);
  const View& allocate();
  // The next view of a recorded call, which takes `words` and `perAxis` for each axis in the row.
  const View& again(int words, int perAxis) {
    const View& view = *recorded_++;
    position_ += words + perAxis * view.ndim;
    return view;
  }

  Environment& environment_;
  const double* words_;
  const size_t length_;
  napi_value* owners_;
  const size_t ownerCount_;
  const char* name_ = "call";
  size_t position_ = 1;             // word 0 is the kernel's number
  const View* recorded_ = nullptr;  // the next one, of a recorded call

  StableVector<Pinned, 6> pinned_;   // tensors that exist
  StableVector<Pinned, 2> outputs_;  // tensors that this call makes
};

template <class F>
void Call::forEachView(F&& f) {
  for (size_t i = 0, j = 0; i < pinned_.size() || j < outputs_.size();) {
    bool isInput =
        j == outputs_.size() || (i < pinned_.size() && pinned_[i].position < outputs_[j].position);
    const Pinned& p = isInput ? pinned_[i++] : outputs_[j++];
    f(p.view, p.storage.get(), p.isWritten);
  }
}

// One kernel of the native surface: decodes its row and calls the backend.
struct Kernel {
  const char* name;
  void (*run)(Call& call);
};

// All kernels linked into this addon, in an order that is fixed for the process.
std::vector<Kernel>& kernels();

// native/addon/families/<family>.cpp: `static const Family family({{"name", [](Call& c) {…}}, …});`
struct Family {
  Family(std::initializer_list<Kernel> list) {
    kernels().insert(kernels().end(), list.begin(), list.end());
  }
};

}  // namespace adjoint
