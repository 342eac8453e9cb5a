// Tensors of the CPU in memory that a GPU reads by itself. The addon of the GPU lends the memory,
// and copies from it; the addon of the CPU has tensors there.
#include "exports.h"

namespace adjoint {
namespace {

// pinnedMemory(): what the other addon takes, or null where this backend has none.
Napi::Value pinnedMemory(Environment&, const Napi::CallbackInfo& info) {
  const PinnedMemory* memory = backend::pinnedMemory();
  if (!memory) return info.Env().Null();
  return Napi::External<PinnedMemory>::New(info.Env(), const_cast<PinnedMemory*>(memory));
}

DType dtypeAt(const Napi::CallbackInfo& info, size_t i) {
  const double code = numberAt(info, i);
  if (!(code >= 0 && code < kDTypeCount)) fail(ErrorKind::internal, "native: expected a dtype");
  return static_cast<DType>(static_cast<int>(code));
}

size_t bytesAt(const Napi::CallbackInfo& info, size_t i) {
  const double bytes = numberAt(info, i);
  if (!(bytes >= 0 && bytes <= 140737488355328.0)) {
    fail(ErrorKind::outOfMemory, "pinMemory: expected a size that fits the address space");
  }
  return static_cast<size_t>(bytes);
}

// reservePinned(bytes, dtype, owner, memory): as reserve, in memory of another addon.
Napi::Value reservePinned(Environment& e, const Napi::CallbackInfo& info) {
  if (!info[3].IsExternal()) fail(ErrorKind::internal, "pinMemory: expected pinned memory");
  const DType dtype = dtypeAt(info, 1);
  Storage* storage =
      e.allocatePinned(bytesAt(info, 0), *info[3].As<Napi::External<PinnedMemory>>().Data());
  StorageRef pin(storage);
  release(storage);
  const Handle handle = e.table.addTensor(info[2], storage, dtype);
  retain(storage);
  return Napi::Number::New(info.Env(), handle);
}

// fromPinned(address, bytes, dtype, owner): a new tensor with the bytes at an address in this
// backend's pinned memory, which are read when queued work gets there.
Napi::Value fromPinned(Environment& e, const Napi::CallbackInfo& info) {
  e.refuseWhileCapturing("to", "a copy to another device");
  const auto address = static_cast<uintptr_t>(numberAt(info, 0));
  const size_t bytes = bytesAt(info, 1);
  const DType dtype = dtypeAt(info, 2);
  Storage* storage = e.allocate(bytes);
  StorageRef pin(storage);
  release(storage);
  if (bytes) backend::copyFromPinned(storage->data, reinterpret_cast<void*>(address), bytes);
  const Handle handle = e.table.addTensor(info[3], storage, dtype);
  retain(storage);
  return Napi::Number::New(info.Env(), handle);
}

}  // namespace

void exportPinned(Exports& exports) {
  exports.add<pinnedMemory>("pinnedMemory");
  exports.add<reservePinned>("reservePinned");
  exports.add<fromPinned>("fromPinned");
}

}  // namespace adjoint
