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

template <class I>
struct Bytes {
  typedef uint8_t type __attribute__((vector_size(kVectorBytes / sizeof(I))));
};
template <class I>
using BytesOf = typename Bytes<I>::type;

// GCC 12 converts between bytes and wider lanes one by one.
template <class I>
ADJOINT_INLINE void storeTaps(uint8_t* p, Vector<I> v, int64_t count) {
#if defined(ADJOINT_LEVEL_AVX512)
  if constexpr (sizeof(I) == 4) {
    return _mm512_mask_cvtepi32_storeu_epi8(p, static_cast<__mmask16>((1u << count) - 1),
                                            (__m512i)v);
  }
#endif
  const BytesOf<I> bytes = __builtin_convertvector(v, BytesOf<I>);
  __builtin_memcpy(p, &bytes, static_cast<uint64_t>(count));
}
template <class I>
ADJOINT_INLINE void storeTaps(int32_t* p, Vector<I> v, int64_t count) {
  for (int64_t i = 0; i < count; i++) p[i] = static_cast<int32_t>(v[i]);
}
// Lanes beyond `count` are zero.
template <class I>
ADJOINT_INLINE Vector<I> loadTaps(const uint8_t* p, int64_t count) {
#if defined(ADJOINT_LEVEL_AVX512)
  if constexpr (sizeof(I) == 4) {
    const auto lanes = static_cast<__mmask16>((1u << count) - 1);
    return (Vector<I>)_mm512_maskz_cvtepu8_epi32(lanes, _mm_maskz_loadu_epi8(lanes, p));
  }
#endif
  BytesOf<I> bytes = {};
  __builtin_memcpy(&bytes, p, static_cast<uint64_t>(count));
  return __builtin_convertvector(bytes, Vector<I>);
}
template <class I>
ADJOINT_INLINE Vector<I> loadTaps(const int32_t* p, int64_t count) {
  Vector<I> v = {};
  for (int64_t i = 0; i < count; i++) v[i] = p[i];
  return v;
}

// 2 x 2 windows side by side, the commonest pooling: all taps of `count` windows at once. Rows are
// shorter than vectors as often as not: where the plane goes on, a whole vector is read and
// written, and the next one mends what it has done beyond its row.
template <class T, class Tap>
ADJOINT_INLINE void poolPairs(T* y, Tap* tap, const T* top, const T* bottom, int64_t count,
                              bool whole) {
  constexpr int64_t lanes = kLanes<T>;
  using I = typename TapOf<T>::type;
  const int64_t low = 2 * count < lanes ? 2 * count : lanes, high = 2 * count - low;
  const Vector<T> top0 = whole ? load(top) : loadPartial(top, low);
  const Vector<T> bottom0 = whole ? load(bottom) : loadPartial(bottom, low);
  Vector<T> top1 = {}, bottom1 = {};
  if (high > 0) {
    top1 = whole ? load(top + lanes) : loadPartial(top + lanes, high);
    bottom1 = whole ? load(bottom + lanes) : loadPartial(bottom + lanes, high);
  }
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
  storeTaps<I>(tap, row - column, whole ? lanes : count);
}

template <class T, class Tap>
void maxPoolPairs(T* y, Tap* tap, const T* x, int64_t xRow, const PoolWindow& z) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t readable = (z.h - 1) * xRow + z.w, writable = z.p * z.q;
  for (int64_t p = 0; p < z.p; p++) {
    for (int64_t q = 0; q < z.q; q += lanes) {
      const int64_t count = z.q - q < lanes ? z.q - q : lanes;
      const int64_t from = 2 * p * xRow + 2 * q, to = p * z.q + q;
      const bool whole = from + xRow + 2 * lanes <= readable && to + lanes <= writable;
      poolPairs(y + to, tap + to, x + from, x + from + xRow, count, whole);
    }
  }
}

// The same windows' gradients: dy, or 0 where the maximum was in another column, in row 0 or 1.
template <class T, class Tap>
ADJOINT_INLINE Vector<typename TapOf<T>::type> scatterPairs(T* dx, const T* dy, const Tap* tap,
                                                            int row, int64_t count, bool whole) {
  constexpr int64_t lanes = kLanes<T>;
  using I = typename TapOf<T>::type;
  const Vector<T> from = whole ? load(dy) : loadPartial(dy, count), zero = {};
  const Vector<I> at = loadTaps<I>(tap, whole ? lanes : count);
  const Vector<T> even = at == static_cast<I>(2 * row) ? from : zero;
  const Vector<T> odd = at == static_cast<I>(2 * row + 1) ? from : zero;
  const int64_t low = 2 * count < lanes ? 2 * count : lanes, high = 2 * count - low;
  if (whole) {
    storeVector(dx, interleave<T, 0>(even, odd));
    if (high > 0) storeVector(dx + lanes, interleave<T, 1>(even, odd));
  } else {
    storePartial(dx, interleave<T, 0>(even, odd), low);
    storePartial(dx + lanes, interleave<T, 1>(even, odd), high);
  }
  return at;
}

template <class T, class Tap>
bool scatterPairs(T* dx, const T* dy, const Tap* tap, const PoolWindow& z) {
  constexpr int64_t lanes = kLanes<T>;
  using I = typename TapOf<T>::type;
  const int64_t readable = z.p * z.q, writable = z.h * z.w;
  Vector<I> seen = {};
  for (int64_t p = 0; p < z.p; p++) {
    for (int row = 0; row < 2; row++) {
      const int64_t end = (2 * p + row + 1) * z.w;
      for (int64_t q = 0; q < z.q; q += lanes) {
        const int64_t count = z.q - q < lanes ? z.q - q : lanes;
        const int64_t from = p * z.q + q, to = end - z.w + 2 * q;
        const bool whole = from + lanes <= readable && to + 2 * lanes <= writable;
        seen |= scatterPairs(dx + to, dy + from, tap + from, row, count, whole);
      }
      if (2 * z.q < z.w) dx[end - 1] = 0;
    }
  }
  for (int64_t i = 2 * z.p * z.w; i < writable; i++) dx[i] = 0;
  for (int64_t i = 0; i < lanes; i++) {
    if ((seen[i] & ~static_cast<I>(3)) != 0) return false;
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
  storeTaps<I>(tap, from, count);
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
