// Scratch memory for the length of a call; small ones lie on the stack.
#pragma once
#include "contract.h"

namespace adjoint::cpu {

class Workspace {
 public:
  explicit Workspace(size_t bytes) : bytes_(bytes) {
    if (bytes <= sizeof small_) {
      block_ = small_;
      return;
    }
    block_ = backend::allocate(bytes);
    if (!block_) fail(ErrorKind::outOfMemory, "workspace: expected %zu bytes of memory", bytes);
  }
  ~Workspace() {
    if (block_ != small_) backend::release(block_, bytes_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  template <class T>
  T* as() {
    return static_cast<T*>(block_);
  }

 private:
  alignas(64) unsigned char small_[8192];
  void* block_;
  size_t bytes_;
};

}  // namespace adjoint::cpu
