// Errors that native code throws. The addon's glue turns each into the JavaScript class of its
// kind (src/core/errors.ts); none crosses the C boundary.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace adjoint {

enum class ErrorKind {
  argument,
  dtype,
  shape,
  index,
  disposed,
  outOfMemory,
  device,
  capture,
  internal
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& what) : std::runtime_error(what), kind(kind) {}
  const ErrorKind kind;
};

// Throws Error with a printf-formatted message. Grammar: "op: expected …, got …".
[[noreturn]] inline void fail(ErrorKind kind, const char* format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

[[noreturn]] inline void fail(ErrorKind kind, const char* format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw Error(kind, text);
}

}  // namespace adjoint
