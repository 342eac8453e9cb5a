#include "cpu/kernels/pool2d.h"

#include <limits>
#include <type_traits>

#include "cpu/kernels/lanes.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

template <class T>
constexpr T least() {
  if constexpr (std::is_floating_point<T>::value) return -__builtin_huge_val();
  return std::numeric_limits<T>::min();
}

// An integer of T's size, for the lanes of comparisons.
template <class T>
struct TapOf {
  using type = int64_t;
};
template <>
struct TapOf<float> {
  using type = int32_t;
};

// Where lanes of x take the place of those of `most`.
template <class T>
ADJOINT_INLINE auto beatsLanes(Vector<T> x, Vector<T> most) {
  return (x > most) | ((x != x) & (most == most));
}

template <class Tap, class V>
ADJOINT_INLINE void storeTaps(Tap* p, V v, int64_t count) {
  constexpr int64_t lanes = sizeof(V) / sizeof v[0];
  typedef Tap Narrow __attribute__((vector_size(lanes * sizeof(Tap))));
  const Narrow taps = __builtin_convertvector(v, Narrow);
  if (count == lanes) {
    __builtin_memcpy(p, &taps, sizeof taps);
  } else {
    for (int64_t i = 0; i < count; i++) p[i] = taps[i];
  }
}
// Lanes beyond `count` are zero.
template <class V, class Tap>
ADJOINT_INLINE V loadTaps(const Tap* p, int64_t count) {
  constexpr int64_t lanes = sizeof(V) / sizeof(V{}[0]);
  typedef Tap Narrow __attribute__((vector_size(lanes * sizeof(Tap))));
  Narrow taps = {};
  if (count == lanes) {
    __builtin_memcpy(&taps, p, sizeof taps);
  } else {
    for (int64_t i = 0; i < count; i++) taps[i] = p[i];
  }
  return __builtin_convertvector(taps, V);
}

// 2 x 2 windows side by side, the commonest pooling: all taps of `count` windows at once.
template <class T, class Tap>
ADJOINT_INLINE void poolPairs(T* y, Tap* tap, const T* top, const T* bottom, int64_t count) {
  constexpr int64_t lanes = kLanes<T>;
  using I = typename TapOf<T>::type;
  const int64_t low = 2 * count < lanes ? 2 * count : lanes, high = 2 * count - low;
  const bool whole = count == lanes;
  const Vector<T> top0 = whole ? load(top) : loadPartial(top, low);
  const Vector<T> top1 = whole ? load(top + lanes) : loadPartial(top + lanes, high);
  const Vector<T> bottom0 = whole ? load(bottom) : loadPartial(bottom, low);
  const Vector<T> bottom1 = whole ? load(bottom + lanes) : loadPartial(bottom + lanes, high);
  const Vector<T> a = everySecond<T, 0>(top0, top1), b = everySecond<T, 1>(top0, top1);
  const Vector<T> c = everySecond<T, 0>(bottom0, bottom1);
  const Vector<T> d = everySecond<T, 1>(bottom0, bottom1);
  const auto takesB = beatsLanes<T>(b, a), takesD = beatsLanes<T>(d, c);
  const Vector<T> upper = takesB ? b : a, lower = takesD ? d : c;
  const auto takesLower = beatsLanes<T>(lower, upper);
  const Vector<T> most = takesLower ? lower : upper;
  // A comparison's lanes are -1 where it holds.
  const Vector<I> row = (Vector<I>)takesLower & static_cast<I>(2);
  const Vector<I> column = (Vector<I>)(takesLower ? takesD : takesB);
  if (whole) {
    storeVector(y, most);
  } else {
    storePartial(y, most, count);
  }
  storeTaps(tap, row - column, count);
}

template <class T, class Tap>
void maxPoolPairs(T* y, Tap* tap, const T* x, int64_t xRow, const PoolWindow& z) {
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t p = 0; p < z.p; p++, y += z.q, tap += z.q) {
    const T* top = x + 2 * p * xRow;
    for (int64_t q = 0; q < z.q; q += lanes) {
      const int64_t count = z.q - q < lanes ? z.q - q : lanes;
      poolPairs(y + q, tap + q, top + 2 * q, top + xRow + 2 * q, count);
    }
  }
}

// The same windows' gradients: a row of dy makes two of dx, which no other touches.
template <class T, class Tap>
bool scatterPairs(T* dx, const T* dy, const Tap* tap, const PoolWindow& z) {
  constexpr int64_t lanes = kLanes<T>;
  using I = typename TapOf<T>::type;
  Vector<I> strange = {};
  for (int64_t p = 0; p < z.p; p++, dy += z.q, tap += z.q, dx += 2 * z.w) {
    for (int64_t q = 0; q < z.q; q += lanes) {
      const int64_t count = z.q - q < lanes ? z.q - q : lanes;
      const bool whole = count == lanes;
      const Vector<T> from = whole ? load(dy + q) : loadPartial(dy + q, count);
      const Vector<I> at = loadTaps<Vector<I>>(tap + q, count);
      strange |= at & ~static_cast<I>(3);
      for (int64_t row = 0; row < 2; row++) {
        const Vector<T> zero = {};
        const Vector<T> even = at == static_cast<I>(2 * row) ? from : zero;
        const Vector<T> odd = at == static_cast<I>(2 * row + 1) ? from : zero;
        T* to = dx + row * z.w + 2 * q;
        if (whole) {
          storeVector(to, interleave<T, 0>(even, odd));
          storeVector(to + lanes, interleave<T, 1>(even, odd));
        } else {
          const int64_t low = 2 * count < lanes ? 2 * count : lanes;
          storePartial(to, interleave<T, 0>(even, odd), low);
          storePartial(to + lanes, interleave<T, 1>(even, odd), 2 * count - low);
        }
      }
    }
    for (int64_t column = 2 * z.q; column < z.w; column++) dx[column] = dx[z.w + column] = 0;
  }
  for (int64_t i = 0; i < (z.h - 2 * z.p) * z.w; i++) dx[i] = 0;
  for (int64_t i = 0; i < lanes; i++) {
    if (strange[i] != 0) return false;
  }
  return true;
}

// slab = x with the least value around, so that no window needs a bound: what is least never wins.
template <class T>
void fillSlab(T* slab, const T* x, int64_t xRow, const PoolWindow& z) {
  constexpr T lowest = least<T>();
  const int64_t width = z.slabColumns(), rows = z.slabRows();
  for (int64_t i = 0; i < rows; i++, slab += width) {
    const int64_t row = i - z.padH;
    const bool inside = row >= 0 && row < z.h;
    const T* from = x + row * xRow - z.padW;
    const int64_t begin = !inside ? width : z.padW < width ? z.padW : width;
    const int64_t end = !inside ? width : z.w + z.padW < width ? z.w + z.padW : width;
    for (int64_t j = 0; j < begin; j++) slab[j] = lowest;
    for (int64_t j = begin; j < end; j++) slab[j] = from[j];
    for (int64_t j = end; j < width; j++) slab[j] = lowest;
  }
}

// The first of the taps start, start + dilation, … that lies in [0, size); 0 if none does.
ADJOINT_INLINE int64_t firstTap(int64_t start, int64_t taps, int64_t dilation, int64_t size) {
  const int64_t skipped = start < 0 ? (-start + dilation - 1) / dilation : 0;
  return skipped < taps && start + skipped * dilation < size ? skipped : 0;
}

// x[i * stride] in lane i; reads up to two vectors
template <class T>
ADJOINT_INLINE Vector<T> loadEvery(const T* x, int64_t stride) {
  constexpr int64_t lanes = kLanes<T>;
  if (stride == 1) return load(x);
  if (stride == 2) return everySecond<T, 0>(load(x), load(x + lanes));
  T lane[lanes];
  for (int64_t i = 0; i < lanes; i++) lane[i] = x[i * stride];
  return load(lane);
}

// Neighbouring windows. `first`: their first taps inside the plane.
template <class T, class Tap>
ADJOINT_INLINE void poolBlock(T* y, Tap* tap, const T* slab, Vector<typename TapOf<T>::type> first,
                              int64_t count, const PoolWindow& z) {
  using I = typename TapOf<T>::type;
  Vector<T> most = splat(least<T>());
  Vector<I> from = first;
  for (int64_t r = 0; r < z.kernelH; r++) {
    for (int64_t s = 0; s < z.kernelW; s++) {
      const int64_t down = r * z.dilationH, right = s * z.dilationW;
      const Vector<T> x = loadEvery(slab + down * z.slabColumns() + right, z.strideW);
      const auto takes = beatsLanes<T>(x, most);
      most = takes ? x : most;
      from = takes ? splat(static_cast<I>(r * z.kernelW + s)) : from;
    }
  }
  storePartial(y, most, count);
  storeTaps(tap, from, count);
}

template <class T, class Tap>
void maxPool(T* y, Tap* tap, const T* x, int64_t xRow, const PoolWindow& z, T* slab) {
  if (z.isPairs()) return maxPoolPairs(y, tap, x, xRow, z);
  constexpr int64_t lanes = kLanes<T>;
  fillSlab(slab, x, xRow, z);
  using I = typename TapOf<T>::type;
  I firstColumn[lanes];
  for (int64_t q = 0; q < z.q; q += lanes) {
    const int64_t count = z.q - q < lanes ? z.q - q : lanes;
    for (int64_t i = 0; i < lanes; i++) {
      const int64_t start = (q + i) * z.strideW - z.padW;
      firstColumn[i] = static_cast<I>(firstTap(start, z.kernelW, z.dilationW, z.w));
    }
    for (int64_t p = 0; p < z.p; p++) {
      const int64_t row = p * z.strideH;
      const int64_t firstRow = firstTap(row - z.padH, z.kernelH, z.dilationH, z.h);
      poolBlock<T>(y + p * z.q + q, tap + p * z.q + q, slab + row * z.slabColumns() + q * z.strideW,
                   load(firstColumn) + static_cast<I>(firstRow * z.kernelW), count, z);
    }
  }
}

// Calls body(window, pixel) for each window, with -1 for a tap outside the plane. False where a tap
// is none of the window's.
template <class Tap, class F>
ADJOINT_INLINE bool forEachTap(const Tap* tap, const PoolWindow& z, const PoolTap* taps,
                               const F& body) {
  for (int64_t p = 0, i = 0; p < z.p; p++) {
    for (int64_t q = 0; q < z.q; q++, i++) {
      const int64_t at = tap[i];
      if (at < 0 || at >= z.taps()) return false;
      const int64_t row = p * z.strideH - z.padH + taps[at].down;
      const int64_t column = q * z.strideW - z.padW + taps[at].right;
      const bool isInside = row >= 0 && row < z.h && column >= 0 && column < z.w;
      body(i, isInside ? row * z.w + column : -1);
    }
  }
  return true;
}

template <class T, class Tap>
bool scatter(T* dx, const T* dy, const Tap* tap, const PoolWindow& z, const PoolTap* taps) {
  if (z.isPairs()) return scatterPairs(dx, dy, tap, z);
  for (int64_t i = 0; i < z.h * z.w; i++) dx[i] = 0;
  return forEachTap(tap, z, taps, [&](int64_t i, int64_t pixel) {
    if (pixel >= 0) dx[pixel] += dy[i];
  });
}

template <class T, class Tap>
bool gather(T* y, const T* x, const Tap* tap, const PoolWindow& z, const PoolTap* taps) {
  return forEachTap(tap, z, taps,
                    [&](int64_t i, int64_t pixel) { y[i] = pixel < 0 ? T(0) : x[pixel]; });
}

template <class T, class Tap>
constexpr Pool2dKernels<T, Tap> kernelsOf() {
  return {maxPool<T, Tap>, scatter<T, Tap>, gather<T, Tap>};
}
template <class T>
constexpr Pool2dKernelsByTap<T> kernelsOf() {
  return {kernelsOf<T, uint8_t>(), kernelsOf<T, int32_t>()};
}

}  // namespace

const Pool2dTable pool2dTable = {kernelsOf<float>(), kernelsOf<double>(), kernelsOf<int64_t>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
