#include "cpu/kernels/layer_norm.h"

#include "cpu/kernels/lanes.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

#define ADJOINT_LAMBDA __attribute__((always_inline))

// Vectors of a row whose lanes are added up in T; the sums of such blocks are added in float64.
constexpr int64_t kBlockVectors = 128;
// Rows that share the loads of weight, dweight and dbias.
constexpr int kRowsAtOnce = 4;

// A vector of a row, or the first `count` elements of one and zeros: the end of the row.
template <class T>
ADJOINT_INLINE Vector<T> get(const T* p, int64_t count) {
  return count == kLanes<T> ? load(p) : loadPartial(p, count);
}
template <class T>
ADJOINT_INLINE void put(T* p, Vector<T> v, int64_t count) {
  if (count == kLanes<T>) {
    storeVector(p, v);
  } else {
    storePartial(p, v, count);
  }
}

// Calls body(at, count) for the vectors of [begin, end).
template <class T, class Body>
ADJOINT_INLINE void forEachVector(int64_t begin, int64_t end, Body body) {
  constexpr int64_t lanes = kLanes<T>;
  int64_t at = begin;
  for (; at + lanes <= end; at += lanes) body(at, lanes);
  if (at < end) body(at, end - at);
}

// The sum of part(at, count) over a row. Four running vectors hide the latency of an addition.
template <class T, class Part>
ADJOINT_INLINE double sumOfRow(int64_t length, Part part) {
  constexpr int64_t lanes = kLanes<T>;
  double total = 0;
  for (int64_t begin = 0; begin < length; begin += kBlockVectors * lanes) {
    const int64_t left = length - begin;
    const int64_t end = left < kBlockVectors * lanes ? length : begin + kBlockVectors * lanes;
    Vector<T> running[4] = {};
    int64_t at = begin;
    for (; at + 4 * lanes <= end; at += 4 * lanes) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++) running[k] += part(at + k * lanes, lanes);
    }
    forEachVector<T>(
        at, end, [&](int64_t i, int64_t count) ADJOINT_LAMBDA { running[0] += part(i, count); });
    total +=
        static_cast<double>(sumLanes<T>((running[0] + running[1]) + (running[2] + running[3])));
  }
  return total;
}

// 1 in the first `count` lanes, 0 in the others.
template <class T>
ADJOINT_INLINE Vector<T> firstOnes(int64_t count) {
  T lane[kLanes<T>];
  for (int64_t i = 0; i < kLanes<T>; i++) lane[i] = i < count ? T(1) : T(0);
  return load(lane);
}

template <class T, bool centred>
void forward(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, int64_t rows,
             int64_t length, double eps) {
  const auto n = static_cast<double>(length);
  for (int64_t row = 0; row < rows; row++, x += length, y += length) {
    T m = 0;
    if constexpr (centred) {
      m = static_cast<T>(sumOfRow<T>(length, [&](int64_t at, int64_t count)
                                                 ADJOINT_LAMBDA { return get(x + at, count); }) /
                         n);
      mean[row] = m;
    }
    const Vector<T> centre = splat(m);
    const double squares = sumOfRow<T>(length, [&](int64_t at, int64_t count) ADJOINT_LAMBDA {
      Vector<T> d = get(x + at, count) - centre;
      if (count != kLanes<T>) d *= firstOnes<T>(count);
      return d * d;
    });
    const T r = static_cast<T>(1 / squareRoot(squares / n + eps));
    rstd[row] = r;
    forEachVector<T>(0, length, [&](int64_t at, int64_t count) ADJOINT_LAMBDA {
      Vector<T> v = (get(x + at, count) - centre) * r * get(weight + at, count);
      if constexpr (centred) v += get(bias + at, count);
      put(y + at, v, count);
    });
  }
}

// R rows of the gradient.
template <class T, bool centred, int R>
ADJOINT_INLINE void backwardRows(T* dx, T* dweight, T* dbias, const T* dy, const T* x,
                                 const T* weight, const T* mean, const T* rstd, int64_t length) {
  constexpr int64_t block = kBlockVectors * kLanes<T>;
  T m[R], r[R];
  double sumG[R] = {}, sumGX[R] = {};
  for (int k = 0; k < R; k++) {
    m[k] = centred ? mean[k] : T(0);
    r[k] = rstd[k];
  }
  for (int64_t begin = 0; begin < length; begin += block) {
    const int64_t end = length - begin < block ? length : begin + block;
    Vector<T> g[R] = {}, gx[R] = {};
    forEachVector<T>(begin, end, [&](int64_t at, int64_t count) ADJOINT_LAMBDA {
      const Vector<T> w = get(weight + at, count);
      Vector<T> dw = get(dweight + at, count), db = {};
      if constexpr (centred) db = get(dbias + at, count);
#pragma GCC unroll 4
      for (int k = 0; k < R; k++) {
        const Vector<T> d = get(dy + k * length + at, count);
        const Vector<T> xhat = (get(x + k * length + at, count) - m[k]) * r[k];
        dw += d * xhat;
        if constexpr (centred) {
          db += d;
          g[k] += d * w;
        }
        gx[k] += d * w * xhat;
      }
      put(dweight + at, dw, count);
      if constexpr (centred) put(dbias + at, db, count);
    });
    for (int k = 0; k < R; k++) {
      if constexpr (centred) sumG[k] += static_cast<double>(sumLanes<T>(g[k]));
      sumGX[k] += static_cast<double>(sumLanes<T>(gx[k]));
    }
  }
  for (int k = 0; k < R; k++) {
    const auto offset = static_cast<T>(sumG[k] / static_cast<double>(length));
    const auto slope = static_cast<T>(sumGX[k] / static_cast<double>(length));
    forEachVector<T>(0, length, [&](int64_t at, int64_t count) ADJOINT_LAMBDA {
      const Vector<T> xhat = (get(x + k * length + at, count) - m[k]) * r[k];
      const Vector<T> g = get(dy + k * length + at, count) * get(weight + at, count);
      put(dx + k * length + at, r[k] * (g - offset - xhat * slope), count);
    });
  }
}

template <class T, bool centred>
void backward(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean,
              const T* rstd, int64_t rows, int64_t length) {
  int64_t row = 0;
  for (; row + kRowsAtOnce <= rows; row += kRowsAtOnce) {
    const int64_t at = row * length;
    backwardRows<T, centred, kRowsAtOnce>(dx + at, dweight, dbias, dy + at, x + at, weight,
                                          mean + row, rstd + row, length);
  }
  for (; row < rows; row++) {
    const int64_t at = row * length;
    backwardRows<T, centred, 1>(dx + at, dweight, dbias, dy + at, x + at, weight, mean + row,
                                rstd + row, length);
  }
}

}  // namespace

const LayerNormTable layerNormTable = {{forward<float, true>, backward<float, true>},
                                       {forward<float, false>, backward<float, false>},
                                       {forward<double, true>, backward<double, true>},
                                       {forward<double, false>, backward<double, false>}};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
