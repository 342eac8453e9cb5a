// One kernel per operation and compute type; the formulas stand in shared/functors.h.
#include "contract.h"
#include "cuda/elementwise.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

// nullptr where the operation is not defined for C.
template <class C, UnaryOp op>
constexpr ElementwiseKernel<C, 1> kernelOf() {
  if constexpr (isDefined(op, computeOf<C>)) {
    return elementwiseKernel<Unary<op>, C, 1>;
  } else {
    return nullptr;
  }
}

#define ADJOINT_KERNEL(name) kernelOf<C, UnaryOp::name>(),
template <class C>
constexpr ElementwiseKernel<C, 1> kKernels[] = {ADJOINT_UNARY_OPS(ADJOINT_KERNEL)};
#undef ADJOINT_KERNEL

}  // namespace
}  // namespace cuda

void backend::unary(UnaryOp requested, const View& y, const View& x, DType common) {
  const UnaryOp op = resolve(requested, common);
  visitCompute(computeType(common), [&](auto tag) {
    using C = typename decltype(tag)::type;
    const auto kernel = cuda::kKernels<C>[static_cast<int>(op)];
    if (!kernel) cuda::refuse(opName(op), common);
    cuda::launchElementwise<C, 1>(kernel, y, {cuda::tensorOperand(x)});
  });
}

}  // namespace adjoint
