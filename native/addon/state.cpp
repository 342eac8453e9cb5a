// Settings of an environment, its generators and slots, what it holds, and the device.
#include <utility>

#include "exports.h"

namespace adjoint {
namespace {

Napi::Value setWords(Environment& e, const Napi::CallbackInfo& info) {
  e.setWords(info[0]);
  return info.Env().Undefined();
}

// setErrors({argument: ArgumentError, …})
Napi::Value setErrors(Environment& e, const Napi::CallbackInfo& info) {
  constexpr const char* names[] = {"argument",    "dtype",  "shape",   "index",   "disposed",
                                   "outOfMemory", "device", "capture", "internal"};
  auto classes = info[0].As<Napi::Object>();
  for (int i = 0; i <= static_cast<int>(ErrorKind::internal); i++) {
    e.setErrorClass(static_cast<ErrorKind>(i), classes.Get(names[i]));
  }
  return info.Env().Undefined();
}

Napi::Value setCollector(Environment& e, const Napi::CallbackInfo& info) {
  if (info[0].IsFunction()) e.reclaimer.setCollector(info[0]);
  return info.Env().Undefined();
}

Napi::Value setWatcher(Environment& e, const Napi::CallbackInfo& info) {
  if (!info[0].IsFunction()) fail(ErrorKind::internal, "setWatcher: expected a function");
  e.reclaimer.setWatcher(info[0]);
  return info.Env().Undefined();
}

Napi::Value createSlot(Environment& e, const Napi::CallbackInfo& info) {
  e.slots.push_back(numberAt(info, 0));
  return Napi::Number::New(info.Env(), static_cast<double>(e.slots.size() - 1));
}

Napi::Value setSlot(Environment& e, const Napi::CallbackInfo& info) {
  double i = numberAt(info, 0);
  if (!(i >= 0 && i < static_cast<double>(e.slots.size()))) {
    fail(ErrorKind::internal, "setSlot: expected a slot");
  }
  e.slots[static_cast<size_t>(i)] = numberAt(info, 1);
  return info.Env().Undefined();
}

backend::RandomState& generatorAt(Environment& e, const Napi::CallbackInfo& info) {
  double i = numberAt(info, 0);
  if (!(i >= 0 && i < static_cast<double>(e.generators.size()))) {
    fail(ErrorKind::internal, "generator: expected a generator");
  }
  return e.generators[static_cast<size_t>(i)];
}

uint64_t bigintAt(const Napi::CallbackInfo& info, size_t i) {
  bool lossless = false;
  if (!info[i].IsBigInt()) fail(ErrorKind::argument, "generator: expected a bigint");
  return info[i].As<Napi::BigInt>().Uint64Value(&lossless);
}

constexpr const char* kRandomState = "a random state that is read or set";

Napi::Value createGenerator(Environment& e, const Napi::CallbackInfo& info) {
  e.refuseWhileCapturing("Generator", "a new stream of random numbers");
  e.generators.push_back({bigintAt(info, 0), 0});
  return Napi::Number::New(info.Env(), static_cast<double>(e.generators.size() - 1));
}

Napi::Value setGenerator(Environment& e, const Napi::CallbackInfo& info) {
  e.refuseWhileCapturing("manualSeed", kRandomState);
  generatorAt(e, info) = {bigintAt(info, 1), bigintAt(info, 2)};
  return info.Env().Undefined();
}

Napi::Value getGenerator(Environment& e, const Napi::CallbackInfo& info) {
  e.refuseWhileCapturing("getState", kRandomState);
  backend::RandomState s = generatorAt(e, info);
  auto array = Napi::Array::New(info.Env(), 2);
  array.Set(0u, Napi::BigInt::New(info.Env(), s.seed));
  array.Set(1u, Napi::BigInt::New(info.Env(), s.offset));
  return array;
}

Napi::Value stepEnd(Environment& e, const Napi::CallbackInfo& info) {
  e.reclaimer.stepEnd();
  return info.Env().Undefined();
}

Napi::Value collect(Environment& e, const Napi::CallbackInfo& info) {
  e.reclaimer.collectAll();
  return info.Env().Undefined();
}

Napi::Value memoryStats(Environment& e, const Napi::CallbackInfo& info) {
  auto a = backend::allocatorStats();
  const ReclaimStats& r = e.reclaimer.stats();
  auto object = Napi::Object::New(info.Env());
  const std::pair<const char*, double> fields[] = {
      {"liveTensors", static_cast<double>(e.table.liveTensors())},
      {"liveNodes", static_cast<double>(e.table.liveNodes())},
      {"liveBytes", static_cast<double>(e.storages.liveBytes())},
      {"processLiveBytes", static_cast<double>(a.liveBytes)},
      {"reservedBytes", static_cast<double>(a.reservedBytes)},
      {"cachedBytes", static_cast<double>(a.cachedBytes)},
      {"peakLiveBytes", static_cast<double>(a.peakLiveBytes)},
      {"allocations", static_cast<double>(a.allocations)},
      {"systemAllocations", static_cast<double>(a.systemAllocations)},
      {"sweeps", static_cast<double>(r.sweeps)},
      {"minorCollections", static_cast<double>(r.minors)},
      {"majorCollections", static_cast<double>(r.majors)},
      {"sweepMs", r.sweepMs},
      {"minorMs", r.minorMs},
      {"majorMs", r.majorMs},
  };
  for (const auto& [name, value] : fields) object.Set(name, value);
  return object;
}

Napi::Value liveHandles(Environment& e, const Napi::CallbackInfo& info) {
  std::vector<Handle> handles = e.table.tensorHandles();
  auto array = Napi::Int32Array::New(info.Env(), handles.size());
  for (size_t i = 0; i < handles.size(); i++) array[i] = handles[i];
  return array;
}

Napi::Value synchronize(Environment&, const Napi::CallbackInfo& info) {
  backend::synchronize();
  return info.Env().Undefined();
}

Napi::Value trimCache(Environment&, const Napi::CallbackInfo& info) {
  backend::trimCache();
  return info.Env().Undefined();
}

Napi::Value resetPeakMemory(Environment&, const Napi::CallbackInfo& info) {
  backend::resetPeakMemory();
  return info.Env().Undefined();
}

Napi::Value setMemoryCap(Environment&, const Napi::CallbackInfo& info) {
  double bytes = numberAt(info, 0);
  if (!(bytes >= 0 && bytes <= 9007199254740992.0)) {
    fail(ErrorKind::argument, "setMemoryCap: expected bytes of 0 or more, got %g", bytes);
  }
  backend::setMemoryCap(static_cast<size_t>(bytes));
  return info.Env().Undefined();
}

Napi::Value setFloat32Products(Environment& e, const Napi::CallbackInfo& info) {
  e.refuseWhileCapturing("setFloat32MatmulPrecision", "a setting of the process");
  const double n = numberAt(info, 0);
  if (!(n == 0 || n == 1 || n == 2)) {
    fail(ErrorKind::argument, "setFloat32Products: expected 0, 1 or 2, got %g", n);
  }
  backend::setFloat32Products(static_cast<backend::Float32Products>(static_cast<int>(n)));
  return info.Env().Undefined();
}

Napi::Value setDeterministicAlgorithms(Environment& e, const Napi::CallbackInfo& info) {
  e.refuseWhileCapturing("useDeterministicAlgorithms", "a setting of the process");
  if (!info[0].IsBoolean()) {
    fail(ErrorKind::argument, "setDeterministicAlgorithms: expected a boolean");
  }
  backend::setDeterministicAlgorithms(info[0].As<Napi::Boolean>());
  return info.Env().Undefined();
}

Napi::Value convolvesChannelsLast(Environment&, const Napi::CallbackInfo& info) {
  const double dtype = numberAt(info, 0);
  if (!(dtype >= 0 && dtype < kDTypeCount)) {
    fail(ErrorKind::argument, "convolvesChannelsLast: expected a dtype, got %g", dtype);
  }
  return Napi::Boolean::New(
      info.Env(), backend::convolvesChannelsLast(static_cast<DType>(static_cast<int>(dtype))));
}

Napi::Value threadCount(Environment&, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), backend::threadCount());
}

Napi::Value setThreadCount(Environment&, const Napi::CallbackInfo& info) {
  double n = numberAt(info, 0);
  if (!(n >= 1 && n <= 4096)) {
    fail(ErrorKind::argument, "setNumThreads: expected 1 to 4096, got %g", n);
  }
  backend::setThreadCount(static_cast<int>(n));
  return info.Env().Undefined();
}

Napi::Value deviceInfo(Environment&, const Napi::CallbackInfo& info) {
  auto object = Napi::Object::New(info.Env());
  for (const auto& [key, value] : backend::deviceInfo()) object.Set(key, value);
  return object;
}

}  // namespace

void exportState(Exports& exports) {
  exports.add<setWords>("setWords");
  exports.add<setErrors>("setErrors");
  exports.add<setCollector>("setCollector");
  exports.add<setWatcher>("setWatcher");
  exports.add<createSlot>("createSlot");
  exports.add<setSlot>("setSlot");
  exports.add<createGenerator>("createGenerator");
  exports.add<setGenerator>("setGenerator");
  exports.add<getGenerator>("getGenerator");
  exports.add<stepEnd>("stepEnd");
  exports.add<collect>("collect");
  exports.add<memoryStats>("memoryStats");
  exports.add<liveHandles>("liveHandles");
  exports.add<synchronize>("synchronize");
  exports.add<trimCache>("trimCache");
  exports.add<resetPeakMemory>("resetPeakMemory");
  exports.add<setMemoryCap>("setMemoryCap");
  exports.add<setFloat32Products>("setFloat32Products");
  exports.add<setDeterministicAlgorithms>("setDeterministicAlgorithms");
  exports.add<convolvesChannelsLast>("convolvesChannelsLast");
  exports.add<threadCount>("threadCount");
  exports.add<setThreadCount>("setThreadCount");
  exports.add<deviceInfo>("deviceInfo");
}

}  // namespace adjoint
