// The CPU refuses CUDA C++.
#include <gtest/gtest.h>

#include "contract.h"

namespace adjoint {
namespace {

template <class F>
ErrorKind kindOf(const F& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.kind;
  }
  return ErrorKind::internal;
}

TEST(CudaKernel, IsRefused) {
  EXPECT_EQ(kindOf([] { backend::compileCudaKernel("", "f", {}); }), ErrorKind::device);
  EXPECT_EQ(kindOf([] {
              backend::launchCudaKernel(0, {{1, 1, 1}, {1, 1, 1}, 0}, {});
            }),
            ErrorKind::device);
}

}  // namespace
}  // namespace adjoint
