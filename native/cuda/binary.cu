// One kernel per operation and compute type; the formulas stand in shared/functors.h.
#include "contract.h"
#include "cuda/elementwise.h"
#include "cuda/workspace.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

template <BinaryOp op, class C>
void launchBinary(const View& y, const Operand& a, const Operand& b) {
  launchElementwise<C>(y, {a, b}, Binary<op>());
}

// nullptr where the operation is not defined for C.
using Launcher = void (*)(const View& y, const Operand& a, const Operand& b);
template <BinaryOp op, class C, Compute compute>
constexpr Launcher launcher() {
  if constexpr (isDefined(op, compute)) {
    return launchBinary<op, C>;
  } else {
    return nullptr;
  }
}

#define ADJOINT_LAUNCHERS(name)                      \
  {launcher<BinaryOp::name, float, Compute::f32>(),  \
   launcher<BinaryOp::name, double, Compute::f64>(), \
   launcher<BinaryOp::name, int64_t, Compute::i64>()},
constexpr Launcher kLaunchers[][3] = {ADJOINT_BINARY_OPS(ADJOINT_LAUNCHERS)};
#undef ADJOINT_LAUNCHERS

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

bool isComparison(BinaryOp op) {
  return op >= BinaryOp::eq && op <= BinaryOp::ge;
}

// Comparisons see a number as the tensor's dtype holds it, as PyTorch's do.
Operand roundedTo(DType dtype, Operand x) {
  if (x.isScalar && (dtype == DType::bfloat16 || dtype == DType::float16)) {
    const bool brain = dtype == DType::bfloat16;
    x.scalar = Scalar::of(static_cast<double>(brain ? toFloat(scalarAs<BFloat16>(x.scalar))
                                                    : toFloat(scalarAs<Float16>(x.scalar))));
  }
  return x;
}

}  // namespace
}  // namespace cuda

void backend::binary(BinaryOp op, const View& y, const Operand& a, const Operand& b, DType common) {
  const auto launcher =
      cuda::kLaunchers[static_cast<int>(op)][static_cast<int>(computeType(common))];
  if (!launcher) {
    fail(ErrorKind::dtype, "%s: expected %s dtype, got %s", opName(op),
         isFloating(common) ? "an integer or bool" : "a floating-point", dtypeName(common));
  }
  if (cuda::dividesIntegers(op, common) &&
      (b.isScalar ? scalarAs<int64_t>(b.scalar) == 0 : cuda::hasZero(b.view))) {
    fail(ErrorKind::argument, "%s: division by zero in %s", opName(op), dtypeName(common));
  }
  if (cuda::isComparison(op)) {
    launcher(y, cuda::roundedTo(common, a), cuda::roundedTo(common, b));
  } else {
    launcher(y, a, b);
  }
}

}  // namespace adjoint
