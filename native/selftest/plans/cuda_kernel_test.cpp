// The code that NVRTC makes of users' kernels, for cards that are not here.
#include "cuda/cuda_kernel.h"

#include <gtest/gtest.h>

#include "cuda/cuda_kernel_image.h"
#include "shared/error.h"

namespace adjoint::test {
namespace {

constexpr const char* kScale = R"(
extern "C" __global__ void scale(const float* x, float* y, int n, float factor) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = factor * x[i];
}
template <class T, int k>
__global__ void power(const T* x, T* y) {
  T value = 1;
  for (int j = 0; j < k; j++) value *= x[threadIdx.x];
  y[threadIdx.x] = value;
}
)";

std::string errorOf(const std::string& source, const std::string& name,
                    const std::vector<std::string>& options) {
  try {
    cuda::compileImage(source, name, options, 90);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::argument) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an error for " << name;
  return "";
}

TEST(Nvrtc, MakesMachineCode) {
  for (int capability : {75, 80, 90, 100, 120}) {
    SCOPED_TRACE(capability);
    const cuda::KernelImage image = cuda::compileImage(kScale, "scale", {}, capability);
    EXPECT_EQ(image.symbol, "scale");
    EXPECT_TRUE(image.isMachineCode);
    EXPECT_EQ(image.code.substr(1, 3), "ELF");
  }
  const cuda::KernelImage instance = cuda::compileImage(kScale, "power<double, 3>", {}, 90);
  EXPECT_NE(instance.symbol.find("power"), std::string::npos);
}

TEST(Nvrtc, SaysWhereItIs) {
  EXPECT_NE(cuda::kernelCompiler().find("libnvrtc.so"), std::string::npos);
}

TEST(Nvrtc, MakesPtxForCardsThatItDoesNotKnow) {
  const cuda::KernelImage image = cuda::compileImage(kScale, "scale", {}, 999);
  EXPECT_FALSE(image.isMachineCode);
  EXPECT_NE(image.code.find(".entry scale"), std::string::npos);
}

TEST(Nvrtc, FindsCudasHeaders) {
  const char* source = R"(
#include <cuda_bf16.h>
#include <cuda_fp16.h>
__global__ void narrow(const __half* x, __nv_bfloat16* y) { y[0] = __float2bfloat16(__half2float(x[0])); }
)";
  EXPECT_EQ(cuda::compileImage(source, "narrow", {}, 90).code.substr(1, 3), "ELF");
}

TEST(Nvrtc, ItsLogIsTheError) {
  const std::string undefined = errorOf("__global__ void f(float* y) {\n  y[0] = b;\n}", "f", {});
  EXPECT_NE(undefined.find("cudaKernel.cu(2): error: identifier \"b\" is undefined"),
            std::string::npos)
      << undefined;
  EXPECT_NE(undefined.back(), '\0');
  const std::string absent = errorOf(kScale, "scaled", {});
  EXPECT_NE(absent.find("scaled"), std::string::npos) << absent;
  const std::string option = errorOf(kScale, "scale", {"--no-such-option"});
  EXPECT_NE(option.find("no-such-option"), std::string::npos) << option;
  EXPECT_NO_THROW(cuda::compileImage("__global__ void f(int* y) { *y = N; }", "f", {"-DN=3"}, 90));
}

}  // namespace
}  // namespace adjoint::test
