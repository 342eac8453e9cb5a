#include "recording.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "call.h"

namespace adjoint {

namespace {
constexpr size_t kAlignment = 64;

size_t aligned(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}
}  // namespace

// ---------------------------------------------------------------- recorder

Recorder::~Recorder() {
  for (size_t i = 0; i < storages_.recorded.size(); i++) {
    Storage* s = storages_.recorded[i];
    if (!s) continue;
    s->record = -1;
    if (met_[i].isForeign) release(s);
  }
  storages_.recorded.clear();
}

void Recorder::beginCall(const char* op) {
  callChanges_ = false;
  if (!refuses_) return;
  fail(ErrorKind::capture,
       "%s: expected work on the device whose step is being captured, got a call on %s", op,
       deviceName(device_).c_str());
}

int Recorder::number(Storage* storage, bool isForeign) {
  if (storage->record >= 0) return storage->record;
  int call = static_cast<int>(rows_.size());
  Met met;
  met.isForeign = isForeign;
  met.bytes = storage->bytes;
  met.first = met.last = call;
  met_.push_back(met);
  storages_.recorded.push_back(storage);
  storage->record = static_cast<int32_t>(met_.size()) - 1;
  // What was there before may be freed by its owner, but its memory stays that of the recording.
  if (isForeign) retain(storage);
  return storage->record;
}

void Recorder::addView(const View& view, Storage* storage, bool isWritten) {
  int i = number(storage, true);
  met_[i].last = static_cast<int>(rows_.size());
  if (isWritten) met_[i].writes++;
  views_.push_back(view);
  places_.push_back({i, static_cast<char*>(view.data) - static_cast<char*>(storage->data)});
}

void Recorder::add(const Kernel& kernel, Call& call) {
  Row row{};
  row.run = kernel.run;
  row.name = kernel.name;
  row.words = words_.size();
  row.length = call.length();
  row.views = views_.size();
  words_.insert(words_.end(), call.words(), call.words() + call.length());
  call.forEachView([this](const View& view, Storage* storage, bool isWritten) {
    addView(view, storage, isWritten);
  });
  row.viewCount = views_.size() - row.views;
  row.changes = callChanges_;
  rows_.push_back(row);
}

void Recorder::addHostCopy(Storage* storage, const void* source, size_t bytes) {
  Row row{};
  row.name = "tensor";
  row.views = views_.size();
  row.viewCount = 1;
  row.hostBytes = hostBytes_.size();
  row.hostLength = bytes;
  View view;
  view.data = storage->data;
  addView(view, storage, true);
  hostBytes_.emplace_back(new char[std::max<size_t>(bytes, 1)]);
  if (bytes) std::memcpy(hostBytes_.back().get(), source, bytes);
  rows_.push_back(row);
}

// Offsets for the storages that are dead: the largest first, each at the lowest offset where it
// meets no other whose calls overlap with its own.
size_t Recorder::planArena() {
  std::vector<int> order;
  for (size_t i = 0; i < met_.size(); i++) {
    if (!storages_.recorded[i]) order.push_back(static_cast<int>(i));
  }
  std::stable_sort(order.begin(), order.end(),
                   [this](int a, int b) { return met_[a].bytes > met_[b].bytes; });
  std::vector<int> placed;  // by offset
  size_t total = 0;
  for (int i : order) {
    Met& m = met_[i];
    size_t offset = 0;
    for (int j : placed) {
      const Met& other = met_[j];
      if (other.last < m.first || m.last < other.first) continue;
      if (offset + aligned(m.bytes) <= other.offset) break;
      offset = std::max(offset, other.offset + aligned(other.bytes));
    }
    m.offset = offset;
    auto above = [this](size_t o, int j) { return o < met_[j].offset; };
    placed.insert(std::upper_bound(placed.begin(), placed.end(), offset, above), i);
    total = std::max(total, offset + aligned(m.bytes));
  }
  return total;
}

std::unique_ptr<Recording> Recorder::finish(Environment& environment) {
  auto recording = std::make_unique<Recording>();
  Recording& r = *recording;
  for (size_t i = 0; i < met_.size(); i++) {
    Storage* s = storages_.recorded[i];
    if (!s) continue;
    s->pins++;
    retain(s);
    r.pins_.push_back({s, met_[i].writes, met_[i].isForeign});
  }
  // Allocating may collect, but nothing that is alive here can die any more.
  size_t arenaBytes = planArena();
  char* arena = nullptr;
  if (arenaBytes > 0) {
    backend::trimCache();  // the blocks whose place the arena takes
    Storage* storage = environment.allocate(arenaBytes);
    r.arena_ = StorageRef(storage);
    release(storage);
    arena = static_cast<char*>(storage->data);
  }
  r.words_ = std::move(words_);
  r.views_ = std::move(views_);
  r.hostBytes_ = std::move(hostBytes_);
  for (size_t i = 0; i < r.views_.size(); i++) {
    const Place& place = places_[i];
    if (storages_.recorded[place.storage]) continue;
    r.views_[i].data = arena + met_[place.storage].offset + place.offset;
  }
  for (const Row& row : rows_) {
    RecordedCall call;
    call.run = row.run;
    call.name = row.name;
    call.words = r.words_.data() + row.words;
    call.length = row.length;
    call.views = r.views_.data() + row.views;
    call.hostBytes = row.run ? nullptr : r.hostBytes_[row.hostBytes].get();
    call.hostLength = row.hostLength;
    call.changes = row.changes;
    r.calls_.push_back(call);
  }
  return recording;
}

// ---------------------------------------------------------------- recording

Recording::~Recording() {
  if (graph_) backend::releaseGraph(graph_);
  for (const Pin& pin : pins_) {
    pin.storage->pins--;
    release(pin.storage);
  }
}

void Recording::checkLive() const {
  for (const Pin& pin : pins_) {
    if (pin.isForeign && pin.storage->isAbandoned) {
      fail(ErrorKind::disposed,
           "capture: expected the tensors that the step was recorded with, got one that has been "
           "disposed since");
    }
  }
}

void Recording::replay(Environment& environment) {
  for (const Pin& pin : pins_) pin.storage->version += pin.writes;
  if (graph_) {
    renewGraph(environment);
  } else if (!wasReplayed_) {
    wasReplayed_ = true;
    makeGraph(environment);
  }
  if (graph_) return backend::launchGraph(graph_);
  for (const RecordedCall& recorded : calls_) run(environment, recorded);
}

void Recording::run(Environment& environment, const RecordedCall& recorded) {
  if (recorded.run) {
    Call call(environment, recorded);
    recorded.run(call);
  } else if (recorded.hostLength) {
    backend::copyFromHost(recorded.views[0].data, recorded.hostBytes, recorded.hostLength);
  }
}

// The calls go to a graph, with the values of this replay. Where that fails, calls are run again
// one by one, now and from now on.
void Recording::makeGraph(Environment& environment) {
  const auto generators = environment.generators;
  backend::Graph* graph = nullptr;
  try {
    graph = backend::beginGraph();
    if (!graph) return;
    for (const RecordedCall& recorded : calls_) {
      const size_t values = backend::changingValues(graph);
      run(environment, recorded);
      if (recorded.changes && backend::changingValues(graph) == values) {
        fail(ErrorKind::capture, "%s: expected a kernel that reads what changes from memory",
             recorded.name);
      }
    }
    backend::endGraph(graph);
    graph_ = graph;
    way_ = "graph";
  } catch (const std::exception& e) {
    if (graph) backend::releaseGraph(graph);
    environment.generators = generators;
    way_ = e.what();
  }
}

void Recording::renewGraph(Environment& environment) {
  backend::renewGraph(graph_);
  try {
    for (const RecordedCall& recorded : calls_) {
      if (recorded.changes) run(environment, recorded);
    }
  } catch (...) {
    backend::endGraph(graph_);
    throw;
  }
  backend::endGraph(graph_);
}

}  // namespace adjoint
