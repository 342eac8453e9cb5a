// One kernel per operation and compute type; the formulas stand in shared/functors.h.
#include "contract.h"
#include "cuda/elementwise.h"
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

}  // namespace
}  // namespace cuda

void backend::binary(BinaryOp op, const View& y, const Operand& a, const Operand& b, DType common) {
  const auto launcher =
      cuda::kLaunchers[static_cast<int>(op)][static_cast<int>(computeType(common))];
  if (!launcher) {
    fail(ErrorKind::dtype, "%s: not defined for %s", opName(op), dtypeName(common));
  }
  launcher(y, a, b);
}

}  // namespace adjoint
