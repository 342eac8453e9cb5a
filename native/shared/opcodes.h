// The one list of opcodes. The addon exports name -> number; TypeScript checks its own list against
// it at load (src/bindings/opcodes.ts). The functors of each stand in functors.h.
#pragma once
#include <cstdint>

namespace adjoint {

// clang-format moves these lists at every run.
// clang-format off
// y = f(x)
#define ADJOINT_UNARY_OPS(X)                                                                      \
  X(neg) X(abs) X(sign) X(square) X(sqrt) X(rsqrt) X(reciprocal) X(exp) X(exp2) X(expm1) X(log)   \
  X(log2) X(log10) X(log1p) X(sin) X(cos) X(tan) X(asin) X(acos) X(atan) X(sinh) X(cosh) X(tanh)  \
  X(asinh) X(acosh) X(atanh) X(floor) X(ceil) X(round) X(trunc) X(erf) X(erfc) X(sigmoid)         \
  X(softplus) X(relu) X(gelu) X(geluTanh) X(silu) X(isnan) X(isinf) X(isfinite) X(logicalNot)     \
  X(bitwiseNot)

// y = f(a, b). The …Backward ones are dx = dy · f'(…): a is dy, b is what f' is written in.
#define ADJOINT_BINARY_OPS(X)                                                                     \
  X(add) X(sub) X(mul) X(div) X(floorDivide) X(remainder) X(fmod) X(pow) X(atan2) X(hypot)        \
  X(maximum) X(minimum) X(eq) X(ne) X(lt) X(le) X(gt) X(ge) X(logicalAnd) X(logicalOr)            \
  X(logicalXor) X(bitwiseAnd) X(bitwiseOr) X(bitwiseXor) X(shiftLeft) X(shiftRight)               \
  X(reluBackward) X(sigmoidBackward) X(tanhBackward) X(geluBackward) X(geluTanhBackward)          \
  X(siluBackward)
// clang-format on

#define ADJOINT_REDUCE_OPS(X) X(sum) X(mean) X(prod) X(amax) X(amin) X(any) X(all)
#define ADJOINT_ARG_OPS(X) X(argmax) X(argmin)
#define ADJOINT_RANDOM_OPS(X) X(uniform) X(normal) X(bernoulli) X(randint)
// What may follow a matrix product in one kernel; functors.h says which operations these are.
#define ADJOINT_ACTIVATIONS(X) X(none) X(relu) X(gelu) X(geluTanh)

#define ADJOINT_ENUMERATOR(name) name,
enum class UnaryOp : uint8_t { ADJOINT_UNARY_OPS(ADJOINT_ENUMERATOR) count };
enum class BinaryOp : uint8_t { ADJOINT_BINARY_OPS(ADJOINT_ENUMERATOR) count };
enum class ReduceOp : uint8_t { ADJOINT_REDUCE_OPS(ADJOINT_ENUMERATOR) count };
enum class ArgOp : uint8_t { ADJOINT_ARG_OPS(ADJOINT_ENUMERATOR) count };
enum class RandomOp : uint8_t { ADJOINT_RANDOM_OPS(ADJOINT_ENUMERATOR) count };
enum class Activation : uint8_t { ADJOINT_ACTIVATIONS(ADJOINT_ENUMERATOR) count };
#undef ADJOINT_ENUMERATOR

}  // namespace adjoint
