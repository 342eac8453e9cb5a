#include "environment.h"

namespace adjoint {

std::string deviceName(int device) {
  const std::string name = backend::name();
  return name == "cpu" ? name : name + ":" + std::to_string(device);
}

Environment::~Environment() {
  try {
    backend::useDevice(device);
  } catch (const Error&) {
    // A device that has failed: its memory is lost anyway.
  }
  recorder.reset();
  table.clear();
  if (wordsRef_) napi_delete_reference(env, wordsRef_);
  for (napi_ref r : errorClasses_) {
    if (r) napi_delete_reference(env, r);
  }
}

Storage* Environment::allocate(size_t bytes) {
  reclaimer.beforeAllocation(bytes);
  size_t size = bytes ? bytes : 1;
  void* data = backend::allocate(size);
  if (!data) {
    reclaimer.collectAll();
    backend::trimCache();
    data = backend::allocate(size);
  }
  if (!data) {
    auto s = backend::allocatorStats();
    fail(ErrorKind::outOfMemory,
         "allocate: expected room for %zu bytes on %s, got none: %zu bytes live in %zu tensors and "
         "%zu tape nodes of this thread, %zu bytes reserved, %zu cached",
         bytes, deviceName(device).c_str(), s.liveBytes, table.liveTensors(), table.liveNodes(),
         s.reservedBytes, s.cachedBytes);
  }
  Storage* storage = storages.make(data, size);
  if (recorder) recorder->made(storage);
  return storage;
}

Storage* Environment::allocatePinned(size_t bytes, const PinnedMemory& memory) {
  refuseWhileCapturing("pinMemory", "memory that a GPU reads");
  reclaimer.beforeAllocation(bytes);
  const size_t size = bytes ? bytes : 1;
  void* data = memory.allocate(size);
  if (!data) {
    reclaimer.collectAll();
    data = memory.allocate(size);
  }
  if (!data) {
    fail(ErrorKind::outOfMemory, "pinMemory: expected room for %zu pinned bytes, got none", bytes);
  }
  return storages.make(data, size, &memory);
}

backend::RandomState Environment::drawRandom(int generator, int64_t n) {
  if (generator < 0 || generator >= static_cast<int>(generators.size())) {
    fail(ErrorKind::argument, "random: expected a generator, got number %d", generator);
  }
  if (recorder) recorder->noteChange();
  backend::RandomState state = generators[generator];
  generators[generator].offset += backend::randomAdvance(n);
  return state;
}

void Environment::refuseWhileCapturing(const char* op, const char* what) {
  if (!recorder) return;
  fail(ErrorKind::capture, "%s: expected work that a captured step can repeat, got %s", op, what);
}

void Environment::setWords(napi_value array) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, array, &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_float64_array) {
    fail(ErrorKind::internal, "setWords: expected a Float64Array");
  }
  if (wordsRef_) napi_delete_reference(env, wordsRef_);
  napi_create_reference(env, array, 1, &wordsRef_);
  words = static_cast<double*>(data);
  wordCapacity = length;
}

void Environment::setErrorClass(ErrorKind kind, napi_value constructor) {
  napi_create_reference(env, constructor, 1, &errorClasses_[static_cast<int>(kind)]);
}

napi_value Environment::makeError(ErrorKind kind, const char* message) {
  napi_value text, constructor = nullptr, error = nullptr;
  if (napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &text) != napi_ok) return nullptr;
  napi_ref ref = errorClasses_[static_cast<int>(kind)];
  if (ref) napi_get_reference_value(env, ref, &constructor);
  if (constructor && napi_new_instance(env, constructor, 1, &text, &error) == napi_ok) return error;
  return napi_create_error(env, nullptr, text, &error) == napi_ok ? error : nullptr;
}

void Environment::throwError(ErrorKind kind, const char* message) {
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (pending) return;
  napi_value error = makeError(kind, message);
  if (error) napi_throw(env, error);
}

}  // namespace adjoint
