#include "cpu/kernels/recurrent.h"

#include "cpu/kernels/vec_math.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// Elements of a row as vectors (float) or one by one (double); `rest` lanes of the last one count.
ADJOINT_INLINE Vec get(const float* p, int64_t rest) {
  return rest == kLanes ? load(p) : loadPartial(p, rest);
}
ADJOINT_INLINE void put(float* p, Vec x, int64_t rest) {
  if (rest == kLanes) {
    store(p, x);
  } else {
    storePartial(p, x, rest);
  }
}
ADJOINT_INLINE double get(const double* p, int64_t) {
  return *p;
}
ADJOINT_INLINE void put(double* p, double x, int64_t) {
  *p = x;
}
ADJOINT_INLINE Vec zeroOf(const float*) {
  return Vec(0);
}
ADJOINT_INLINE double zeroOf(const double*) {
  return 0;
}
template <class T>
ADJOINT_INLINE auto getOrZero(const T* p, int64_t at, int64_t rest) {
  return p ? get(p + at, rest) : zeroOf(p);
}

// Calls f(row, at, rest) for each vector of each row.
template <class T, class F>
ADJOINT_INLINE void forEachLanes(int64_t rows, int64_t size, F f) {
  constexpr int64_t width = sizeof(T) == sizeof(float) ? kLanes : 1;
  for (int64_t row = 0; row < rows; row++) {
    int64_t at = 0;
    for (; at + width <= size; at += width) f(row, at, width);
    if constexpr (width > 1) {
      if (at < size) f(row, at, size - at);
    }
  }
}

// A quotient that is not divided yet. Denominators of activations lie in [1, 2], so that several
// quotients can share one division, which costs as much as all else of an activation.
template <class V>
struct Quotient {
  V over, under;
};

#if !defined(ADJOINT_LEVEL_SCALAR)
ADJOINT_INLINE Vec expOfNegative(Vec x) {
  return expOrZero(x);
}
#else
ADJOINT_INLINE float expOfNegative(float x) {
  return Math<float>::exp(x);
}
#endif
ADJOINT_INLINE double expOfNegative(double x) {
  return Math<double>::exp(x);
}

// sigmoid(x) = 1 / (1 + z) or z / (1 + z), z = e^-|x|
template <class V>
ADJOINT_INLINE Quotient<V> sigmoidQuotient(V x) {
  const V z = expOfNegative(-Math<V>::abs(x));
  return {select(x >= V(0), V(1), z), V(1) + z};
}
// tanh |x| = -e / (2 + e), e = e^-2|x| - 1
template <class V>
ADJOINT_INLINE Quotient<V> tanhQuotient(V x) {
  const V e = Math<V>::expm1(V(-2) * Math<V>::abs(x));
  return {Math<V>::copysign(e, x), V(2) + e};
}
// Both quotients at once. A NaN in one is a NaN in the other, so they share only where either
// makes the result NaN.
template <class V>
ADJOINT_INLINE void divide(Quotient<V> a, Quotient<V> b, V& x, V& y) {
  const V inverse = V(1) / (a.under * b.under);
  x = a.over * (inverse * b.under);
  y = b.over * (inverse * a.under);
}
template <class V>
ADJOINT_INLINE void divide(Quotient<V> a, Quotient<V> b, Quotient<V> c, V& x, V& y, V& z) {
  const V ab = a.under * b.under;
  const V inverse = V(1) / (ab * c.under), rest = inverse * c.under;
  x = a.over * (rest * b.under);
  y = b.over * (rest * a.under);
  z = c.over * (inverse * ab);
}

template <class T>
void lstm(const LstmStep<T>& s) {
  using V = decltype(zeroOf(s.c));
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) {
    T* gates = s.gates + row * 4 * size + at;
    const int64_t place = row * size + at;
    V i, f, g, o, t;
    divide(sigmoidQuotient(get(gates, rest)), sigmoidQuotient(get(gates + size, rest)),
           tanhQuotient(get(gates + 2 * size, rest)), i, f, g);
    const V c = f * getOrZero(s.cPrevious, place, rest) + i * g;
    divide(sigmoidQuotient(get(gates + 3 * size, rest)), tanhQuotient(c), o, t);
    put(gates, i, rest);
    put(gates + size, f, rest);
    put(gates + 2 * size, g, rest);
    put(gates + 3 * size, o, rest);
    put(s.c + place, c, rest);
    put(s.h + place, o * t, rest);
  });
}

// With h = o t, t = tanh(c): dc += dh o (1 - t^2); di = dc g, df = dc cPrevious, dg = dc i,
// do = dh t; the derivatives of the activations are i (1 - i) and 1 - g^2.
template <class T>
void lstmBackward(const LstmStepBackward<T>& s) {
  using V = decltype(zeroOf(s.c));
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) {
    const T* gates = s.gates + row * 4 * size + at;
    T* dgates = s.dgates + row * 4 * size + at;
    const int64_t place = row * size + at;
    const auto i = get(gates, rest), f = get(gates + size, rest);
    const auto g = get(gates + 2 * size, rest), o = get(gates + 3 * size, rest);
    const Quotient<V> ofC = tanhQuotient(get(s.c + place, rest));
    const V t = ofC.over / ofC.under;
    const auto dh = get(s.dh + place, rest) + getOrZero(s.dy, row * s.dyRow + at, rest);
    const auto dho = dh * o;
    const auto dc = get(s.dc + place, rest) + (dho - dho * t * t);
    const auto di = dc * g * i, dg = dc * i, dout = dho * t;
    const auto df = dc * getOrZero(s.cPrevious, place, rest) * f;
    put(dgates, di - di * i, rest);
    put(dgates + size, df - df * f, rest);
    put(dgates + 2 * size, dg - dg * g * g, rest);
    put(dgates + 3 * size, dout - dout * o, rest);
    put(s.dc + place, dc * f, rest);
  });
}

template <class T>
void gru(const GruStep<T>& s) {
  using V = decltype(zeroOf(s.h));
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) {
    T* gates = s.gates + row * 4 * size + at;
    const int64_t place = row * size + at;
    const Quotient<V> ofR = sigmoidQuotient(get(gates + size, rest));
    const V r = ofR.over / ofR.under;
    V z, n;
    divide(sigmoidQuotient(get(gates + 2 * size, rest)),
           tanhQuotient(get(gates, rest) + r * get(gates + 3 * size, rest)), z, n);
    put(gates, n, rest);
    put(gates + size, r, rest);
    put(gates + 2 * size, z, rest);
    put(s.h + place, n + z * (getOrZero(s.hPrevious, place, rest) - n), rest);
  });
}

// With a = the sum within tanh: dn = dh (1 - z), da = dn (1 - n^2), dm = da r, dr = da m,
// dz = dh (hPrevious - n).
template <class T>
void gruBackward(const GruStepBackward<T>& s) {
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) {
    const T* gates = s.gates + row * 4 * size + at;
    T* dgates = s.dgates + row * 4 * size + at;
    const int64_t place = row * size + at;
    const auto n = get(gates, rest), r = get(gates + size, rest);
    const auto z = get(gates + 2 * size, rest), m = get(gates + 3 * size, rest);
    const auto dh = get(s.dh + place, rest) + getOrZero(s.dy, row * s.dyRow + at, rest);
    const auto dhz = dh * z, dn = dh - dhz;
    const auto da = dn - dn * n * n, dar = da * r;
    const auto dr = dar * m;
    const auto dz = dhz * (getOrZero(s.hPrevious, place, rest) - n);
    put(dgates, da, rest);
    put(dgates + size, dr - dr * r, rest);
    put(dgates + 2 * size, dz - dz * z, rest);
    put(dgates + 3 * size, dar, rest);
    put(s.dh + place, dhz, rest);
  });
}

template <class T>
constexpr RecurrentKernels<T> kernelsOf() {
  return {lstm<T>, lstmBackward<T>, gru<T>, gruBackward<T>};
}

}  // namespace

const RecurrentTable recurrentTable = {kernelsOf<float>(), kernelsOf<double>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
