// One kernel per operation and compute type; the formulas stand in shared/functors.h.
#include "contract.h"
#include "cuda/elementwise.h"
#include "cuda/workspace.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

// nullptr where the operation is not defined for C.
template <class C, BinaryOp op>
constexpr ElementwiseKernel<C, 2> kernelOf() {
  if constexpr (isDefined(op, computeOf<C>)) {
    return elementwiseKernel<Binary<op>, C, 2>;
  } else {
    return nullptr;
  }
}

#define ADJOINT_KERNEL(name) kernelOf<C, BinaryOp::name>(),
template <class C>
constexpr ElementwiseKernel<C, 2> kKernels[] = {ADJOINT_BINARY_OPS(ADJOINT_KERNEL)};
#undef ADJOINT_KERNEL

bool dividesIntegers(BinaryOp op, DType common) {
  return computeType(common) == Compute::i64 &&
         (op == BinaryOp::floorDivide || op == BinaryOp::remainder || op == BinaryOp::fmod);
}

// Waits for the divisor, as an error cannot be raised later.
bool hasZero(const View& b) {
  const Workspace flag(1);
  View all = b;
  all.data = flag.data();
  all.dtype = DType::boolean;
  for (int axis = 0; axis < all.ndim; axis++) all.size[axis] = all.stride[axis] = 1;
  backend::reduce(ReduceOp::all, all, b);
  uint8_t nonzero = 0;
  backend::copyToHost(&nonzero, flag.data(), 1);
  return nonzero == 0;
}

// Comparisons see a number as a half-precision tensor holds it, as PyTorch's do.
Operand seenBy(BinaryOp op, DType common, Operand x) {
  const bool half = common == DType::bfloat16 || common == DType::float16;
  if (x.isScalar && half && op >= BinaryOp::eq && op <= BinaryOp::ge) {
    x.scalar = roundedTo(common, x.scalar);
  }
  return x;
}

}  // namespace
}  // namespace cuda

void backend::binary(BinaryOp op, const View& y, const Operand& a, const Operand& b, DType common) {
  visitCompute(computeType(common), [&](auto tag) {
    using C = typename decltype(tag)::type;
    const auto kernel = cuda::kKernels<C>[static_cast<int>(op)];
    if (!kernel) cuda::refuse(opName(op), common);
    if (cuda::dividesIntegers(op, common) &&
        (b.isScalar ? scalarAs<int64_t>(b.scalar) == 0 : cuda::hasZero(b.view))) {
      fail(ErrorKind::argument, "%s: division by zero in %s", opName(op), dtypeName(common));
    }
    cuda::launchElementwise<C, 2>(kernel, y,
                                  {cuda::seenBy(op, common, a), cuda::seenBy(op, common, b)});
  });
}

}  // namespace adjoint
