// Reference-counted memory. A storage belongs to one environment (thread), so counts are plain.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../contract.h"

namespace adjoint {

struct Storage {
  void* data;
  size_t bytes;
  size_t* account;  // the environment's live bytes, each storage counted once
  uint32_t references;
  uint32_t version;  // bumped by every write to an existing tensor; saved values compare it
};

inline void retain(Storage* s) {
  s->references++;
}

inline void release(Storage* s) {
  if (--s->references > 0) return;
  *s->account -= s->bytes;
  backend::release(s->data, s->bytes);
  delete s;
}

// Holds one reference; what is pinned cannot be swept.
class StorageRef {
 public:
  StorageRef() = default;
  explicit StorageRef(Storage* s) : storage_(s) { retain(s); }
  StorageRef(StorageRef&& other) noexcept : storage_(other.storage_) { other.storage_ = nullptr; }
  StorageRef& operator=(StorageRef&& other) noexcept {
    Storage* old = storage_;
    storage_ = other.storage_;
    other.storage_ = old;
    return *this;
  }
  StorageRef(const StorageRef&) = delete;
  StorageRef& operator=(const StorageRef&) = delete;
  ~StorageRef() {
    if (storage_) release(storage_);
  }
  Storage* get() const { return storage_; }
  Storage* operator->() const { return storage_; }

 private:
  Storage* storage_ = nullptr;
};

}  // namespace adjoint
