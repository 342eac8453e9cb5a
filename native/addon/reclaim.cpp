#include "reclaim.h"

#include <algorithm>
#include <chrono>

namespace adjoint {

namespace {
double nowMs() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

// Collections may spend at most this part of the time, except at the hard cap.
constexpr double kMajorShare = 0.05;
constexpr double kMinFactor = 3, kMaxFactor = 6;
constexpr double kHardCapFactor = 8;
}  // namespace

Reclaimer::~Reclaimer() {
  for (napi_ref r : {gc_, minorOptions_, watcher_, canary_}) {
    if (r) napi_delete_reference(env_, r);
  }
}

void Reclaimer::setCollector(napi_value gc) {
  napi_value options, minor;
  napi_create_reference(env_, gc, 1, &gc_);
  napi_create_object(env_, &options);
  napi_create_string_utf8(env_, "minor", NAPI_AUTO_LENGTH, &minor);
  napi_set_named_property(env_, options, "type", minor);
  napi_create_reference(env_, options, 1, &minorOptions_);
}

void Reclaimer::setWatcher(napi_value watchAll) {
  if (watcher_) napi_delete_reference(env_, watcher_);
  watcher_ = nullptr;
  napi_create_reference(env_, watchAll, 1, &watcher_);
}

void Reclaimer::watchAll() {
  if (watcher_) call(watcher_, nullptr, 0);
}

bool Reclaimer::collected() {
  napi_handle_scope scope;
  napi_open_handle_scope(env_, &scope);
  napi_value object = nullptr;
  if (canary_) napi_get_reference_value(env_, canary_, &object);
  bool gone = object == nullptr;
  if (gone) {
    if (canary_) napi_delete_reference(env_, canary_);
    canary_ = nullptr;
    napi_create_object(env_, &object);
    napi_create_reference(env_, object, 0, &canary_);
  }
  napi_close_handle_scope(env_, scope);
  return gone;
}

void Reclaimer::call(napi_ref function, napi_value* arguments, size_t count) {
  napi_handle_scope scope;
  napi_open_handle_scope(env_, &scope);
  napi_value callee, receiver, result;
  napi_get_reference_value(env_, function, &callee);
  napi_get_undefined(env_, &receiver);
  if (count == 1) napi_get_reference_value(env_, minorOptions_, &arguments[0]);
  napi_call_function(env_, receiver, callee, count, arguments, &result);
  napi_close_handle_scope(env_, scope);
  // JavaScript may have used another one.
  backend::useDevice(device_);
}

void Reclaimer::sweep(bool all) {
  double start = nowMs();
  table_.sweep(all);
  stats_.sweeps++;
  stats_.sweepMs += nowMs() - start;
}

void Reclaimer::minor() {
  if (!gc_) return;
  double start = nowMs();
  napi_value arguments[1];
  call(gc_, arguments, 1);
  stats_.minors++;
  stats_.minorMs += nowMs() - start;
}

void Reclaimer::major() {
  double start = nowMs();
  if (gc_) {
    call(gc_, nullptr, 0);
  } else {  // V8 collects when an addon claims to hold this much
    int64_t total;
    napi_adjust_external_memory(env_, int64_t{1} << 40, &total);
    napi_adjust_external_memory(env_, -(int64_t{1} << 40), &total);
  }
  double end = nowMs();
  stats_.majors++;
  stats_.majorMs += end - start;
  // Majors that come too dear wait for more garbage next time.
  double elapsed = end - lastMajorEnd_;
  bool dear = lastMajorEnd_ > 0 && (end - start) > kMajorShare * elapsed;
  factor_ = std::clamp(dear ? factor_ * 1.5 : factor_ * 0.9, kMinFactor, kMaxFactor);
  lastMajorEnd_ = end;
  lastMajorMs_ = end - start;
}

// After a collection of our own all that is alive is needed, and a collection that freed the lesser
// part had better have come later. After one of V8's, some time ago, a part is garbage made since:
// taking it for needed would let the footprint creep up to twice the budget.
void Reclaimer::setLimits(size_t bytesBefore, bool hasJustCollected) {
  baseBytes_ = liveBytes_;
  baseEntries_ = entries();
  if (hasJustCollected) {
    const size_t seen = baseBytes_ > bytesBefore / 2 ? bytesBefore : baseBytes_;
    neededBytes_ = std::max(seen, neededBytes_ - neededBytes_ / 32);
  }
  const size_t needed = std::max(baseBytes_, neededBytes_);
  const size_t budget = std::max(kMinByteBudget, needed / 4);
  const size_t part = hasJustCollected ? 1 : 2;
  byteLimit_ = std::clamp(byteLimit_, needed + budget / part, needed + budget);
  entryLimit_ =
      std::clamp(entryLimit_, baseEntries_ + kEntryBudget / part, baseEntries_ + kEntryBudget);
}

void Reclaimer::reclaim() {
  if (collecting_) return;
  collecting_ = true;
  watchAll();
  // A natural collection is enough where it freed half of what came since the last time.
  const size_t bytesBefore = liveBytes_, entriesBefore = entries();
  bool enough = false;
  if (collected()) {
    sweep(false);
    enough =
        bytesBefore - liveBytes_ >= (bytesBefore - std::min(bytesBefore, baseBytes_)) / 2 &&
        entriesBefore - entries() >= (entriesBefore - std::min(entriesBefore, baseEntries_)) / 2;
  }
  if (!enough) {
    minor();
    sweep(false);
    collected();
  }
  table_.age();
  auto full = [this] { return liveBytes_ > majorBytes_ || entries() > majorEntries_; };
  if (full()) {
    sweep(true);  // V8 may have run a major collection by itself
    bool affordable = nowMs() - lastMajorEnd_ > lastMajorMs_ / kMajorShare;
    bool atCap = liveBytes_ > static_cast<size_t>(kHardCapFactor * majorBytes_ / factor_);
    if (full() && (affordable || atCap)) {
      major();
      sweep(true);
      collected();
      majorBytes_ = std::max(kMinMajorBytes, static_cast<size_t>(factor_ * liveBytes_));
      majorEntries_ = std::max(kMinMajorEntries, static_cast<size_t>(factor_ * entries()));
    }
  }
  setLimits(bytesBefore, !enough);
  collecting_ = false;
}

void Reclaimer::collectAll() {
  if (collecting_) return;
  collecting_ = true;
  const size_t bytesBefore = liveBytes_;
  watchAll();
  sweep(true);
  // The first may finish a marking that began earlier and keeps what has died since.
  for (int i = 0; i < 2; i++) major();
  sweep(true);
  setLimits(bytesBefore, true);
  collecting_ = false;
}

}  // namespace adjoint
