// What the files of the module share: reading arguments, and wrapping functions that may throw.
#pragma once
#include <napi.h>

#include "environment.h"

namespace adjoint {

inline Environment& environmentOf(const Napi::CallbackInfo& info) {
  return *static_cast<Environment*>(info.Data());
}

inline Handle handleAt(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsNumber()) fail(ErrorKind::argument, "native: expected a handle");
  return info[i].As<Napi::Number>().Int32Value();
}

inline double numberAt(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsNumber()) fail(ErrorKind::argument, "native: expected a number");
  return info[i].As<Napi::Number>().DoubleValue();
}

// Wraps a function of (environment, info) that may throw adjoint::Error.
using Body = Napi::Value (*)(Environment&, const Napi::CallbackInfo&);
template <Body body>
Napi::Value checked(const Napi::CallbackInfo& info) {
  Environment& environment = environmentOf(info);
  napi_value result = guarded(environment, [&]() -> napi_value { return body(environment, info); });
  return Napi::Value(info.Env(), result);
}

// The module's object while it is filled.
class Exports {
 public:
  Exports(Napi::Object module, Environment& environment)
      : module_(module), environment_(environment) {}

  void add(const char* name, napi_callback callback) {
    napi_value function;
    napi_create_function(module_.Env(), name, NAPI_AUTO_LENGTH, callback, &environment_, &function);
    module_.Set(name, function);
  }
  template <Body body>
  void add(const char* name) {
    module_.Set(name, Napi::Function::New<checked<body>>(module_.Env(), name, &environment_));
  }

 private:
  Napi::Object module_;
  Environment& environment_;
};

void exportCalls(Exports& exports);          // calls.cpp: what runs for nearly every op
void exportTransfers(Exports& exports);      // transfers.cpp: memory to and from JavaScript
void exportPendingCopies(Exports& exports);  // pending_copy.cpp: reading values asynchronously
void exportPinned(Exports& exports);         // pinned.cpp: memory that a GPU reads by itself
void exportProfile(Exports& exports);        // profile.cpp: times between moments
void exportState(Exports& exports);          // state.cpp: settings, generators, memory, the device
void exportCapture(Exports& exports);        // capture.cpp: recorded steps
void exportCompiler(Exports& exports);       // compiler.cpp: a user's own kernels

}  // namespace adjoint
