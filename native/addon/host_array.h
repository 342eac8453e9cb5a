// Typed arrays of JavaScript, and the elements of a tensor that they are copied from and to.
#pragma once
#include "exports.h"

namespace adjoint {

struct HostArray {
  void* data = nullptr;
  size_t bytes = 0;
};

inline HostArray hostArrayAt(const Napi::CallbackInfo& info, size_t i, const char* op) {
  HostArray a;
  if (!info[i].IsTypedArray()) fail(ErrorKind::argument, "%s: expected a typed array", op);
  napi_typedarray_type type;
  size_t length = 0;
  napi_get_typedarray_info(info.Env(), info[i], &type, &length, &a.data, nullptr, nullptr);
  a.bytes = info[i].As<Napi::TypedArray>().ByteLength();
  return a;
}

struct HostRange {
  Storage* storage;
  char* data;
};

// Arguments: a tensor's handle, and the element from which on `bytes` are meant.
inline HostRange rangeAt(Environment& e, const Napi::CallbackInfo& info, size_t handleArgument,
                         size_t bytes, const char* op) {
  Table::Tensor t = e.table.tensor(handleAt(info, handleArgument));
  double offset = numberAt(info, handleArgument + 1) * static_cast<double>(itemSize(t.dtype));
  if (!(offset >= 0 &&
        offset + static_cast<double>(bytes) <= static_cast<double>(t.storage->bytes))) {
    fail(ErrorKind::internal, "%s: expected a range inside the storage", op);
  }
  return {t.storage, static_cast<char*>(t.storage->data) + static_cast<size_t>(offset)};
}

}  // namespace adjoint
