#include "cpu/kernels/gemm.h"

#include "cpu/kernels/gemm_pack.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// The largest tile keeps rows x 2 accumulators, two vectors of B and one of A in the registers.
#if defined(ADJOINT_LEVEL_AVX512)
constexpr int kRows = 14;
#elif defined(ADJOINT_LEVEL_AVX2)
constexpr int kRows = 6;
#elif defined(ADJOINT_LEVEL_NEON)
constexpr int kRows = 12;
#else
constexpr int kRows = 4;
#endif
constexpr int kVectors = 2;
constexpr int kIntegerRows = 4;

// Asks for the cache lines of some runs, one after the other.
template <class T>
class Ahead {
 public:
  Ahead(const Runs<T>& first, const Runs<T>& second)
      : second_(second), lines_(linesOf(first) + linesOf(second)) {
    start(linesOf(first) > 0 ? first : second);
  }

  int64_t lines() const { return lines_; }

  ADJOINT_INLINE void fetch() {
    __builtin_prefetch(at_, 0, 2);
    at_ += kLine;
    if (at_ < end_) return;
    at_ += gap_;
    end_ += stride_;
    if (--runs_ == 0) start(second_);
  }

 private:
  static constexpr int64_t kLine = 64;
  static int64_t bytesOf(const Runs<T>& runs) {
    return (runs.size * int64_t{sizeof(T)} + kLine - 1) / kLine * kLine;
  }
  static int64_t linesOf(const Runs<T>& runs) { return runs.count * bytesOf(runs) / kLine; }

  void start(const Runs<T>& runs) {
    at_ = reinterpret_cast<const char*>(runs.from);
    end_ = at_ + bytesOf(runs);
    stride_ = runs.stride * int64_t{sizeof(T)};
    gap_ = stride_ - bytesOf(runs);
    runs_ = runs.count;
  }
  const Runs<T> second_;
  const int64_t lines_;
  const char *at_, *end_;  // of the run at hand
  int64_t gap_, stride_, runs_;
};

// Runs of `all` for part i of `parts`.
template <class T>
Runs<T> partOf(const Runs<T>& all, int64_t i, int64_t parts) {
  const int64_t begin = all.count * i / parts, end = all.count * (i + 1) / parts;
  return {all.from + begin * all.stride, end - begin, all.size, all.stride};
}

// Where the sums of a tile go.
template <class T>
struct Target {
  T* at;
  int64_t row;
};

// Calls step() k times. Beside the first R steps it asks for a row of c each, which is wanted when
// the sums are ready; then, evenly between whole steps, for up to `count` lines of what is ahead.
// Where there is nothing to fetch, the loop is not burdened with it.
template <class T, int R, int V, class F>
ADJOINT_INLINE void interleave(int64_t k, const Target<T>& c, Ahead<T>& ahead, int64_t count,
                               const F& step) {
  const T* row = c.at;
  for (int r = 0; r < R && k > 0; r++, k--, row += c.row) {
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) __builtin_prefetch(row + v * kLanes<T>, 1);
    step();
  }
  if (count == 0) {
    for (; k > 0; k--) step();
    return;
  }
  const int64_t every = (k + count - 1) / count;
  while (k > 0) {
    ahead.fetch();
    const int64_t steps = k < every ? k : every;
    for (int64_t i = steps; i > 0; i--) step();
    k -= steps;
  }
}

// Steps from the second cache to the first, which holds no panel whose rows lie far apart.
constexpr int64_t kStepsAhead = 8;

// A step's vectors of b.
template <class T, int V>
ADJOINT_INLINE void loadStep(Vector<T> (&bv)[V], const T* b, int64_t bRow) {
#pragma GCC unroll 2
  for (int v = 0; v < V; v++) {
    __builtin_prefetch(b + kStepsAhead * bRow + v * kLanes<T>);
    bv[v] = load(b + v * kLanes<T>);
  }
}

// sum [R, V lanes] += a [R, k] b [k, V lanes]
template <class T, int R, int V>
ADJOINT_INLINE void accumulate(Vector<T> (&sum)[R][V], int64_t k, const T* a, int64_t aRow,
                               int64_t aK, const T* b, int64_t bRow, const Target<T>& c,
                               Ahead<T>& ahead, int64_t count) {
  // Every third row has a pointer; the others are one or two strides (an addressing mode) away.
  constexpr int groups = (R + 2) / 3;
  const T* row[groups];
#pragma GCC unroll 8
  for (int g = 0; g < groups; g++) row[g] = a + 3 * g * aRow;
  interleave<T, R, V>(
      k, c, ahead, count, [&]() __attribute__((always_inline)) {
        Vector<T> bv[V];
        loadStep<T, V>(bv, b, bRow);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
          const T x = row[r / 3][r % 3 * aRow];
#pragma GCC unroll 2
          for (int v = 0; v < V; v++) sum[r][v] += x * bv[v];
        }
#pragma GCC unroll 8
        for (int g = 0; g < groups; g++) row[g] += aK;
        b += bRow;
      });
}

// The same for rows that lie side by side: one pointer does, which leaves ports to the products.
template <class T, int R, int V>
ADJOINT_INLINE void accumulatePacked(Vector<T> (&sum)[R][V], int64_t k, const T* a, int64_t aK,
                                     const T* b, int64_t bRow, const Target<T>& c, Ahead<T>& ahead,
                                     int64_t count) {
  interleave<T, R, V>(
      k, c, ahead, count, [&]() __attribute__((always_inline)) {
        Vector<T> bv[V];
        loadStep<T, V>(bv, b, bRow);
        __builtin_prefetch(a + kStepsAhead * aK);
        __builtin_prefetch(a + kStepsAhead * aK + R - 1);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
          for (int v = 0; v < V; v++) sum[r][v] += a[r] * bv[v];
        }
        a += aK;
        b += bRow;
      });
}

// What a rectified element is at least; of others, a number below all. (Integers are never
// rectified: as they come, without a sign, they are all at least 0.)
template <class T>
ADJOINT_INLINE T leastOf(bool rectify) {
  return rectify ? T(0) : static_cast<T>(-__builtin_inf());
}
template <>
ADJOINT_INLINE uint64_t leastOf(bool) {
  return 0;
}
// A NaN stays one.
template <class T>
ADJOINT_INLINE Vector<T> atLeast(Vector<T> x, Vector<T> low) {
  return x <= low ? low : x;
}

// c [R, V lanes] = max(a [R, k] b [k, V lanes] + init, least)
template <class T, int R, int V>
void tile(int64_t k, const T* a, int64_t aRow, int64_t aK, const T* b, int64_t bRow, T* c,
          int64_t cRow, const T* init, int64_t initRow, int64_t run, T least, Ahead<T>& ahead,
          int64_t count) {
  for (;;) {
    const int64_t steps = k < run ? k : run;
    const int64_t now = k <= steps || count == 0 ? count : count * steps / k;
    count -= now;
    Vector<T> sum[R][V] = {};
    const Target<T> target = {c, cRow};
    if (aRow == 1) {
      accumulatePacked<T, R, V>(sum, steps, a, aK, b, bRow, target, ahead, now);
    } else {
      accumulate<T, R, V>(sum, steps, a, aRow, aK, b, bRow, target, ahead, now);
    }
    const Vector<T> low = splat(k > steps ? leastOf<T>(false) : least);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) {
        const int at = v * kLanes<T>;
        const Vector<T> x = sum[r][v] + load(init + r * initRow + at);
        storeVector(c + r * cRow + at, atLeast<T>(x, low));
      }
    }
    k -= steps;
    if (k <= 0) return;
    a += steps * aK;
    b += steps * bRow;
    init = c;
    initRow = cRow;
  }
}

template <class T>
using TileFunction = void (*)(int64_t, const T*, int64_t, int64_t, const T*, int64_t, T*, int64_t,
                              const T*, int64_t, int64_t, T, Ahead<T>&, int64_t);

template <class T, int... R>
struct TileRow {
  static constexpr TileFunction<T> byRows[kVectors][sizeof...(R)] = {{tile<T, R, 1>...},
                                                                     {tile<T, R, 2>...}};
};

template <class T>
struct Tiles : TileRow<T, 1, 2, 3, 4
#if !defined(ADJOINT_LEVEL_SCALAR)
                       ,
                       5, 6
#if !defined(ADJOINT_LEVEL_AVX2)
                       ,
                       7, 8, 9, 10, 11, 12
#if !defined(ADJOINT_LEVEL_NEON)
                       ,
                       13, 14
#endif
#endif
#endif
                       > {
  static constexpr int rows = kRows;
};
template <>
struct Tiles<uint64_t> : TileRow<uint64_t, 1, 2, 3, 4> {
  static constexpr int rows = kIntegerRows;
};

template <class T>
void multiply(const GemmBlock<T>& g) {
  constexpr int64_t lanes = kLanes<T>, columns = kVectors * lanes;
  const int64_t tiles = (g.m + g.panelRows - 1) / g.panelRows;
  const T least = leastOf<T>(g.rectify);
  const int64_t panels = (g.n + columns - 1) / columns;
  for (int64_t j = 0; j < g.n; j += columns) {
    const int64_t width = g.n - j < columns ? g.n - j : columns;
    const int vectors = width <= lanes ? 1 : 2;
    const bool edge = width < columns;
    const T* b = edge ? g.bEdge : g.b + j / columns * g.bPanel;
    const int64_t bRow = edge ? vectors * lanes : g.bRow;
    const int64_t left = g.n - j - width;
    Runs<T> nextB = g.nextB;
    if (left > 0) {
      const bool isInPlace = g.bRow != columns;
      nextB = {g.b + (j / columns + 1) * g.bPanel, isInPlace ? g.k : 0,
               left < columns ? left : columns, g.bRow};
    }
    Ahead<T> ahead(nextB, partOf(g.nextA, j / columns, panels));
    for (int64_t i = 0; i < g.m; i += g.panelRows) {
      const int64_t rows = g.m - i < g.panelRows ? g.m - i : g.panelRows;
      const int64_t at = i / g.panelRows;
      const int64_t count =
          ahead.lines() == 0 ? 0 : (at + 1) * ahead.lines() / tiles - at * ahead.lines() / tiles;
      const TileFunction<T> run = Tiles<T>::byRows[vectors - 1][rows - 1];
      const T* a = g.a + i / g.panelRows * g.aPanel;
      T* c = g.c + i * g.cRow + j;
      const T* init = g.init + i * g.initRow + j * g.initColumn;
      if (width == vectors * lanes) {
        run(g.k, a, g.aRow, g.aK, b, bRow, c, g.cRow, init, g.initRow, g.run, least, ahead, count);
        continue;
      }
      // A tile that C has no room for is computed beside it.
      alignas(64) static const T zeros[columns] = {};
      alignas(64) T whole[kRows * columns];
      run(g.k, a, g.aRow, g.aK, b, bRow, whole, columns, zeros, 0, g.run, leastOf<T>(false), ahead,
          count);
      for (int64_t r = 0; r < rows; r++) {
        T* to = c + r * g.cRow;
        addElements(to, whole + r * columns, init + r * g.initRow, width);
        for (int64_t x = 0; g.rectify && x < width; x++) to[x] = to[x] <= T(0) ? T(0) : to[x];
      }
    }
  }
}

// Rows are taken R at a time, with two vectors of partial sums each.
template <class T, int R>
void dotRows(T* y, int64_t yStride, const T* a, int64_t aRow, const T* x, const T* bias,
             int64_t biasStride, int64_t k) {
  using Vec = Vector<T>;
  constexpr int64_t lanes = kLanes<T>;
  Vec sum[R][2] = {};
  int64_t at = 0;
  for (; at + 2 * lanes <= k; at += 2 * lanes) {
    const Vec x0 = load<T>(x + at), x1 = load<T>(x + at + lanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      sum[r][0] += load<T>(a + r * aRow + at) * x0;
      sum[r][1] += load<T>(a + r * aRow + at + lanes) * x1;
    }
  }
  for (; at < k; at += lanes) {
    const int64_t count = k - at < lanes ? k - at : lanes;
    const Vec x0 = loadPartial(x + at, count);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) sum[r][0] += loadPartial(a + r * aRow + at, count) * x0;
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    y[r * yStride] = sumLanes<T>(sum[r][0] + sum[r][1]) + (bias ? bias[r * biasStride] : T(0));
  }
}

template <class T>
void dots(T* y, int64_t yStride, const T* a, int64_t aRow, const T* x, const T* bias,
          int64_t biasStride, int64_t m, int64_t k) {
  int64_t i = 0;
  for (; i + 4 <= m; i += 4) {
    dotRows<T, 4>(y + i * yStride, yStride, a + i * aRow, aRow, x,
                  bias ? bias + i * biasStride : nullptr, biasStride, k);
  }
  for (; i < m; i++) {
    dotRows<T, 1>(y + i * yStride, yStride, a + i * aRow, aRow, x,
                  bias ? bias + i * biasStride : nullptr, biasStride, k);
  }
}

template <class T>
constexpr GemmKernels<T> kernelsOf() {
  return {Tiles<T>::rows, kVectors * kLanes<T>, kLanes<T>, multiply<T>, pack<T>, store<T>, dots<T>};
}

}  // namespace

const GemmTable gemmTable = {kernelsOf<float>(), kernelsOf<double>(), kernelsOf<uint64_t>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
