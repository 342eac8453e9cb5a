// Reference-counted memory. A storage belongs to one environment (thread), so counts are plain.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../contract.h"

namespace adjoint {

class StoragePool;

struct Storage {
  void* data;
  size_t bytes;
  StoragePool* pool;
  uint32_t references;
  uint32_t version;  // bumped by every write to an existing tensor; saved values compare it
  int32_t record;    // its number in the recording under way, or -1
  uint32_t pins;     // how many of the references are recordings'
  bool isAbandoned;  // its last owner has disposed it, and only recordings are left
  const PinnedMemory* pinned;  // whose memory it is, or nullptr
};

// The storages of one environment: their bytes, each storage counted once, and descriptors for
// reuse.
class StoragePool {
 public:
  StoragePool() = default;
  StoragePool(const StoragePool&) = delete;
  StoragePool& operator=(const StoragePool&) = delete;
  ~StoragePool() {
    for (Storage* s : free_) delete s;
  }

  // Takes over a block, which `pinned` has lent if it is not the backend's; the result has one
  // reference.
  Storage* make(void* data, size_t bytes, const PinnedMemory* pinned = nullptr) {
    Storage* s;
    if (free_.empty()) {
      s = new Storage;
    } else {
      s = free_.back();
      free_.pop_back();
    }
    *s = {data, bytes, this, 1, 0, -1, 0, false, pinned};
    liveBytes_ += bytes;
    return s;
  }
  void free(Storage* s) {
    if (s->record >= 0) recorded[s->record] = nullptr;
    liveBytes_ -= s->bytes;
    if (s->pinned) {
      s->pinned->release(s->data);
    } else {
      backend::release(s->data, s->bytes);
    }
    free_.push_back(s);
  }
  const size_t& liveBytes() const { return liveBytes_; }

  // Those that the recording under way has met, by their number; null once freed.
  std::vector<Storage*> recorded;

 private:
  std::vector<Storage*> free_;
  size_t liveBytes_ = 0;
};

// To be called before its elements change.
inline void beforeWrite(Storage* s) {
  s->version++;
  if (s->pinned) s->pinned->wait(s->data);
}

inline void retain(Storage* s) {
  s->references++;
}

inline void release(Storage* s) {
  if (--s->references == 0) s->pool->free(s);
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
