// Reading values without blocking JavaScript's thread: the copy is queued, a thread of Node's pool
// waits for it, and the typed array is filled when its promise is resolved.
#include <memory>
#include <string>

#include "host_array.h"

namespace adjoint {
namespace {

// Lives from the call until the promise is settled. Node settles it before the environment ends.
struct PendingCopy {
  Environment* environment;
  backend::HostCopy* copy;
  napi_deferred deferred = nullptr;
  napi_ref array = nullptr;
  napi_async_work work = nullptr;
  bool hasFailed = false;
  ErrorKind kind = ErrorKind::internal;
  std::string message;

  void failWith(ErrorKind k, const char* m) {
    hasFailed = true;
    kind = k;
    message = m;
  }
};

void waitOnWorker(napi_env, void* data) {
  auto& pending = *static_cast<PendingCopy*>(data);
  try {
    backend::waitForCopy(*pending.copy);
  } catch (const Error& e) {
    pending.failWith(e.kind, e.what());
  } catch (const std::exception& e) {
    pending.failWith(ErrorKind::internal, e.what());
  }
}

// Where the environment is about to end, nothing can be resolved any more, and all is only freed.
void settle(napi_env env, napi_status status, void* data) {
  std::unique_ptr<PendingCopy> pending(static_cast<PendingCopy*>(data));
  napi_value array = nullptr;
  void* target = nullptr;
  size_t length = 0;
  napi_typedarray_type type;
  if (status == napi_ok && !pending->hasFailed &&
      napi_get_reference_value(env, pending->array, &array) == napi_ok && array &&
      napi_get_typedarray_info(env, array, &type, &length, &target, nullptr, nullptr) != napi_ok) {
    target = nullptr;
  }
  const size_t bytes = target ? Napi::TypedArray(env, array).ByteLength() : 0;
  backend::endCopy(pending->copy, target, bytes);
  napi_delete_reference(env, pending->array);
  napi_delete_async_work(env, pending->work);
  if (pending->hasFailed) {
    napi_value error = pending->environment->makeError(pending->kind, pending->message.c_str());
    if (error) napi_reject_deferred(env, pending->deferred, error);
  } else {
    napi_value undefined = nullptr;
    napi_get_undefined(env, &undefined);
    napi_resolve_deferred(env, pending->deferred, undefined);
  }
}

// toHostAsync(array, handle, offset): as toHost, but what has to wait does so elsewhere: gives back
// a promise, or undefined where the array is filled already.
Napi::Value toHostAsync(Environment& e, const Napi::CallbackInfo& info) {
  e.refuseWhileCapturing("data", "a reading of values");
  const HostArray target = hostArrayAt(info, 0, "data");
  const HostRange range = rangeAt(e, info, 1, target.bytes, "data");
  napi_env env = info.Env();
  if (target.bytes == 0) return info.Env().Undefined();
  backend::HostCopy* copy = backend::beginCopyToHost(range.data, target.bytes);
  if (!copy) {
    backend::copyToHost(target.data, range.data, target.bytes);
    return info.Env().Undefined();
  }
  auto pending = std::make_unique<PendingCopy>();
  pending->environment = &e;
  pending->copy = copy;
  napi_value promise, name;
  napi_create_reference(env, info[0], 1, &pending->array);
  napi_create_string_utf8(env, "adjoint.data", NAPI_AUTO_LENGTH, &name);
  if (napi_create_async_work(env, nullptr, name, waitOnWorker, settle, pending.get(),
                             &pending->work) != napi_ok ||
      napi_create_promise(env, &pending->deferred, &promise) != napi_ok ||
      napi_queue_async_work(env, pending->work) != napi_ok) {
    backend::endCopy(copy, nullptr, 0);
    fail(ErrorKind::internal, "data: expected a thread that waits, got none");
  }
  pending.release();
  return Napi::Value(env, promise);
}

}  // namespace

void exportPendingCopies(Exports& exports) {
  exports.add<toHostAsync>("toHostAsync");
}

}  // namespace adjoint
