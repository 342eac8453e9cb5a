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

template <class V>
ADJOINT_INLINE V tanhOfGate(V x) {
  return Math<V>::tanh(x);
}

template <class T>
void lstm(const LstmStep<T>& s) {
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) {
    T* gates = s.gates + row * 4 * size + at;
    const int64_t place = row * size + at;
    const auto i = sigmoidOf(get(gates, rest)), f = sigmoidOf(get(gates + size, rest));
    const auto g = tanhOfGate(get(gates + 2 * size, rest));
    const auto o = sigmoidOf(get(gates + 3 * size, rest));
    const auto c = f * getOrZero(s.cPrevious, place, rest) + i * g;
    put(gates, i, rest);
    put(gates + size, f, rest);
    put(gates + 2 * size, g, rest);
    put(gates + 3 * size, o, rest);
    put(s.c + place, c, rest);
    put(s.h + place, o * tanhOfGate(c), rest);
  });
}

// With h = o t, t = tanh(c): dc += dh o (1 - t^2); di = dc g, df = dc cPrevious, dg = dc i,
// do = dh t; the derivatives of the activations are i (1 - i) and 1 - g^2.
template <class T>
void lstmBackward(const LstmStepBackward<T>& s) {
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) {
    const T* gates = s.gates + row * 4 * size + at;
    T* dgates = s.dgates + row * 4 * size + at;
    const int64_t place = row * size + at;
    const auto i = get(gates, rest), f = get(gates + size, rest);
    const auto g = get(gates + 2 * size, rest), o = get(gates + 3 * size, rest);
    const auto t = tanhOfGate(get(s.c + place, rest));
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
  const int64_t size = s.size;
  forEachLanes<T>(s.rows, size, [&](int64_t row, int64_t at, int64_t rest) {
    T* gates = s.gates + row * 4 * size + at;
    const int64_t place = row * size + at;
    const auto r = sigmoidOf(get(gates + size, rest)), z = sigmoidOf(get(gates + 2 * size, rest));
    const auto n = tanhOfGate(get(gates, rest) + r * get(gates + 3 * size, rest));
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
