// One kernel per operation and compute type; the formulas stand in shared/functors.h.
#include "contract.h"
#include "cuda/elementwise.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

template <UnaryOp op, class C>
void launchUnary(const View& y, const View& x) {
  launchElementwise<C>(y, {tensorOperand(x)}, Unary<op>());
}

// nullptr where the operation is not defined for C.
using Launcher = void (*)(const View& y, const View& x);
template <UnaryOp op, class C, Compute compute>
constexpr Launcher launcher() {
  if constexpr (isDefined(op, compute)) {
    return launchUnary<op, C>;
  } else {
    return nullptr;
  }
}

#define ADJOINT_LAUNCHERS(name)                     \
  {launcher<UnaryOp::name, float, Compute::f32>(),  \
   launcher<UnaryOp::name, double, Compute::f64>(), \
   launcher<UnaryOp::name, int64_t, Compute::i64>()},
constexpr Launcher kLaunchers[][3] = {ADJOINT_UNARY_OPS(ADJOINT_LAUNCHERS)};
#undef ADJOINT_LAUNCHERS

}  // namespace
}  // namespace cuda

void backend::unary(UnaryOp op, const View& y, const View& x, DType common) {
  op = resolve(op, common);
  const auto launcher =
      cuda::kLaunchers[static_cast<int>(op)][static_cast<int>(computeType(common))];
  if (!launcher) {
    fail(ErrorKind::dtype, "%s: expected %s dtype, got %s", opName(op),
         isFloating(common) ? "an integer or bool" : "a floating-point", dtypeName(common));
  }
  launcher(y, x);
}

}  // namespace adjoint
