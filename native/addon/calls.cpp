// The functions that are called for nearly every op: raw Node-API.
#include <algorithm>

#include "call.h"
#include "exports.h"

namespace adjoint {
namespace {

// run(length, ...owners): decodes and runs the row in the word array. Without owners, what it makes
// is not watched.
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
    const std::vector<Kernel>& all = kernels();
    if (!(number >= 0 && number < static_cast<double>(all.size()))) {
      fail(ErrorKind::internal, "run: expected a kernel's number, got %g", number);
    }
    const Kernel& kernel = all[static_cast<size_t>(number)];
    size_t owners = std::min<size_t>(count, 9) - 1;
    Call call(environment, static_cast<size_t>(length), arguments + 1, owners);
    call.setName(kernel.name);
    if (environment.recorder) environment.recorder->beginCall(kernel.name);
    kernel.run(call);
    if (environment.recorder) environment.recorder->add(kernel, call);
    call.finish();
    return nullptr;
  });
}

// Arguments of the functions that are called for nearly every op: raw Node-API.
struct Arguments {
  Environment& environment;
  napi_env env;
  size_t count;
  napi_value values[3];

  // An owner that may be left out: then the handle is not watched.
  napi_value owner(size_t i) const { return i < count ? values[i] : nullptr; }

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
    int32_t handle = body({environment, env, count, {values[0], values[1], values[2]}});
    napi_create_int32(env, handle, &result);
    return result;
  });
}

// hold(count): a tape node that holds the storages of the tensors whose handles stand in the word
// array. Returns the node's handle, which is not watched.
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
  return a.environment.table.addNode(nullptr, saved, count);
}

// unpack(node): handles for what it saved, in the word array, which are not watched. Returns -1, or
// the number of the first value that was overwritten since, and then makes none.
Handle unpack(const Arguments& a) {
  Environment& e = a.environment;
  const auto [values, count] = e.table.saved(a.integer(0));
  if (static_cast<size_t>(count) > e.wordCapacity) {
    fail(ErrorKind::internal, "unpack: expected a count within the word array");
  }
  for (int i = 0; i < count; i++) {
    if (values[i].storage->version != values[i].version) return i;
  }
  for (int i = 0; i < count; i++) {
    e.words[i] = e.table.addTensor(nullptr, values[i].storage, values[i].dtype);
    retain(values[i].storage);
  }
  return -1;
}

// alias(handle[, owner]): another handle to the same storage.
Handle alias(const Arguments& a) {
  Table::Tensor t = a.environment.table.tensor(a.integer(0));
  StorageRef pin(t.storage);
  a.environment.reclaimer.beforeEntry();
  retain(t.storage);
  return a.environment.table.addTensor(a.owner(1), t.storage, t.dtype);
}

// dispose(handle): harmless on a stale one.
Handle dispose(const Arguments& a) {
  a.environment.table.dispose(a.integer(0));
  return 0;
}

// disposeAll(count): the handles that stand in the word array.
Handle disposeAll(const Arguments& a) {
  int count = a.integer(0);
  if (count < 0 || static_cast<size_t>(count) > a.environment.wordCapacity) {
    fail(ErrorKind::internal, "disposeAll: expected a count within the word array");
  }
  for (int i = 0; i < count; i++) {
    a.environment.table.dispose(static_cast<Handle>(a.environment.words[i]));
  }
  return 0;
}

// watch(handle, owner): from now on the handle is freed when its owner is dead.
Handle watch(const Arguments& a) {
  a.environment.table.watch(a.integer(0), a.values[1]);
  return 0;
}

}  // namespace

void exportCalls(Exports& exports) {
  exports.add("run", run);
  exports.add("hold", handles<hold>);
  exports.add("unpack", handles<unpack>);
  exports.add("alias", handles<alias>);
  exports.add("dispose", handles<dispose>);
  exports.add("disposeAll", handles<disposeAll>);
  exports.add("watch", handles<watch>);
}

}  // namespace adjoint
