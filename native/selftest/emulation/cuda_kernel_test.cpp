// Kernels of a user, compiled now.
#include <cstring>

#include "device_tensor.h"

namespace adjoint::test {
namespace {

template <class T>
backend::CudaKernelArgument argument(const T& value) {
  backend::CudaKernelArgument a{sizeof value, {}};
  std::memcpy(a.value, &value, sizeof value);
  return a;
}

template <class F>
std::string argumentError(const F& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::argument) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an error";
  return "";
}

constexpr const char* kScale = R"(
extern "C" __global__ void scale(const float* x, float* y, int n, float factor) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = factor * x[i];
}
template <class T>
__global__ void reverse(const T* x, T* y) {
  __shared__ T row[SIZE];
  row[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = row[SIZE - 1 - threadIdx.x];
}
)";

Values countTo(int n) {
  Values values;
  for (int i = 0; i < n; i++) values.push_back(i);
  return values;
}

TEST(CudaKernel, IsCompiledOnceAndRuns) {
  const int kernel = backend::compileCudaKernel(kScale, "scale", {"-DSIZE=1"});
  EXPECT_EQ(backend::compileCudaKernel(kScale, "scale", {"-DSIZE=1"}), kernel);
  EXPECT_NE(backend::compileCudaKernel(kScale, "scale", {"-DSIZE=2"}), kernel);
  const int n = 1000;
  const DeviceTensor x(DType::float32, {n}, countTo(n)),
      y = DeviceTensor::empty(DType::float32, {n});
  backend::launchCudaKernel(
      kernel, {{8, 1, 1}, {128, 1, 1}, 0},
      {argument(x.view.data), argument(y.view.data), argument(n), argument(0.5f)});
  const Values result = y.read();
  for (int i = 0; i < n; i++) EXPECT_EQ(result[static_cast<size_t>(i)], 0.5 * i);
}

TEST(CudaKernel, MayBeAnInstanceWithBarriers) {
  const int n = 100;
  backend::compileCudaKernel(kScale, "reverse<double>", {"-DSIZE=1"});
  const int kernel = backend::compileCudaKernel(kScale, "reverse<double>", {"-DSIZE=100"});
  const DeviceTensor x(DType::float64, {n}, countTo(n)),
      y = DeviceTensor::empty(DType::float64, {n});
  backend::launchCudaKernel(kernel, {{1, 1, 1}, {n, 1, 1}, 0},
                            {argument(x.view.data), argument(y.view.data)});
  const Values result = y.read();
  for (int i = 0; i < n; i++) EXPECT_EQ(result[static_cast<size_t>(i)], n - 1 - i);
}

TEST(CudaKernel, TheCompilersLogIsTheError) {
  const std::string log = argumentError([] {
    backend::compileCudaKernel("__global__ void f(float* y) {\n  y[0] = absent;\n}", "f", {});
  });
  EXPECT_NE(log.find("cudaKernel.cu"), std::string::npos) << log;
  EXPECT_NE(log.find("absent"), std::string::npos) << log;
}

TEST(CudaKernel, ParametersAreCounted) {
  const int kernel = backend::compileCudaKernel(kScale, "scale", {"-DSIZE=1"});
  const backend::CudaKernelLaunch one{{1, 1, 1}, {1, 1, 1}, 0};
  const float* none = nullptr;
  argumentError([&] { backend::launchCudaKernel(kernel, one, {argument(none)}); });
  argumentError([&] {
    backend::launchCudaKernel(kernel, one,
                              {argument(none), argument(none), argument(1.0), argument(1.0f)});
  });
  EXPECT_THROW(backend::launchCudaKernel(-1, one, {}), Error);
  EXPECT_THROW(backend::launchCudaKernel(1 << 20, one, {}), Error);
  // No block, nothing to do.
  backend::launchCudaKernel(kernel, {{0, 1, 1}, {1, 1, 1}, 0},
                            {argument(none), argument(none), argument(1), argument(1.0f)});
  backend::synchronize();
}

}  // namespace
}  // namespace adjoint::test
