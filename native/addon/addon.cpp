// The module: what TypeScript sees of one backend and of each of its devices
// (src/bindings/native.ts has the types).
#include <initializer_list>
#include <mutex>

#include "call.h"
#include "exports.h"

namespace adjoint {
namespace {

std::mutex modulesMutex;
int modules = 0;

// The addon in one JavaScript environment.
struct Module {
  Environments environments;
};

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
  opcodes.Set("activation",
              opcodeTable(env, {ADJOINT_ACTIVATIONS(ADJOINT_NAME)}, Activation::count));
  opcodes.Set("random", opcodeTable(env, {ADJOINT_RANDOM_OPS(ADJOINT_NAME)}, RandomOp::count));
#undef ADJOINT_NAME
  return opcodes;
}

void removeModule(void* data) {
  delete static_cast<Module*>(data);
  std::lock_guard<std::mutex> lock(modulesMutex);
  if (--modules > 0) return;
  try {
    backend::shutdown();
  } catch (const Error&) {
    // A device that has failed has nothing left to end, and nobody is there to be told.
  }
}

// Whether the backend can be used; a JavaScript exception says why not.
bool addModule(napi_env env) {
  std::lock_guard<std::mutex> lock(modulesMutex);
  try {
    if (modules == 0) backend::startup();
  } catch (const std::exception& e) {
    napi_throw_error(env, nullptr, e.what());
    return false;
  }
  modules++;
  return true;
}

Napi::Object surface(Napi::Env env, Environment& environment) {
  auto object = Napi::Object::New(env);
  Exports functions(object, environment);
  exportCalls(functions);
  exportTransfers(functions);
  exportPendingCopies(functions);
  exportPinned(functions);
  exportProfile(functions);
  exportState(functions);
  exportCapture(functions);
  exportCompiler(functions);
  auto numbers = Napi::Object::New(env);
  for (size_t i = 0; i < kernels().size(); i++) {
    numbers.Set(kernels()[i].name, static_cast<double>(i));
  }
  object.Set("kernels", numbers);
  return object;
}

// open(device): its functions.
Napi::Value open(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto& module = *static_cast<Module*>(info.Data());
  try {
    const double n = numberAt(info, 0);
    if (!(n >= 0 && n < backend::deviceCount())) {
      fail(ErrorKind::device, "open: expected a device below %d, got %g", backend::deviceCount(),
           n);
    }
    const int device = static_cast<int>(n);
    backend::useDevice(device);
    const auto i = static_cast<size_t>(device);
    if (module.environments.size() <= i) module.environments.resize(i + 1);
    auto& environment = module.environments[i];
    if (!environment) environment = std::make_unique<Environment>(env, device, module.environments);
    return surface(env, *environment);
  } catch (const Error& e) {
    throw Napi::Error::New(env, e.what());
  }
}

Napi::Value deviceCount(const Napi::CallbackInfo& info) {
  try {
    return Napi::Number::New(info.Env(), backend::deviceCount());
  } catch (const Error& e) {
    throw Napi::Error::New(info.Env(), e.what());
  }
}

napi_value initialize(napi_env env, napi_value exports) {
  if (!addModule(env)) return nullptr;
  auto* own = new Module;
  napi_add_env_cleanup_hook(env, removeModule, own);

  Napi::Object module(env, exports);
  module.Set("backend", backend::name());
  module.Set("opcodes", constants(env));
  auto dtypes = Napi::Object::New(env);
  for (int i = 0; i < kDTypeCount; i++) dtypes.Set(dtypeName(static_cast<DType>(i)), i);
  module.Set("dtypes", dtypes);
  module.Set("deviceCount", Napi::Function::New<deviceCount>(env, "deviceCount"));
  module.Set("open", Napi::Function::New<open>(env, "open", own));
  return exports;
}

}  // namespace
}  // namespace adjoint

NAPI_MODULE_INIT() {
  return adjoint::initialize(env, exports);
}
