// fill, copy, where, arange.
#include "contract.h"
#include "cuda/elementwise.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

struct Identity {
  template <class C>
  ADJOINT_DEVICE C operator()(C x) const {
    return x;
  }
};
struct Choose {
  template <class C>
  ADJOINT_DEVICE C operator()(C condition, C a, C b) const {
    return condition != C(0) ? a : b;
  }
};

// y[i] = start + i step
template <class C>
__global__ void arangeKernel(void* y, DType dtype, int64_t stride, int64_t n, C start, C step) {
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += threads) {
    storeAs(y, dtype, i * stride, plus(start, times(static_cast<C>(i), step)));
  }
}

template <class C>
void launchArange(const View& y, C start, C step) {
  const int64_t n = y.numel();
  if (n == 0) return;
  launch(gridFor(n, kElementwiseThreads), kElementwiseThreads, 0, stream(), arangeKernel<C>, y.data,
         y.dtype, y.stride[0], n, start, step);
}

}  // namespace
}  // namespace cuda

namespace backend {

void fill(const View& y, const Scalar& value) {
  Operand number;
  number.isScalar = true;
  number.scalar = cuda::roundedTo(y.dtype, value);
  visitCompute(computeType(y.dtype), [&](auto tag) {
    using C = typename decltype(tag)::type;
    cuda::launchElementwise<C, 1>(cuda::elementwiseKernel<cuda::Identity, C, 1>, y, {number});
  });
}

void copy(const View& y, const View& x) {
  const bool sameShape = x.numel() == y.numel();
  if (sameShape && x.dtype == y.dtype && x.isContiguous() && y.isContiguous()) {
    const size_t bytes = static_cast<size_t>(y.numel()) * itemSize(y.dtype);
    if (bytes == 0) return;
    ADJOINT_CUDA(cudaMemcpyAsync(y.data, x.data, bytes, cudaMemcpyDeviceToDevice, cuda::stream()));
    return;
  }
  visitCompute(computeType(x.dtype), [&](auto tag) {
    using C = typename decltype(tag)::type;
    cuda::launchElementwise<C, 1>(cuda::elementwiseKernel<cuda::Identity, C, 1>, y,
                                  {cuda::tensorOperand(x)});
  });
}

void where(const View& y, const View& condition, const Operand& a, const Operand& b) {
  visitCompute(computeType(y.dtype), [&](auto tag) {
    using C = typename decltype(tag)::type;
    cuda::launchElementwise<C, 3>(cuda::elementwiseKernel<cuda::Choose, C, 3>, y,
                                  {cuda::tensorOperand(condition), a, b});
  });
}

void arange(const View& y, const Scalar& start, const Scalar& step) {
  if (isFloating(y.dtype)) {
    cuda::launchArange(y, scalarAs<double>(start), scalarAs<double>(step));
  } else {
    cuda::launchArange(y, scalarAs<int64_t>(start), scalarAs<int64_t>(step));
  }
}

}  // namespace backend
}  // namespace adjoint
