#include "cpu/kernels/linear.h"

#include "cpu/kernels/vec_elements.h"
#include "cpu/kernels/vec_gelu.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// While slopes fill the processor's window, few loads are under way: the next ones are asked for
// ahead. Addresses beyond the end do no harm.
constexpr int64_t kAhead = 512;

template <Activation activation, class T, class S>
ADJOINT_INLINE void slopesAt(S* dz, const S* dy, const S* kept, T* sums, int64_t at, int64_t rest) {
  const Binary<backwardOf(activation)> f;
  const auto x = f(get(dy + at, rest), get(kept + at, rest));
  put(dz + at, x, rest);
  if (!sums) return;
  if constexpr (sizeof(S) == sizeof(T)) {
    put(sums + at, get(sums + at, rest) + x, rest);
  } else {  // what was stored is added up, rounded
    put(sums + at, get(sums + at, rest) + get(dz + at, rest), rest);
  }
}

template <Activation activation, class T, class S>
void slopes(S* dz, const S* dy, const S* kept, T* sums, int64_t n) {
  constexpr int64_t width = sizeof(T) == sizeof(float) ? kLanes : 1;
  int64_t at = 0;
  for (; at + width <= n; at += width) {
    __builtin_prefetch(dy + at + kAhead);
    __builtin_prefetch(kept + at + kAhead);
    __builtin_prefetch(dz + at + kAhead, 1);
    slopesAt<activation>(dz, dy, kept, sums, at, width);
  }
  if constexpr (width > 1) {
    if (at < n) slopesAt<activation>(dz, dy, kept, sums, at, n - at);
  }
}

#define ADJOINT_SLOPES(T, S)                                                 \
  {                                                                          \
    nullptr, slopes<Activation::relu, T, S>, slopes<Activation::gelu, T, S>, \
        slopes<Activation::geluTanh, T, S>                                   \
  }

}  // namespace

const LinearTable linearTable = {ADJOINT_SLOPES(float, float), ADJOINT_SLOPES(double, double),
                                 ADJOINT_SLOPES(float, BFloat16)};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
