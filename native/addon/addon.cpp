// The module: what TypeScript sees of one backend (src/bindings/native.ts has the types).
#include <napi.h>

#include <atomic>
#include <cstring>
#include <mutex>

#include "call.h"

namespace adjoint {
namespace {

std::mutex environmentsMutex;
int environments = 0;

Environment& environmentOf(const Napi::CallbackInfo& info) {
  return *static_cast<Environment*>(info.Data());
}

Handle handleAt(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsNumber()) fail(ErrorKind::argument, "native: expected a handle");
  return info[i].As<Napi::Number>().Int32Value();
}

double numberAt(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsNumber()) fail(ErrorKind::argument, "native: expected a number");
  return info[i].As<Napi::Number>().DoubleValue();
}

// run(length, ...owners): decodes and runs the row in the word array. The hot path: raw Node-API.
napi_value run(napi_env env, napi_callback_info info) {
  napi_value arguments[9];
  size_t count = 9;
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, arguments, nullptr, &data);
  Environment& environment = *static_cast<Environment*>(data);
  return guarded(environment, [&]() -> napi_value {
    int32_t length = 0;
    if (count < 1 || napi_get_value_int32(env, arguments[0], &length) != napi_ok || length < 1 ||
        static_cast<size_t>(length) > environment.wordCapacity) {
      fail(ErrorKind::internal, "run: expected a length within the word array");
    }
    double number = environment.words[0];
    if (!(number >= 0 && number < static_cast<double>(kernels().size()))) {
      fail(ErrorKind::internal, "run: expected a kernel's number, got %g", number);
    }
    const Kernel& kernel = kernels()[static_cast<size_t>(number)];
    size_t owners = std::min<size_t>(count, 9) - 1;
    Call call(environment, static_cast<size_t>(length), arguments + 1, owners);
    call.setName(kernel.name);
    kernel.run(call);
    call.finish();
    return nullptr;
  });
}

// Arguments of the functions that are called for nearly every op: raw Node-API.
struct Arguments {
  Environment& environment;
  napi_env env;
  napi_value values[3];

  int32_t integer(size_t i) const {
    int32_t value = 0;
    if (napi_get_value_int32(env, values[i], &value) != napi_ok) {
      fail(ErrorKind::internal, "native: expected a number as argument %zu", i);
    }
    return value;
  }
};

// Wraps a function of handles that returns a handle and may throw adjoint::Error.
using HandleBody = int32_t (*)(const Arguments&);
template <HandleBody body>
napi_value handles(napi_env env, napi_callback_info info) {
  napi_value values[3];
  size_t count = 3;
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  Environment& environment = *static_cast<Environment*>(data);
  return guarded(environment, [&]() -> napi_value {
    napi_value result;
    int32_t handle = body({environment, env, {values[0], values[1], values[2]}});
    napi_create_int32(env, handle, &result);
    return result;
  });
}

// hold(count, owner): a tape node that holds the storages of the tensors whose handles stand in
// the word array. Returns the node's handle.
Handle hold(const Arguments& a) {
  constexpr int kMaxSaved = 1024;
  int count = a.integer(0);
  if (count < 0 || count > kMaxSaved) {
    fail(ErrorKind::internal, "hold: expected at most %d values", kMaxSaved);
  }
  Saved saved[kMaxSaved];
  for (int i = 0; i < count; i++) {
    Table::Tensor t = a.environment.table.tensor(static_cast<Handle>(a.environment.words[i]));
    saved[i] = {t.storage, t.dtype, t.storage->version};
  }
  for (int i = 0; i < count; i++) retain(saved[i].storage);
  return a.environment.table.addNode(a.values[1], saved, count);
}

// unpack(node, index, owner): a handle for a saved value, or 0 if it was overwritten since.
Handle unpack(const Arguments& a) {
  const Saved saved = a.environment.table.saved(a.integer(0), a.integer(1));
  if (saved.storage->version != saved.version) return 0;
  retain(saved.storage);
  return a.environment.table.addTensor(a.values[2], saved.storage, saved.dtype);
}

// alias(handle, owner): another handle to the same storage.
Handle alias(const Arguments& a) {
  Table::Tensor t = a.environment.table.tensor(a.integer(0));
  retain(t.storage);
  return a.environment.table.addTensor(a.values[1], t.storage, t.dtype);
}

// dispose(handle): harmless on a stale one.
Handle dispose(const Arguments& a) {
  a.environment.table.dispose(a.integer(0));
  return 0;
}

// Wraps a function of (environment, info) that may throw adjoint::Error.
using Body = Napi::Value (*)(Environment&, const Napi::CallbackInfo&);
template <Body body>
Napi::Value checked(const Napi::CallbackInfo& info) {
  Environment& environment = environmentOf(info);
  napi_value result = guarded(environment, [&]() -> napi_value { return body(environment, info); });
  return Napi::Value(info.Env(), result);
}

struct HostArray {
  void* data = nullptr;
  size_t bytes = 0;
};

HostArray hostArrayAt(const Napi::CallbackInfo& info, size_t i, const char* op) {
  HostArray a;
  if (!info[i].IsTypedArray()) fail(ErrorKind::argument, "%s: expected a typed array", op);
  napi_typedarray_type type;
  size_t length = 0;
  napi_get_typedarray_info(info.Env(), info[i], &type, &length, &a.data, nullptr, nullptr);
  a.bytes = info[i].As<Napi::TypedArray>().ByteLength();
  return a;
}

// fromHost(array, dtype, owner): a new tensor with the array's bytes.
Napi::Value fromHost(Environment& e, const Napi::CallbackInfo& info) {
  double code = numberAt(info, 1);
  if (!(code >= 0 && code < kDTypeCount)) fail(ErrorKind::internal, "fromHost: expected a dtype");
  size_t bytes = hostArrayAt(info, 0, "tensor").bytes;
  Storage* storage = e.allocate(bytes);
  StorageRef pin(storage);
  release(storage);
  HostArray source = hostArrayAt(info, 0, "tensor");  // allocating may have run a collection
  if (source.bytes != bytes) fail(ErrorKind::argument, "tensor: expected an array that stays");
  if (bytes) backend::copyFromHost(storage->data, source.data, bytes);
  Handle handle = e.table.addTensor(info[2], storage, static_cast<DType>(static_cast<int>(code)));
  retain(storage);
  return Napi::Number::New(info.Env(), handle);
}

struct HostRange {
  Storage* storage;
  char* data;
};

HostRange rangeAt(Environment& e, const Napi::CallbackInfo& info, size_t handleArgument,
                  size_t bytes, const char* op) {
  Table::Tensor t = e.table.tensor(handleAt(info, handleArgument));
  double offset = numberAt(info, handleArgument + 1) * static_cast<double>(itemSize(t.dtype));
  if (!(offset >= 0 &&
        offset + static_cast<double>(bytes) <= static_cast<double>(t.storage->bytes))) {
    fail(ErrorKind::internal, "%s: expected a range inside the storage", op);
  }
  return {t.storage, static_cast<char*>(t.storage->data) + static_cast<size_t>(offset)};
}

// toHost(array, handle, offset): fills the array with the tensor's elements from `offset` on, which
// are dense. Waits for queued work.
Napi::Value toHost(Environment& e, const Napi::CallbackInfo& info) {
  HostArray target = hostArrayAt(info, 0, "data");
  HostRange range = rangeAt(e, info, 1, target.bytes, "data");
  if (target.bytes) backend::copyToHost(target.data, range.data, target.bytes);
  return info.Env().Undefined();
}

// overwrite(array, handle, offset): the reverse.
Napi::Value overwrite(Environment& e, const Napi::CallbackInfo& info) {
  HostArray source = hostArrayAt(info, 0, "overwrite");
  HostRange range = rangeAt(e, info, 1, source.bytes, "overwrite");
  range.storage->version++;
  if (source.bytes) backend::copyFromHost(range.data, source.data, source.bytes);
  return info.Env().Undefined();
}

// reserve(bytes, dtype, owner): a new tensor with undefined contents.
Napi::Value reserve(Environment& e, const Napi::CallbackInfo& info) {
  double bytes = numberAt(info, 0), code = numberAt(info, 1);
  if (!(bytes >= 0 && bytes <= 140737488355328.0) || !(code >= 0 && code < kDTypeCount)) {
    fail(ErrorKind::outOfMemory, "empty: expected a size that fits the address space");
  }
  Storage* storage = e.allocate(static_cast<size_t>(bytes));
  StorageRef pin(storage);
  release(storage);
  Handle handle = e.table.addTensor(info[2], storage, static_cast<DType>(static_cast<int>(code)));
  retain(storage);
  return Napi::Number::New(info.Env(), handle);
}

Napi::Value version(Environment& e, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), e.table.tensor(handleAt(info, 0)).storage->version);
}

// storageOf(handle): where the storage lies and its bytes; equal addresses mean shared memory.
// Another backend copies from and to it (host memory of the CPU addon) while the tensor is alive.
Napi::Value storageOf(Environment& e, const Napi::CallbackInfo& info) {
  Storage* s = e.table.tensor(handleAt(info, 0)).storage;
  auto object = Napi::Object::New(info.Env());
  object.Set("address", static_cast<double>(reinterpret_cast<uintptr_t>(s->data)));
  object.Set("bytes", static_cast<double>(s->bytes));
  return object;
}

Napi::Value setWords(Environment& e, const Napi::CallbackInfo& info) {
  e.setWords(info[0]);
  return info.Env().Undefined();
}

// setErrors({argument: ArgumentError, …})
Napi::Value setErrors(Environment& e, const Napi::CallbackInfo& info) {
  constexpr const char* names[] = {"argument", "dtype",       "shape",  "index",
                                   "disposed", "outOfMemory", "device", "internal"};
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

Napi::Value createGenerator(Environment& e, const Napi::CallbackInfo& info) {
  e.generators.push_back({bigintAt(info, 0), 0});
  return Napi::Number::New(info.Env(), static_cast<double>(e.generators.size() - 1));
}

Napi::Value setGenerator(Environment& e, const Napi::CallbackInfo& info) {
  generatorAt(e, info) = {bigintAt(info, 1), bigintAt(info, 2)};
  return info.Env().Undefined();
}

Napi::Value getGenerator(Environment& e, const Napi::CallbackInfo& info) {
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

Napi::Value setMemoryCap(Environment&, const Napi::CallbackInfo& info) {
  double bytes = numberAt(info, 0);
  if (!(bytes >= 0 && bytes <= 9007199254740992.0)) {
    fail(ErrorKind::argument, "setMemoryCap: expected bytes of 0 or more, got %g", bytes);
  }
  backend::setMemoryCap(static_cast<size_t>(bytes));
  return info.Env().Undefined();
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

template <class Count>
Napi::Object opcodeTable(Napi::Env env, std::initializer_list<const char*> names, Count) {
  auto object = Napi::Object::New(env);
  int code = 0;
  for (const char* name : names) object.Set(name, code++);
  return object;
}

Napi::Object constants(Napi::Env env) {
#define ADJOINT_NAME(name) #name,
  auto opcodes = Napi::Object::New(env);
  opcodes.Set("unary", opcodeTable(env, {ADJOINT_UNARY_OPS(ADJOINT_NAME)}, UnaryOp::count));
  opcodes.Set("binary", opcodeTable(env, {ADJOINT_BINARY_OPS(ADJOINT_NAME)}, BinaryOp::count));
  opcodes.Set("reduce", opcodeTable(env, {ADJOINT_REDUCE_OPS(ADJOINT_NAME)}, ReduceOp::count));
  opcodes.Set("arg", opcodeTable(env, {ADJOINT_ARG_OPS(ADJOINT_NAME)}, ArgOp::count));
  opcodes.Set("random", opcodeTable(env, {ADJOINT_RANDOM_OPS(ADJOINT_NAME)}, RandomOp::count));
#undef ADJOINT_NAME
  return opcodes;
}

void removeEnvironment(void* data) {
  delete static_cast<Environment*>(data);
  std::lock_guard<std::mutex> lock(environmentsMutex);
  if (--environments == 0) backend::shutdown();
}

napi_value initialize(napi_env env, napi_value exports) {
  auto* environment = new Environment(env);
  {
    std::lock_guard<std::mutex> lock(environmentsMutex);
    if (environments++ == 0) backend::startup();
  }
  napi_add_env_cleanup_hook(env, removeEnvironment, environment);

  Napi::Object module(env, exports);
  auto expose = [&](const char* name, napi_callback callback) {
    napi_value function;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, environment, &function);
    module.Set(name, function);
  };
  expose("run", run);
  expose("hold", handles<hold>);
  expose("unpack", handles<unpack>);
  expose("alias", handles<alias>);
  expose("dispose", handles<dispose>);
#define ADJOINT_EXPORT(name) \
  module.Set(#name, Napi::Function::New<checked<name>>(env, #name, environment));
  ADJOINT_EXPORT(fromHost)
  ADJOINT_EXPORT(toHost)
  ADJOINT_EXPORT(overwrite)
  ADJOINT_EXPORT(reserve)
  ADJOINT_EXPORT(version)
  ADJOINT_EXPORT(storageOf)
  ADJOINT_EXPORT(setWords)
  ADJOINT_EXPORT(setErrors)
  ADJOINT_EXPORT(setCollector)
  ADJOINT_EXPORT(createSlot)
  ADJOINT_EXPORT(setSlot)
  ADJOINT_EXPORT(createGenerator)
  ADJOINT_EXPORT(setGenerator)
  ADJOINT_EXPORT(getGenerator)
  ADJOINT_EXPORT(stepEnd)
  ADJOINT_EXPORT(collect)
  ADJOINT_EXPORT(memoryStats)
  ADJOINT_EXPORT(liveHandles)
  ADJOINT_EXPORT(synchronize)
  ADJOINT_EXPORT(trimCache)
  ADJOINT_EXPORT(setMemoryCap)
  ADJOINT_EXPORT(threadCount)
  ADJOINT_EXPORT(setThreadCount)
  ADJOINT_EXPORT(deviceInfo)
#undef ADJOINT_EXPORT
  module.Set("backend", backend::name());
  auto numbers = Napi::Object::New(env);
  for (size_t i = 0; i < kernels().size(); i++) {
    numbers.Set(kernels()[i].name, static_cast<double>(i));
  }
  module.Set("kernels", numbers);
  module.Set("opcodes", constants(env));
  auto dtypes = Napi::Object::New(env);
  for (int i = 0; i < kDTypeCount; i++) dtypes.Set(dtypeName(static_cast<DType>(i)), i);
  module.Set("dtypes", dtypes);
  return exports;
}

}  // namespace
}  // namespace adjoint

NAPI_MODULE_INIT() {
  return adjoint::initialize(env, exports);
}
