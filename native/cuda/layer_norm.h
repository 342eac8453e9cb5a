// What layer_norm.cu and layer_norm_backward.cu share beside rows.h.
#pragma once
#include <cstdint>
#include <optional>

#include "cuda/dense.h"
#include "cuda/rows.h"

namespace adjoint::cuda {

// Calls f(TypeTag<S>, TypeTag<W>) with the types of x and of weight and bias, which are S or what
// is computed in.
template <class F>
void visitNormTypes(DType x, DType weight, const F& f) {
  visitFloats("layerNorm", x, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (weight == x) return f(tag, tag);
    if constexpr (!std::is_same<S, ComputeOf<S>>::value) f(tag, TypeTag<ComputeOf<S>>());
  });
}
// The one that is used for weight and bias (nullptr for none).
inline DType coefficientType(DType x, const View* weight, const View* bias) {
  const bool isWide = (weight && weight->dtype != x) || (bias && bias->dtype != x);
  return isWide ? computeDType(x) : x;
}
inline std::optional<Stand> denseCoefficients(const View* given, DType dtype) {
  if (!given) return std::nullopt;
  return denseInput(*given, dtype);
}

}  // namespace adjoint::cuda
