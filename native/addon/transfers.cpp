// Memory to and from JavaScript, and where a storage lies.
#include "host_array.h"

namespace adjoint {
namespace {

// fromHost(array, dtype, owner): a new tensor with the array's bytes.
Napi::Value fromHost(Environment& e, const Napi::CallbackInfo& info) {
  double code = numberAt(info, 1);
  if (!(code >= 0 && code < kDTypeCount)) fail(ErrorKind::internal, "fromHost: expected a dtype");
  if (e.recorder) e.recorder->beginCall("tensor");
  size_t bytes = hostArrayAt(info, 0, "tensor").bytes;
  Storage* storage = e.allocate(bytes);
  StorageRef pin(storage);
  release(storage);
  HostArray source = hostArrayAt(info, 0, "tensor");  // allocating may have run a collection
  if (source.bytes != bytes) fail(ErrorKind::argument, "tensor: expected an array that stays");
  if (bytes) backend::copyFromHost(storage->data, source.data, bytes);
  if (e.recorder) e.recorder->addHostCopy(storage, source.data, bytes);
  Handle handle = e.table.addTensor(info[2], storage, static_cast<DType>(static_cast<int>(code)));
  retain(storage);
  return Napi::Number::New(info.Env(), handle);
}

// fromDevice(device, source, offset, bytes, dtype, owner): a new tensor with bytes of a tensor of
// another device of this backend, dense from `offset` on.
Napi::Value fromDevice(Environment& e, const Napi::CallbackInfo& info) {
  const double number = numberAt(info, 0), bytes = numberAt(info, 3), code = numberAt(info, 4);
  const bool isKnown = number >= 0 && number < static_cast<double>(e.all.size()) &&
                       e.all[static_cast<size_t>(number)] && number != e.device;
  if (!isKnown) fail(ErrorKind::internal, "to: expected another device in use, got %g", number);
  if (!(bytes >= 0 && bytes <= 140737488355328.0) || !(code >= 0 && code < kDTypeCount)) {
    fail(ErrorKind::internal, "to: expected a size and a dtype");
  }
  e.refuseWhileCapturing("to", "a copy from another device");
  Environment& other = *e.all[static_cast<size_t>(number)];
  other.refuseWhileCapturing("to", "a copy to another device");
  const auto length = static_cast<size_t>(bytes);
  const HostRange source = rangeAt(other, info, 1, length, "to");
  Storage* storage = e.allocate(length);
  StorageRef pin(storage);
  release(storage);
  backend::copyFromDevice(storage->data, source.data, other.device, length);
  Handle handle = e.table.addTensor(info[5], storage, static_cast<DType>(static_cast<int>(code)));
  retain(storage);
  return Napi::Number::New(info.Env(), handle);
}

// toHost(array, handle, offset): fills the array with the tensor's elements from `offset` on, which
// are dense. Waits for queued work.
Napi::Value toHost(Environment& e, const Napi::CallbackInfo& info) {
  e.refuseWhileCapturing("data", "a reading of values");
  HostArray target = hostArrayAt(info, 0, "data");
  HostRange range = rangeAt(e, info, 1, target.bytes, "data");
  if (target.bytes) backend::copyToHost(target.data, range.data, target.bytes);
  return info.Env().Undefined();
}

// overwrite(array, handle, offset): the reverse.
Napi::Value overwrite(Environment& e, const Napi::CallbackInfo& info) {
  e.refuseWhileCapturing("overwrite", "values from JavaScript");
  HostArray source = hostArrayAt(info, 0, "overwrite");
  HostRange range = rangeAt(e, info, 1, source.bytes, "overwrite");
  beforeWrite(range.storage);
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

// storageOf(handle): where the storage lies, its bytes, and whether a GPU reads it by itself; equal
// addresses mean shared memory.
// Another backend copies from and to it (host memory of the CPU addon) while the tensor is alive.
Napi::Value storageOf(Environment& e, const Napi::CallbackInfo& info) {
  Storage* s = e.table.tensor(handleAt(info, 0)).storage;
  auto object = Napi::Object::New(info.Env());
  object.Set("address", static_cast<double>(reinterpret_cast<uintptr_t>(s->data)));
  object.Set("bytes", static_cast<double>(s->bytes));
  object.Set("isPinned", s->pinned != nullptr);
  return object;
}

}  // namespace

void exportTransfers(Exports& exports) {
  exports.add<fromHost>("fromHost");
  exports.add<fromDevice>("fromDevice");
  exports.add<toHost>("toHost");
  exports.add<overwrite>("overwrite");
  exports.add<reserve>("reserve");
  exports.add<version>("version");
  exports.add<storageOf>("storageOf");
}

}  // namespace adjoint
