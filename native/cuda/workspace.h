// Temporary device memory.
#pragma once
#include <cstddef>

#include "cuda/graph.h"

namespace adjoint::cuda {

// A block for work that is queued while this object lives. It may go before that work has run: only
// work that is queued later can get the block again.
class Workspace {
 public:
  explicit Workspace(size_t bytes) : bytes_(bytes), data_(takeTemporary(bytes)) {
    if (!data_) fail(ErrorKind::outOfMemory, "cuda: no memory for a workspace of %zu bytes", bytes);
  }
  ~Workspace() { giveBackTemporary(data_, bytes_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  void* data() const { return data_; }

 private:
  size_t bytes_;
  void* data_;
};

}  // namespace adjoint::cuda
