// Text that a device compiles: a user's own kernels, which families/cuda_kernel.cpp launches.
#include <string>
#include <vector>

#include "exports.h"

namespace adjoint {
namespace {

std::string textOf(const Napi::Value& value) {
  if (!value.IsString()) fail(ErrorKind::argument, "compileCudaKernel: expected a string");
  return value.As<Napi::String>().Utf8Value();
}

// compileCudaKernel(source, name, options)
Napi::Value compileCudaKernel(Environment&, const Napi::CallbackInfo& info) {
  if (!info[2].IsArray()) fail(ErrorKind::argument, "compileCudaKernel: expected options");
  const auto list = info[2].As<Napi::Array>();
  std::vector<std::string> options;
  for (uint32_t i = 0; i < list.Length(); i++) options.push_back(textOf(list.Get(i)));
  const int kernel = backend::compileCudaKernel(textOf(info[0]), textOf(info[1]), options);
  return Napi::Number::New(info.Env(), kernel);
}

}  // namespace

void exportCompiler(Exports& exports) {
  exports.add<compileCudaKernel>("compileCudaKernel");
}

}  // namespace adjoint
