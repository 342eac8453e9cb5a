#include "cpu/kernels/clip.h"

#include "shared/convert.h"
#include "shared/norm.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// In sixteen chains, which the processor adds up side by side.
template <class S, Norm kind>
ADJOINT_INLINE double magnitudeOf(const S* x, int64_t n, double p) {
  constexpr int kChains = 16;
  const Magnitudes<double, kind> magnitudes{p};
  double chain[kChains] = {};
  int64_t i = 0;
  for (; i + kChains <= n; i += kChains) {
    for (int k = 0; k < kChains; k++) {
      chain[k] = magnitudes.combine(chain[k], magnitudes.of(convert<double>(x[i + k])));
    }
  }
  for (int k = 0; i < n; i++, k++) {
    chain[k] = magnitudes.combine(chain[k], magnitudes.of(convert<double>(x[i])));
  }
  for (int k = 1; k < kChains; k++) chain[0] = magnitudes.combine(chain[0], chain[k]);
  return chain[0];
}

template <class S>
double magnitude(const void* data, int64_t n, double p) {
  const S* x = static_cast<const S*>(data);
  switch (normOf(p)) {
    case Norm::largest:
      return magnitudeOf<S, Norm::largest>(x, n, p);
    case Norm::sum:
      return magnitudeOf<S, Norm::sum>(x, n, p);
    case Norm::squares:
      return magnitudeOf<S, Norm::squares>(x, n, p);
    case Norm::powers:
      break;
  }
  return magnitudeOf<S, Norm::powers>(x, n, p);
}

template <class S, class T>
void scale(void* data, int64_t n, double factor) {
  S* x = static_cast<S*>(data);
  const T by = static_cast<T>(factor);
  for (int64_t i = 0; i < n; i++) x[i] = convert<S>(by * convert<T>(x[i]));
}

}  // namespace

const ClipTable clipTable = {{{magnitude<float>, scale<float, float>},
                              {magnitude<double>, scale<double, double>},
                              {magnitude<BFloat16>, scale<BFloat16, float>},
                              {magnitude<Float16>, scale<Float16, float>}}};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
