// The handle table of one environment: what each JavaScript owner (a tensor or a tape node) holds.
#pragma once
#include <node_api.h>

#include <memory>
#include <vector>

#include "storage.h"

namespace adjoint {

// 22 bits of index, 9 of generation: positive in an int32, so a V8 small integer. 0 is no handle.
using Handle = int32_t;

// A value that backward needs: the storage as it was at `version`.
struct Saved {
  Storage* storage;
  DType dtype;
  uint32_t version;
};

// Those of a tape node, for as long as it lives.
struct SavedValues {
  const Saved* values;
  int count;
};

class Recording;

class Table {
 public:
  explicit Table(napi_env env) : env_(env) { spare_.reserve(kMostSpare); }
  ~Table() { clear(); }
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  struct Tensor {
    Storage* storage;
    DType dtype;
  };

  // Takes over one reference of `storage`. `owner` is watched by a weak reference; with nullptr
  // nobody is, until watch() or dispose().
  Handle addTensor(napi_value owner, Storage* storage, DType dtype);
  // A tape node with what it saved; takes over the references.
  Handle addNode(napi_value owner, const Saved* saved, int count);

  // A captured step; the table deletes it.
  Handle addRecording(napi_value owner, std::unique_ptr<Recording> recording);

  // Throw a disposed error for a handle that is stale or of another kind.
  Tensor tensor(Handle handle) const {
    const Entry* e = find(handle);
    if (!e || !e->storage) failDisposed();
    return {e->storage, e->dtype};
  }
  Recording& recording(Handle handle) const;
  SavedValues saved(Handle node) const;

  void dispose(Handle handle);  // harmless on a stale handle
  // From now on the entry is freed when `owner` is dead. Harmless on a stale handle.
  void watch(Handle handle, napi_value owner);

  // Frees entries whose owners are dead. `all` looks at old entries too, those that have survived
  // two minor collections and can only die in a major one.
  void sweep(bool all);
  // Survivors of a minor collection age; called after each.
  void age();
  void clear();

  size_t liveTensors() const { return liveTensors_; }
  size_t liveNodes() const { return liveNodes_; }
  std::vector<Handle> tensorHandles() const;

 private:
  static constexpr int kGenerationBits = 9;
  static constexpr int32_t kGenerationMask = (1 << kGenerationBits) - 1;
  static constexpr int kFewSaved = 4;
  static constexpr size_t kMostSpare = 1024;

  static int32_t indexOf(Handle handle) { return handle >> kGenerationBits; }
  static Handle makeHandle(int32_t index, uint16_t generation) {
    return static_cast<Handle>((index << kGenerationBits) | generation);
  }

  struct Entry {
    Storage* storage = nullptr;      // tensors
    std::unique_ptr<Saved[]> saved;  // nodes
    Recording* recording = nullptr;  // captured steps
    napi_ref owner = nullptr;        // null: free, or not watched
    int32_t next = -1;               // free list
    uint16_t generation = 1;
    uint16_t savedCount = 0;
    DType dtype = DType::float32;
    uint8_t collections = 0;  // minor ones survived
    bool isTaken = false;
  };

  int32_t take(napi_value owner);
  bool setOwner(int32_t index, napi_value owner);
  void free(int32_t index);
  const Entry* find(Handle handle) const {
    const int32_t index = indexOf(handle);
    if (handle <= 0 || index >= static_cast<int32_t>(entries_.size())) return nullptr;
    const Entry& e = entries_[index];
    return e.isTaken && e.generation == (handle & kGenerationMask) ? &e : nullptr;
  }
  [[noreturn]] static void failDisposed();
  void sweepList(std::vector<Handle>& list);

  napi_env env_;
  std::vector<Entry> entries_;
  int32_t freeHead_ = -1;
  std::vector<Handle> young_, old_;
  size_t liveTensors_ = 0, liveNodes_ = 0;
  std::vector<std::unique_ptr<Saved[]>> spare_;  // of nodes that were freed, each for kFewSaved
};

}  // namespace adjoint
