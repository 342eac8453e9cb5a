// What max pooling is checked for on every backend.
#pragma once
#include <cstdint>

#include "contract.h"
#include "shared/error.h"

namespace adjoint {

inline void checkPool(const char* op, const View& x, const View& tap,
                      const backend::Pool2dShape& s) {
  if (x.size[2] * x.size[3] > INT32_MAX) {
    fail(ErrorKind::shape, "%s: expected at most 2^31 - 1 pixels in a plane, got %lld x %lld", op,
         static_cast<long long>(x.size[2]), static_cast<long long>(x.size[3]));
  }
  const int64_t most = tap.dtype == DType::uint8 ? UINT8_MAX + 1 : INT32_MAX;
  if (s.kernelH > most / s.kernelW) {
    fail(ErrorKind::shape, "%s: expected a window of at most %lld pixels, got %lld x %lld", op,
         static_cast<long long>(most), static_cast<long long>(s.kernelH),
         static_cast<long long>(s.kernelW));
  }
}

}  // namespace adjoint
