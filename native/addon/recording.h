// A captured step: the rows of its native calls, decoded once, with their views resolved to memory
// that stays. While a step is recorded it runs as always; `Recorder` notes each call and whose
// memory it touches. `Recording` runs the calls again.
//
// What becomes of a storage that a recorded call touches:
// - made before the recording, or still in use after it (results, gradients, state): it stays where
//   it is, pinned by the recording;
// - made by the recorded step and dead at its end: it becomes a range of one block, the arena,
// which
//   ranges share whose lifetimes, from the call that makes it to the last that touches it, do not
//   meet.
//
// A device with graphs takes the calls over at the first replay. Later ones decode only the calls
// that depend on a slot or a generator, to renew what these have given, and launch the graph.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "storage.h"

namespace adjoint {

class Call;
class Environment;
struct Kernel;

// One call as it is run again; points into its recording.
struct RecordedCall {
  void (*run)(Call& call);  // nullptr: `hostBytes` go to views[0]
  const char* name;
  const double* words;
  size_t length;
  const View* views;  // in the order in which the row names them
  const void* hostBytes;
  size_t hostLength;
  bool changes;  // from replay to replay, by a slot or a generator
};

class Recording {
 public:
  Recording() = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording();

  // Throws a disposed error if a tensor that the step needs was disposed.
  void checkLive() const;
  void replay(Environment& environment);
  // "graph" where replays launch one; "calls" where the device has none, or before the first
  // replay; else why there is none, though the device has graphs.
  const std::string& way() const { return way_; }

 private:
  void run(Environment& environment, const RecordedCall& recorded);
  void makeGraph(Environment& environment);
  void renewGraph(Environment& environment);

  friend class Recorder;
  struct Pin {
    Storage* storage;
    uint32_t writes;  // by one replay
    bool isForeign;   // made before the recording
  };

  std::vector<RecordedCall> calls_;
  std::vector<double> words_;
  std::vector<View> views_;
  std::vector<std::unique_ptr<char[]>> hostBytes_;
  std::vector<Pin> pins_;
  StorageRef arena_;
  backend::Graph* graph_ = nullptr;
  bool wasReplayed_ = false;
  std::string way_ = "calls";
};

class Recorder {
 public:
  // `refuses`: no work may be done here while a step is recorded on another device.
  Recorder(StoragePool& storages, bool refuses, int device)
      : storages_(storages), refuses_(refuses), device_(device) {}
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;
  ~Recorder();

  // Before each call.
  void beginCall(const char* op);
  // The call that runs has read a slot or a generator.
  void noteChange() { callChanges_ = true; }
  // A storage that the step has just made.
  void made(Storage* storage) { number(storage, false); }
  // After the call has run.
  void add(const Kernel& kernel, Call& call);
  void addHostCopy(Storage* storage, const void* source, size_t bytes);

  // Everything dead must have been swept. Allocates the arena; the recorder is no longer that of
  // the environment.
  std::unique_ptr<Recording> finish(Environment& environment);

 private:
  struct Met {
    bool isForeign;
    uint32_t writes = 0;
    size_t bytes;
    int first, last;    // calls
    size_t offset = 0;  // in the arena
  };
  struct Row {
    void (*run)(Call& call);
    const char* name;
    size_t words, length, views, viewCount;
    size_t hostBytes, hostLength;
    bool changes;
  };
  struct Place {
    int storage;
    ptrdiff_t offset;  // of the view, in bytes
  };

  int number(Storage* storage, bool isForeign);
  void addView(const View& view, Storage* storage, bool isWritten);
  size_t planArena();

  StoragePool& storages_;
  const bool refuses_;
  const int device_;
  bool callChanges_ = false;
  std::vector<Met> met_;  // by their number: StoragePool::recorded has the storages
  std::vector<Row> rows_;
  std::vector<double> words_;
  std::vector<View> views_;
  std::vector<Place> places_;  // of the views
  std::vector<std::unique_ptr<char[]>> hostBytes_;
};

}  // namespace adjoint
