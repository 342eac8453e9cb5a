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

ADJOINT_INLINE bool lanesBelowOf(double, int64_t n) {
  return n > 0;
}
ADJOINT_INLINE Mask lanesBelowOf(float, int64_t n) {
  return lanesBelow(n);
}

// The vectors of a block's rows: those that every row sees whole, [0, full), and those up to `end`,
// of which a row sees some lanes. Loops over them are equally long in all rows, so that the
// processor foresees their ends.
template <class T>
struct RowVectors {
  static constexpr int64_t width = Lanes<T>::width;
  explicit RowVectors(const ScoreBlock<T>& b)
      : full(visibleIn(b, 0) / width * width), end((b.columns + width - 1) / width * width) {}
  int64_t full, end;
};

// The largest of scale s, whatever NaN there may be: a NaN makes the sum of the exponentials NaN.
// Four running maxima hide the latency of one.
template <class T>
ADJOINT_INLINE T scaledMaximum(const T* s, const RowVectors<T>& row, int64_t n, T scale) {
  using V = typename Lanes<T>::V;
  constexpr int64_t width = Lanes<T>::width;
  const V lowest(T(-HUGE_VALF));
  V m[4] = {lowest, lowest, lowest, lowest};
  int64_t j = 0;
  for (; j + 4 * width <= row.full; j += 4 * width) {
    for (int r = 0; r < 4; r++) {
      m[r] = largerOf(Lanes<T>::read(s + j + r * width) * V(scale), m[r]);
    }
  }
  for (; j < row.full; j += width) m[0] = largerOf(Lanes<T>::read(s + j) * V(scale), m[0]);
  for (; j < row.end; j += width) {
    const V x = Lanes<T>::read(s + j) * V(scale);
    m[1] = largerOf(select(lanesBelowOf(T(), n - j), x, lowest), m[1]);
  }
  const V most = largerOf(largerOf(m[0], m[1]), largerOf(m[2], m[3]));
  return Lanes<T>::fold(most, [](auto x, auto y) { return largerOf(x, y); });
}

// s = exp(scale s - shift) in the first n columns, 0 in the others; the sum of that
template <class T>
ADJOINT_INLINE double exponentials(T* s, const RowVectors<T>& row, int64_t n, T scale, T shift) {
  using V = typename Lanes<T>::V;
  constexpr int64_t width = Lanes<T>::width;
  const auto at = [&](int64_t j) { return expOrZero(Lanes<T>::read(s + j) * V(scale) - V(shift)); };
  V even(0), odd(0);
  int64_t j = 0;
  for (; j + 2 * width <= row.full; j += 2 * width) {
    const V p = at(j), q = at(j + width);
    Lanes<T>::write(s + j, p);
    Lanes<T>::write(s + j + width, q);
    even = even + p;
    odd = odd + q;
  }
  for (; j < row.end; j += width) {
    const V p = select(lanesBelowOf(T(), n - j), at(j), V(0));
    Lanes<T>::write(s + j, p);
    even = even + p;
  }
  return static_cast<double>(Lanes<T>::fold(even + odd, SumOf()));
}

template <class T>
void accumulate(const ScoreBlock<T>& b, T* m, double* l, T* o, int64_t oRow, int64_t width) {
  using V = typename Lanes<T>::V;
  const RowVectors<T> row(b);
  for (int64_t i = 0; i < b.rows; i++) {
    T* s = b.s + i * b.stride;
    const int64_t n = visibleIn(b, i);
    const T most = largerOf(scaledMaximum(s, row, n, b.scale), m[i]);
    // Where all is masked so far, exp(-inf - 0) is the 0 that exp(-inf + inf) is not.
    const T shift = most == T(-HUGE_VALF) ? T(0) : most;
    const double sum = exponentials(s, row, n, b.scale, shift);
    const T rescale = m[i] == most            ? T(1)
                      : m[i] == T(-HUGE_VALF) ? T(0)
                                              : Math<T>::exp(m[i] - shift);
    m[i] = most;
    l[i] = static_cast<double>(rescale) * l[i] + sum;
    if (!o || rescale == T(1)) continue;
    T* out = o + i * oRow;
    forEachLanes<T>(width, [&](int64_t j, int64_t rest) {
      put(out + j, get(out + j, rest, T(0)) * V(rescale), rest);
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
  constexpr int64_t width = Lanes<T>::width;
  const RowVectors<T> row(b);
  for (int64_t i = 0; i < b.rows; i++) {
    T *s = b.s + i * b.stride, *ds = dp + i * b.stride;
    const int64_t n = visibleIn(b, i);
    const V scale(b.scale), factor(gradScale), shift(lse[i]), mean(delta[i]);
    const auto weight = [&](int64_t j) { return expOrZero(Lanes<T>::read(s + j) * scale - shift); };
    const auto slope = [&](int64_t j, V p) { return p * (Lanes<T>::read(ds + j) - mean) * factor; };
    int64_t j = 0;
    for (; j < row.full; j += width) {
      const V p = weight(j);
      Lanes<T>::write(s + j, p);
      Lanes<T>::write(ds + j, slope(j, p));
    }
    for (; j < row.end; j += width) {
      const auto isSeen = lanesBelowOf(T(), n - j);
      const V p = weight(j);
      Lanes<T>::write(s + j, select(isSeen, p, V(0)));
      Lanes<T>::write(ds + j, select(isSeen, slope(j, p), V(0)));
    }
  }
}

template <class T>
constexpr AttentionKernels<T> kernelsOf() {
  return {applyMask<T>, accumulate<T>, finish<T>, rowDots<T>, backward<T>};
}

}  // namespace

const AttentionTable attentionTable = {kernelsOf<float>(), kernelsOf<double>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
