#include "cpu/kernels/linear.h"

#include "cpu/kernels/vec_elements.h"
#include "cpu/kernels/vec_gelu.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

template <class T>
constexpr int64_t kWidth = std::is_same<T, float>::value ? kLanes : 1;

template <Activation activation, class T>
ADJOINT_INLINE T valueAndSlope(T x, T& slope) {
  if constexpr (activation == Activation::geluTanh) {
    slope = geluTanhSlope(x);
#if !defined(ADJOINT_LEVEL_SCALAR)
  } else if constexpr (std::is_same<T, Vec>::value) {
    return geluAndSlope(x, slope);
#endif
  } else {
    slope = adjoint::geluSlope(x);
  }
  return Unary<unaryOf(activation)>()(x);
}

template <Activation activation, class T, class S>
ADJOINT_INLINE void activateAt(S* y, S* slopes, const S* z, int64_t at, int64_t rest) {
  auto slope = zeroOf(static_cast<const T*>(nullptr));
  const auto value = valueAndSlope<activation>(get(z + at, rest), slope);
  put(slopes + at, slope, rest);
  put(y + at, value, rest);
}

template <Activation activation, class T, class S>
void activate(S* y, S* slopes, const S* z, int64_t n) {
  constexpr int64_t width = kWidth<T>;
  int64_t at = 0;
  for (; at + width <= n; at += width) activateAt<activation, T>(y, slopes, z, at, width);
  if constexpr (width > 1) {
    if (at < n) activateAt<activation, T>(y, slopes, z, at, n - at);
  }
}

// While slopes fill the processor's window, few loads are under way: the next ones are asked for
// ahead. Addresses beyond the end do no harm.
constexpr int64_t kAhead = 512;

template <BinaryOp op, class T, class S>
ADJOINT_INLINE void slopesAt(S* dz, const S* dy, const S* kept, T* sums, int64_t at, int64_t rest) {
  const auto x = Binary<op>()(get(dy + at, rest), get(kept + at, rest));
  put(dz + at, x, rest);
  if (!sums) return;
  if constexpr (sizeof(S) == sizeof(T)) {
    put(sums + at, get(sums + at, rest) + x, rest);
  } else {  // what was stored is added up, rounded
    put(sums + at, get(sums + at, rest) + get(dz + at, rest), rest);
  }
}

template <BinaryOp op, class T, class S>
void slopes(S* dz, const S* dy, const S* kept, T* sums, int64_t n) {
  constexpr int64_t width = kWidth<T>;
  int64_t at = 0;
  for (; at + width <= n; at += width) {
    __builtin_prefetch(dy + at + kAhead);
    __builtin_prefetch(kept + at + kAhead);
    __builtin_prefetch(dz + at + kAhead, 1);
    slopesAt<op>(dz, dy, kept, sums, at, width);
  }
  if constexpr (width > 1) {
    if (at < n) slopesAt<op>(dz, dy, kept, sums, at, n - at);
  }
}

template <class T, class S>
constexpr LinearKernels<T, S> kernelsOf() {
  return {
      {nullptr, nullptr, activate<Activation::gelu, T, S>, activate<Activation::geluTanh, T, S>},
      {nullptr, slopes<BinaryOp::reluBackward, T, S>, slopes<BinaryOp::mul, T, S>,
       slopes<BinaryOp::mul, T, S>}};
}

}  // namespace

const LinearTable linearTable = {kernelsOf<float, float>(), kernelsOf<double, double>(),
                                 kernelsOf<float, BFloat16>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
