#include "table.h"

#include <algorithm>

#include "../shared/error.h"
#include "recording.h"

namespace adjoint {

namespace {
constexpr int32_t kMaxEntries = 1 << 22;
constexpr int kAgeOfOld = 2;  // V8 promotes an object at its second minor collection
}  // namespace

int32_t Table::take(napi_value owner) {
  int32_t index = freeHead_;
  if (index >= 0) {
    freeHead_ = entries_[index].next;
  } else {
    if (entries_.size() >= kMaxEntries) {
      fail(ErrorKind::outOfMemory, "tensor: expected at most %d live tensors and tape nodes",
           kMaxEntries);
    }
    index = static_cast<int32_t>(entries_.size());
    entries_.emplace_back();
  }
  if (owner && !setOwner(index, owner)) {
    entries_[index].next = freeHead_;
    freeHead_ = index;
    fail(ErrorKind::internal, "tensor: expected an object as owner");
  }
  entries_[index].isTaken = true;
  return index;
}

bool Table::setOwner(int32_t index, napi_value owner) {
  Entry& e = entries_[index];
  if (napi_create_reference(env_, owner, 0, &e.owner) != napi_ok) {
    e.owner = nullptr;
    return false;
  }
  e.collections = 0;
  young_.push_back(makeHandle(index, e.generation));
  return true;
}

void Table::watch(Handle handle, napi_value owner) {
  const Entry* e = find(handle);
  if (!e || e->owner) return;
  if (!setOwner(indexOf(handle), owner)) {
    fail(ErrorKind::internal, "watch: expected an object as owner");
  }
}

Handle Table::addTensor(napi_value owner, Storage* storage, DType dtype) {
  int32_t index = take(owner);
  Entry& e = entries_[index];
  e.storage = storage;
  e.dtype = dtype;
  liveTensors_++;
  return makeHandle(index, e.generation);
}

Handle Table::addNode(napi_value owner, const Saved* saved, int count) {
  int32_t index = take(owner);
  Entry& e = entries_[index];
  if (count <= kFewSaved && !spare_.empty()) {
    e.saved = std::move(spare_.back());
    spare_.pop_back();
  } else {
    e.saved.reset(new Saved[std::max(count, kFewSaved)]);
  }
  e.savedCount = static_cast<uint16_t>(count);
  std::copy(saved, saved + count, e.saved.get());
  liveNodes_++;
  return makeHandle(index, e.generation);
}

Handle Table::addRecording(napi_value owner, std::unique_ptr<Recording> recording) {
  int32_t index = take(owner);
  Entry& e = entries_[index];
  e.recording = recording.release();
  return makeHandle(index, e.generation);
}

void Table::failDisposed() {
  fail(ErrorKind::disposed, "tensor: expected a live tensor, got a disposed one");
}

Recording& Table::recording(Handle handle) const {
  const Entry* e = find(handle);
  if (!e || !e->recording) {
    fail(ErrorKind::disposed, "capture: expected a live captured step, got a disposed one");
  }
  return *e->recording;
}

SavedValues Table::saved(Handle node) const {
  const Entry* e = find(node);
  if (!e || !e->saved) {
    fail(ErrorKind::disposed,
         "backward: expected saved values, got a graph whose values have been freed; keep them "
         "with retainGraph");
  }
  return {e->saved.get(), e->savedCount};
}

void Table::free(int32_t index) {
  Entry& e = entries_[index];
  if (e.owner) napi_delete_reference(env_, e.owner);
  e.owner = nullptr;
  e.isTaken = false;
  if (e.storage) {
    liveTensors_--;
    release(e.storage);
    e.storage = nullptr;
  } else if (e.recording) {
    delete e.recording;
    e.recording = nullptr;
  } else {
    liveNodes_--;
    for (int i = 0; i < e.savedCount; i++) release(e.saved[i].storage);
    if (e.savedCount <= kFewSaved && spare_.size() < kMostSpare) {
      spare_.push_back(std::move(e.saved));
    }
    e.saved.reset();
    e.savedCount = 0;
  }
  e.generation = e.generation == kGenerationMask ? 1 : e.generation + 1;
  e.next = freeHead_;
  freeHead_ = index;
}

void Table::dispose(Handle handle) {
  if (!find(handle)) return;
  Storage* s = entries_[indexOf(handle)].storage;
  if (s && s->pins > 0 && s->references == s->pins + 1) s->isAbandoned = true;
  free(indexOf(handle));
}

// Compacts the list to the entries that are still alive.
void Table::sweepList(std::vector<Handle>& list) {
  constexpr size_t kPerScope = 1024;  // each live owner read takes a slot of the handle scope
  // References and storages were last touched a whole budget of tensor data ago: each is a miss.
  constexpr size_t kAhead = 8;
  size_t kept = 0;
  for (size_t begin = 0; begin < list.size(); begin += kPerScope) {
    napi_handle_scope scope;
    if (napi_open_handle_scope(env_, &scope) != napi_ok) return;
    size_t end = std::min(list.size(), begin + kPerScope);
    for (size_t i = begin; i < end; i++) {
      if (i + kAhead < list.size()) {
        const Entry& later = entries_[indexOf(list[i + kAhead])];
        __builtin_prefetch(later.owner);
        __builtin_prefetch(later.storage);
      }
      const Entry* e = find(list[i]);
      if (!e) continue;  // disposed meanwhile
      napi_value owner = nullptr;
      napi_get_reference_value(env_, e->owner, &owner);
      if (owner) {
        list[kept++] = list[i];
      } else {
        free(indexOf(list[i]));
      }
    }
    napi_close_handle_scope(env_, scope);
  }
  list.resize(kept);
}

void Table::sweep(bool all) {
  sweepList(young_);
  if (all) sweepList(old_);
}

void Table::age() {
  size_t kept = 0;
  for (Handle h : young_) {
    Entry& e = entries_[indexOf(h)];
    if (++e.collections >= kAgeOfOld) {
      old_.push_back(h);
    } else {
      young_[kept++] = h;
    }
  }
  young_.resize(kept);
}

void Table::clear() {
  for (size_t i = 0; i < entries_.size(); i++) {
    if (entries_[i].isTaken) free(static_cast<int32_t>(i));
  }
  young_.clear();
  old_.clear();
}

std::vector<Handle> Table::tensorHandles() const {
  std::vector<Handle> handles;
  for (size_t i = 0; i < entries_.size(); i++) {
    const Entry& e = entries_[i];
    if (e.isTaken && e.storage)
      handles.push_back(makeHandle(static_cast<int32_t>(i), e.generation));
  }
  return handles;
}

}  // namespace adjoint
