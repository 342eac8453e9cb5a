// The state of one device in one JavaScript environment (the main thread or a worker): handles,
// generators of random numbers, slots, and the array through which calls are encoded.
#pragma once
#include <node_api.h>

#include <memory>
#include <string>
#include <vector>

#include "reclaim.h"
#include "recording.h"
#include "table.h"

namespace adjoint {

class Environment;
// Those of one JavaScript environment, by the device's number; nullptr for one that is not in use.
using Environments = std::vector<std::unique_ptr<Environment>>;

class Environment {
 public:
  Environment(napi_env env, int device, const Environments& all)
      : env(env),
        device(device),
        all(all),
        table(env),
        reclaimer(env, table, storages.liveBytes(), device) {
    generators.push_back({0, 0});
  }
  ~Environment();

  // A fresh storage with one reference; collects garbage under pressure. What the caller still
  // needs must be pinned.
  Storage* allocate(size_t bytes);
  // The same in memory that another addon lends.
  Storage* allocatePinned(size_t bytes, const PinnedMemory& memory);

  // The generator's state for `n` elements; advances it.
  backend::RandomState drawRandom(int generator, int64_t n);

  // Throws while a step is recorded: `what` cannot be repeated by a replay.
  void refuseWhileCapturing(const char* op, const char* what);

  void setWords(napi_value float64Array);
  void setErrorClass(ErrorKind kind, napi_value constructor);
  // A JavaScript error of the class of `kind`; nullptr where none can be made any more.
  napi_value makeError(ErrorKind kind, const char* message);
  // Throws it, unless another one is on its way.
  void throwError(ErrorKind kind, const char* message);

  napi_env env;
  const int device;
  const Environments& all;
  StoragePool storages;
  Table table;
  Reclaimer reclaimer;
  std::vector<backend::RandomState> generators;  // 0 is the default one
  std::vector<double> slots;                     // values that change between steps
  std::vector<backend::Moment> moments;          // of the profile under way
  std::unique_ptr<Recorder> recorder;            // while a step is recorded
  double* words = nullptr;
  size_t wordCapacity = 0;

 private:
  napi_ref wordsRef_ = nullptr;
  napi_ref errorClasses_[static_cast<int>(ErrorKind::internal) + 1] = {};
};

// "cpu", "cuda:1"
std::string deviceName(int device);

// Runs `body` on the environment's device, and turns what it throws into a JavaScript exception;
// nothing crosses the C boundary.
template <class F>
napi_value guarded(Environment& environment, F&& body) {
  try {
    backend::useDevice(environment.device);
    return body();
  } catch (const Error& e) {
    environment.throwError(e.kind, e.what());
  } catch (const std::bad_alloc&) {
    environment.throwError(ErrorKind::outOfMemory, "native: out of memory");
  } catch (const std::exception& e) {
    environment.throwError(ErrorKind::internal, e.what());
  }
  return nullptr;
}

}  // namespace adjoint
