// The module: what TypeScript sees of one backend (src/bindings/native.ts has the types).
#include <initializer_list>
#include <mutex>

#include "call.h"
#include "exports.h"

namespace adjoint {
namespace {

std::mutex environmentsMutex;
int environments = 0;

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
  if (--environments > 0) return;
  try {
    backend::shutdown();
  } catch (const Error&) {
    // A device that has failed has nothing left to end, and nobody is there to be told.
  }
}

// Whether the backend can be used; a JavaScript exception says why not.
bool addEnvironment(napi_env env) {
  std::lock_guard<std::mutex> lock(environmentsMutex);
  try {
    if (environments == 0) backend::startup();
  } catch (const std::exception& e) {
    napi_throw_error(env, nullptr, e.what());
    return false;
  }
  environments++;
  return true;
}

napi_value initialize(napi_env env, napi_value exports) {
  if (!addEnvironment(env)) return nullptr;
  auto* environment = new Environment(env);
  napi_add_env_cleanup_hook(env, removeEnvironment, environment);

  Napi::Object module(env, exports);
  Exports functions(module, *environment);
  exportCalls(functions);
  exportTransfers(functions);
  exportPendingCopies(functions);
  exportProfile(functions);
  exportState(functions);
  exportCapture(functions);
  exportCompiler(functions);
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
