// When to collect garbage. Node-API runs no finalizer inside a synchronous loop, so native code
// sweeps weak references itself: after a natural collection if one has happened, else after a
// minor one that it asks for, and after a major one as a last resort. docs/memory.md has the why.
#pragma once
#include <node_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "table.h"

namespace adjoint {

struct ReclaimStats {
  uint64_t sweeps = 0, minors = 0, majors = 0;
  double sweepMs = 0, minorMs = 0, majorMs = 0;
};

class Reclaimer {
 public:
  // ADJOINT_GC_STRESS=1 collects before every allocation, so that tests find what is not pinned.
  Reclaimer(napi_env env, Table& table, const size_t& liveBytes, int device)
      : env_(env),
        table_(table),
        liveBytes_(liveBytes),
        device_(device),
        stress_(std::getenv("ADJOINT_GC_STRESS") != nullptr) {}
  ~Reclaimer();
  Reclaimer(const Reclaimer&) = delete;
  Reclaimer& operator=(const Reclaimer&) = delete;

  // V8's `gc` function, if it could be had.
  void setCollector(napi_value gc);
  // A function that has every owner of a handle watched (Table::watch) that is not yet.
  void setWatcher(napi_value watchAll);

  // Before an allocation of `bytes`. Everything the caller still needs must be pinned.
  void beforeAllocation(size_t bytes) {
    if (liveBytes_ + bytes > byteLimit_ || entries() >= entryLimit_ || stress_) reclaim();
  }
  // Before an entry without memory of its own, as a view. What it refers to must be pinned.
  void beforeEntry() {
    if (entries() >= entryLimit_) reclaim();
  }
  // After a training step: a cheap moment, since most values have just died. Blocks that are free
  // again soon are still in the caches, so this does not wait until the limit is near.
  void stepEnd() {
    if (liveBytes_ > betweenSteps_ + kMinByteBudget / 4) {
      reclaim();
      betweenSteps_ = liveBytes_;
    } else {
      betweenSteps_ = std::min(betweenSteps_, liveBytes_);
    }
  }
  // The backend has no memory left: everything that can be freed is.
  void collectAll();

  const ReclaimStats& stats() const { return stats_; }

 private:
  static constexpr size_t kEntryBudget = 8192;
  static constexpr size_t kMinByteBudget = size_t{20} << 20;
  static constexpr size_t kMinMajorBytes = size_t{192} << 20;
  static constexpr size_t kMinMajorEntries = 200000;

  size_t entries() const { return table_.liveTensors() + table_.liveNodes(); }
  void reclaim();
  void setLimits(size_t bytesBefore, bool hasJustCollected);
  void minor();
  void major();
  void sweep(bool all);
  bool collected();  // whether V8 has collected since the last call
  void call(napi_ref function, napi_value* arguments, size_t count);
  void watchAll();

  napi_env env_;
  Table& table_;
  const size_t& liveBytes_;
  const int device_;
  napi_ref gc_ = nullptr;
  napi_ref minorOptions_ = nullptr;
  napi_ref watcher_ = nullptr;
  napi_ref canary_ = nullptr;  // weak, to an object that nothing holds
  const bool stress_;
  bool collecting_ = false;
  // What was alive after the last reclamation; the limits stand up to a budget above it. What is
  // freed by hand or by backward() counts for nothing.
  size_t baseBytes_ = 0, baseEntries_ = 0;
  // What was needed of late: a forward pass holds more than what is alive between steps. It is
  // forgotten slowly.
  size_t neededBytes_ = 0;
  size_t betweenSteps_ = 0;  // alive after the last reclamation at the end of a step
  size_t byteLimit_ = kMinByteBudget, entryLimit_ = kEntryBudget;
  size_t majorBytes_ = kMinMajorBytes, majorEntries_ = kMinMajorEntries;
  double factor_ = 3;  // next major at factor × what the last one left alive
  double lastMajorEnd_ = 0, lastMajorMs_ = 0;
  ReclaimStats stats_;
};

}  // namespace adjoint
