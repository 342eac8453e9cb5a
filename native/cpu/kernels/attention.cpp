#include "cpu/kernels/attention.h"

#include "cpu/kernels/row.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

template <class T>
ADJOINT_INLINE int64_t visibleIn(const ScoreBlock<T>& b, int64_t row) {
  const int64_t n = b.visible + row;
  return n < 0 ? 0 : n < b.columns ? n : b.columns;
}

template <class T>
void applyMask(const ScoreBlock<T>& b, const MaskBlock& mask) {
  for (int64_t i = 0; i < b.rows; i++) {
    T* s = b.s + i * b.stride;
    const int64_t n = visibleIn(b, i);
    if (mask.isBoolean) {
      const uint8_t* row = static_cast<const uint8_t*>(mask.data) + i * mask.row;
      for (int64_t j = 0; j < n; j++) s[j] = row[j * mask.column] ? b.scale * s[j] : -HUGE_VALF;
    } else {
      const T* row = static_cast<const T*>(mask.data) + i * mask.row;
      for (int64_t j = 0; j < n; j++) s[j] = b.scale * s[j] + row[j * mask.column];
    }
  }
}

template <class V>
ADJOINT_INLINE V largerOf(V a, V b) {
  return select(a > b, a, b);
}

// The largest of scale s, whatever NaN there may be: a NaN makes the sum of the exponentials NaN.
// Four running maxima hide the latency of one.
template <class T>
ADJOINT_INLINE T scaledMaximum(const T* s, int64_t n, T scale) {
  using V = typename Lanes<T>::V;
  constexpr int64_t width = Lanes<T>::width;
  // What fills the last vector is one of the row.
  const auto scaled = [&](int64_t j, int64_t rest) { return get(s + j, rest, s[0]) * V(scale); };
  const V lowest(T(-HUGE_VALF));
  V m[4] = {lowest, lowest, lowest, lowest};
  int64_t j = 0;
  for (; j + 4 * width <= n; j += 4 * width) {
    for (int r = 0; r < 4; r++) m[r] = largerOf(scaled(j + r * width, width), m[r]);
  }
  forEachLanes<T>(n - j,
                  [&](int64_t i, int64_t rest) { m[0] = largerOf(scaled(j + i, rest), m[0]); });
  const V most = largerOf(largerOf(m[0], m[1]), largerOf(m[2], m[3]));
  return Lanes<T>::fold(most, [](auto x, auto y) { return largerOf(x, y); });
}

// s = exp(scale s - shift); the sum of that
template <class T>
ADJOINT_INLINE double exponentials(T* s, int64_t n, T scale, T shift) {
  using V = typename Lanes<T>::V;
  return sumOfRow<T>(n, [&](int64_t j, int64_t rest) {
    const V p = expOrZero(get(s + j, rest, T(0)) * V(scale) - V(shift));
    put(s + j, p, rest);
    return rest == Lanes<T>::width ? p : get(s + j, rest, T(0));
  });
}

template <class T>
ADJOINT_INLINE void clear(T* s, int64_t begin, int64_t end) {
  using V = typename Lanes<T>::V;
  forEachLanes<T>(end - begin, [&](int64_t j, int64_t rest) { put(s + begin + j, V(0), rest); });
}

template <class T>
void accumulate(const ScoreBlock<T>& b, T* m, double* l, T* o, int64_t oRow, int64_t width) {
  using V = typename Lanes<T>::V;
  for (int64_t i = 0; i < b.rows; i++) {
    T* s = b.s + i * b.stride;
    const int64_t n = visibleIn(b, i);
    clear(s, n, b.columns);
    if (n == 0) continue;
    const T most = largerOf(scaledMaximum(s, n, b.scale), m[i]);
    // Where all is masked so far, exp(-inf - 0) is the 0 that exp(-inf + inf) is not.
    const T shift = most == T(-HUGE_VALF) ? T(0) : most;
    const double sum = exponentials(s, n, b.scale, shift);
    const T rescale = m[i] == most ? T(1) : Math<T>::exp(m[i] - shift);
    m[i] = most;
    l[i] = static_cast<double>(rescale) * l[i] + sum;
    if (!o || rescale == T(1)) continue;
    T* row = o + i * oRow;
    forEachLanes<T>(width, [&](int64_t j, int64_t rest) {
      put(row + j, get(row + j, rest, T(0)) * V(rescale), rest);
    });
  }
}

template <class T>
void finish(T* o, int64_t oRow, int64_t rows, int64_t width, const T* m, const double* l, T* lse) {
  using V = typename Lanes<T>::V;
  for (int64_t i = 0; i < rows; i++) {
    const bool isEmpty = l[i] == 0;
    lse[i] = isEmpty ? T(HUGE_VALF) : static_cast<T>(static_cast<double>(m[i]) + ::log(l[i]));
    const V factor(isEmpty ? T(0) : static_cast<T>(1 / l[i]));
    T* row = o + i * oRow;
    forEachLanes<T>(width, [&](int64_t j, int64_t rest) {
      put(row + j, get(row + j, rest, T(0)) * factor, rest);
    });
  }
}

template <class T>
void rowDots(T* delta, const T* dy, int64_t dyRow, int64_t dyColumn, const T* y, int64_t yRow,
             int64_t yColumn, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i++, dy += dyRow, y += yRow) {
    double sum = 0;
    if (dyColumn == 1 && yColumn == 1) {
      sum = sumOfRow<T>(width, [&](int64_t j, int64_t rest) {
        return get(dy + j, rest, T(0)) * get(y + j, rest, T(0));
      });
    } else {
      for (int64_t j = 0; j < width; j++) {
        sum += static_cast<double>(dy[j * dyColumn]) * static_cast<double>(y[j * yColumn]);
      }
    }
    delta[i] = static_cast<T>(sum);
  }
}

template <class T>
void backward(const ScoreBlock<T>& b, T* dp, T gradScale, const T* lse, const T* delta) {
  using V = typename Lanes<T>::V;
  for (int64_t i = 0; i < b.rows; i++) {
    T *s = b.s + i * b.stride, *ds = dp + i * b.stride;
    const int64_t n = visibleIn(b, i);
    const V scale(b.scale), factor(gradScale), shift(lse[i]), mean(delta[i]);
    forEachLanes<T>(n, [&](int64_t j, int64_t rest) {
      const V p = expOrZero(get(s + j, rest, T(0)) * scale - shift);
      put(s + j, p, rest);
      put(ds + j, p * (get(ds + j, rest, T(0)) - mean) * factor, rest);
    });
    clear(s, n, b.columns);
    clear(ds, n, b.columns);
  }
}

template <class T>
constexpr AttentionKernels<T> kernelsOf() {
  return {applyMask<T>, accumulate<T>, finish<T>, rowDots<T>, backward<T>};
}

}  // namespace

const AttentionTable attentionTable = {kernelsOf<float>(), kernelsOf<double>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
