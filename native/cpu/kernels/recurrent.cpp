#include "cpu/kernels/recurrent.h"

#include "cpu/kernels/vec_elements.h"

// Inlined, a lambda knows whether it has all lanes.
#define ADJOINT_LAMBDA __attribute__((always_inline))

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

template <class V, class S>
ADJOINT_INLINE V getOrZero(const S* p, int64_t at, int64_t rest) {
  return p ? V(get(p + at, rest)) : V(0);
}
template <class V, class T>
ADJOINT_INLINE V sumOf(const StateSums<T>& s, int64_t gate, int64_t row, int64_t at, int64_t rest) {
  if (!s.at) return V(0);
  const int64_t place = gate * s.gate + at / kSumsBlock * s.block + row * s.row + at % kSumsBlock;
  return get(s.at + place, rest);
}
// x to where it goes, and to where the product wants it.
template <class V, class S>
ADJOINT_INLINE void put(S* p, const StateRows<S>& state, int64_t gate, int64_t row, int64_t at, V x,
                        int64_t rest) {
  put(p, x, rest);
  if (state.at) put(state.at + row * state.row + gate * state.gate + at, x, rest);
}
template <class V, class T>
ADJOINT_INLINE void addTo(T* sum, V x, int64_t rest) {
  put(sum, get(sum, rest) + x, rest);
}

// Steps come from beyond the caches, row after row in several places at once, which the processor
// does not foresee: the same place of the next row is asked for in time.
template <class T>
ADJOINT_INLINE void prefetchRead(const T* p, int64_t size) {
  __builtin_prefetch(p + size, 0);
}
template <class T>
ADJOINT_INLINE void prefetchWritten(T* p, int64_t size) {
  __builtin_prefetch(p + size, 1);
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

template <class T, class S>
void lstm(const LstmStep<T, S>& step) {
  const LstmStep<T, S> s = step;  // its fields stay in registers: no store may change a local
  using V = decltype(zeroOf(s.c));
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) ADJOINT_LAMBDA {
    T* gates = s.gates + row * 4 * size + at;
#pragma GCC unroll 4
    for (int64_t b = 0; b < 4; b++) prefetchWritten(gates + b * size, 4 * size);
    const int64_t place = row * size + at;
    const auto gate = [&](int64_t b) {
      return get(gates + b * size, rest) + sumOf<V>(s.sums, b, row, at, rest);
    };
    V i, f, g, o, t;
    divide(sigmoidQuotient(gate(0)), sigmoidQuotient(gate(1)), tanhQuotient(gate(2)), i, f, g);
    const V c = f * getOrZero<V>(s.cPrevious, place, rest) + i * g;
    divide(sigmoidQuotient(gate(3)), tanhQuotient(c), o, t);
    put(gates, i, rest);
    put(gates + size, f, rest);
    put(gates + 2 * size, g, rest);
    put(gates + 3 * size, o, rest);
    put(s.c + place, c, rest);
    put(s.h + place, s.state, 0, row, at, o * t, rest);
  });
}

// With h = o t, t = tanh(c): dc += dh o (1 - t^2); di = dc g, df = dc cPrevious, dg = dc i,
// do = dh t; the derivatives of the activations are i (1 - i) and 1 - g^2.
template <class T, class S>
void lstmBackward(const LstmStepBackward<T, S>& step) {
  const LstmStepBackward<T, S> s =
      step;  // its fields stay in registers: no store may change a local
  using V = decltype(zeroOf(s.c));
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) ADJOINT_LAMBDA {
    const T* gates = s.gates + row * 4 * size + at;
    S* dgates = s.dgates + row * 4 * size + at;
    const int64_t place = row * size + at;
#pragma GCC unroll 4
    for (int64_t b = 0; b < 4; b++) {
      prefetchRead(gates + b * size, 4 * size);
      prefetchWritten(dgates + b * size, 4 * size);
    }
    prefetchRead(s.c + place, size);
    if (s.cPrevious) prefetchRead(s.cPrevious + place, size);
    if (s.dy) prefetchRead(s.dy + row * s.dyRow + at, s.dyRow);
    const auto i = get(gates, rest), f = get(gates + size, rest);
    const auto g = get(gates + 2 * size, rest), o = get(gates + 3 * size, rest);
    const Quotient<V> ofC = tanhQuotient(get(s.c + place, rest));
    const V t = ofC.over / ofC.under;
    const V dh = sumOf<V>(s.dh, 0, row, at, rest) + getOrZero<V>(s.dy, row * s.dyRow + at, rest);
    const V dho = dh * o;
    const V dc = get(s.dc + place, rest) + (dho - dho * t * t);
    const V di = dc * g * i, dg = dc * i, dout = dho * t;
    const V df = dc * getOrZero<V>(s.cPrevious, place, rest) * f;
    const auto putGate = [&](int64_t b, V x) {
      put(dgates + b * size, s.state, b, row, at, x, rest);
      addTo(s.dbias + b * size + at, x, rest);
    };
    putGate(0, di - di * i);
    putGate(1, df - df * f);
    putGate(2, dg - dg * g * g);
    putGate(3, dout - dout * o);
    put(s.dc + place, dc * f, rest);
  });
}

template <class T, class S>
void gru(const GruStep<T, S>& step) {
  const GruStep<T, S> s = step;  // its fields stay in registers: no store may change a local
  using V = decltype(zeroOf(s.gates));
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) ADJOINT_LAMBDA {
    T* gates = s.gates + row * 4 * size + at;
#pragma GCC unroll 4
    for (int64_t b = 0; b < 4; b++) prefetchWritten(gates + b * size, 4 * size);
    const int64_t place = row * size + at;
    const auto sum = [&](int64_t b) { return sumOf<V>(s.sums, b, row, at, rest); };
    const Quotient<V> ofR = sigmoidQuotient(get(gates + size, rest) + sum(0));
    const V r = ofR.over / ofR.under, m = getOrZero<V>(s.bias, at, rest) + sum(2);
    V z, n;
    divide(sigmoidQuotient(get(gates + 2 * size, rest) + sum(1)),
           tanhQuotient(get(gates, rest) + r * m), z, n);
    put(gates, n, rest);
    put(gates + size, r, rest);
    put(gates + 2 * size, z, rest);
    put(gates + 3 * size, m, rest);
    const V h = n + z * (getOrZero<V>(s.hPrevious, place, rest) - n);
    put(s.h + place, s.state, 0, row, at, h, rest);
  });
}

// With a = the sum within tanh: dn = dh (1 - z), da = dn (1 - n^2), dm = da r, dr = da m,
// dz = dh (hPrevious - n).
template <class T, class S>
void gruBackward(const GruStepBackward<T, S>& step) {
  const GruStepBackward<T, S> s =
      step;  // its fields stay in registers: no store may change a local
  using V = decltype(zeroOf(s.gates));
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) ADJOINT_LAMBDA {
    const T* gates = s.gates + row * 4 * size + at;
    S* dgates = s.dgates + row * 4 * size + at;
    const int64_t place = row * size + at;
#pragma GCC unroll 4
    for (int64_t b = 0; b < 4; b++) {
      prefetchRead(gates + b * size, 4 * size);
      prefetchWritten(dgates + b * size, 4 * size);
    }
    if (s.hPrevious) prefetchRead(s.hPrevious + place, size);
    if (s.dy) prefetchRead(s.dy + row * s.dyRow + at, s.dyRow);
    const V n = get(gates, rest), r = get(gates + size, rest);
    const V z = get(gates + 2 * size, rest), m = get(gates + 3 * size, rest);
    const V dh = get(s.dhDirect + place, rest) + sumOf<V>(s.dh, 0, row, at, rest) +
                 getOrZero<V>(s.dy, row * s.dyRow + at, rest);
    const V dhz = dh * z, dn = dh - dhz;
    const V da = dn - dn * n * n, dar = da * r;
    const V dr = dar * m;
    const V dz = dhz * (getOrZero<V>(s.hPrevious, place, rest) - n);
    put(dgates, da, rest);
    addTo(s.dbias + at, da, rest);
    const auto putGate = [&](int64_t b, V x) {
      put(dgates + b * size, s.state, b - 1, row, at, x, rest);
      addTo(s.dbias + b * size + at, x, rest);
    };
    putGate(1, dr - dr * r);
    putGate(2, dz - dz * z);
    putGate(3, dar);
    put(s.dhDirect + place, dhz, rest);
  });
}

template <class T, class S>
constexpr RecurrentKernels<T, S> kernelsOf() {
  return {lstm<T, S>, lstmBackward<T, S>, gru<T, S>, gruBackward<T, S>};
}

}  // namespace

const RecurrentTable recurrentTable = {kernelsOf<float, float>(), kernelsOf<double, double>(),
                                       kernelsOf<float, BFloat16>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
