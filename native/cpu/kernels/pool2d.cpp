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
struct IndexOf {
  using type = int64_t;
};
template <>
struct IndexOf<float> {
  using type = int32_t;
};

// Where lanes of x take the place of those of `most`.
template <class T>
ADJOINT_INLINE auto beatsLanes(Vector<T> x, Vector<T> most) {
  return (x > most) | ((x != x) & (most == most));
}

ADJOINT_INLINE void storeIndex(int32_t* p, Vector<int32_t> v, int64_t count) {
  if (count == kLanes<int32_t>) return storeVector(p, v);
  storePartial<int32_t>(p, v, count);
}
ADJOINT_INLINE void storeIndex(int32_t* p, Vector<int64_t> v, int64_t count) {
  for (int64_t i = 0; i < count; i++) p[i] = static_cast<int32_t>(v[i]);
}

// 2 x 2 windows side by side, the commonest pooling: all taps of `count` windows at once.
template <class T>
ADJOINT_INLINE void poolPairs(T* y, int32_t* index, const T* top, const T* bottom, int64_t at,
                              int64_t width, int64_t count) {
  constexpr int64_t lanes = kLanes<T>;
  using I = typename IndexOf<T>::type;
  const int64_t low = 2 * count < lanes ? 2 * count : lanes, high = 2 * count - low;
  const bool whole = count == lanes;
  const Vector<T> top0 = whole ? load(top) : loadPartial(top, low);
  const Vector<T> top1 = whole ? load(top + lanes) : loadPartial(top + lanes, high);
  const Vector<T> bottom0 = whole ? load(bottom) : loadPartial(bottom, low);
  const Vector<T> bottom1 = whole ? load(bottom + lanes) : loadPartial(bottom + lanes, high);
  const Vector<T> a = everySecond<T, 0>(top0, top1), b = everySecond<T, 1>(top0, top1);
  const Vector<T> c = everySecond<T, 0>(bottom0, bottom1);
  const Vector<T> d = everySecond<T, 1>(bottom0, bottom1);
  Vector<I> lane;
  for (int64_t i = 0; i < lanes; i++) lane[i] = static_cast<I>(2 * i);
  const auto takesB = beatsLanes<T>(b, a), takesD = beatsLanes<T>(d, c);
  const Vector<T> upper = takesB ? b : a, lower = takesD ? d : c;
  const auto takesLower = beatsLanes<T>(lower, upper);
  const Vector<T> most = takesLower ? lower : upper;
  // A comparison's lanes are -1 where it holds.
  const Vector<I> row = (Vector<I>)takesLower & static_cast<I>(width);
  const Vector<I> column = (Vector<I>)(takesLower ? takesD : takesB);
  const Vector<I> from = lane + static_cast<I>(at) + row - column;
  if (whole) {
    storeVector(y, most);
  } else {
    storePartial(y, most, count);
  }
  storeIndex(index, from, count);
}

template <class T>
void maxPoolPairs(T* y, int32_t* index, const T* x, int64_t xRow, const PoolWindow& z) {
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t p = 0; p < z.p; p++, y += z.q, index += z.q) {
    const T* top = x + 2 * p * xRow;
    for (int64_t q = 0; q < z.q; q += lanes) {
      const int64_t count = z.q - q < lanes ? z.q - q : lanes;
      poolPairs(y + q, index + q, top + 2 * q, top + xRow + 2 * q, 2 * (p * z.w + q), z.w, count);
    }
  }
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

// The first of the taps start, start + dilation, … that lies in [0, size), or -1.
ADJOINT_INLINE int64_t firstTap(int64_t start, int64_t taps, int64_t dilation, int64_t size) {
  const int64_t skipped = start < 0 ? (-start + dilation - 1) / dilation : 0;
  const int64_t first = start + skipped * dilation;
  return skipped < taps && first < size ? first : -1;
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

// Neighbouring windows. firstRow, firstColumn: their first taps inside the plane, -1 for none;
// `at`: the plane's index of the first window's first tap; step: from there to those of the others.
template <class T>
ADJOINT_INLINE void poolBlock(T* y, int32_t* index, const T* slab, int64_t at,
                              Vector<typename IndexOf<T>::type> step,
                              Vector<typename IndexOf<T>::type> firstColumn, int64_t firstRow,
                              int64_t count, const PoolWindow& z) {
  using I = typename IndexOf<T>::type;
  Vector<T> most = splat(least<T>());
  Vector<I> from = splat(static_cast<I>(-1));
  if (firstRow >= 0) {
    from = firstColumn >= 0 ? firstColumn + static_cast<I>(firstRow * z.w) : from;
  }
  for (int64_t r = 0; r < z.kernelH; r++) {
    for (int64_t s = 0; s < z.kernelW; s++) {
      const int64_t down = r * z.dilationH, right = s * z.dilationW;
      const Vector<T> x = loadEvery(slab + down * z.slabColumns() + right, z.strideW);
      const auto takes = beatsLanes<T>(x, most);
      most = takes ? x : most;
      from = takes ? step + static_cast<I>(at + down * z.w + right) : from;
    }
  }
  storePartial(y, most, count);
  storeIndex(index, from, count);
}

template <class T>
void maxPool(T* y, int32_t* index, const T* x, int64_t xRow, const PoolWindow& z, T* slab) {
  if (z.isPairs()) return maxPoolPairs(y, index, x, xRow, z);
  constexpr int64_t lanes = kLanes<T>;
  fillSlab(slab, x, xRow, z);
  using I = typename IndexOf<T>::type;
  I step[lanes], firstColumn[lanes];
  for (int64_t i = 0; i < lanes; i++) step[i] = static_cast<I>(i * z.strideW);
  for (int64_t q = 0; q < z.q; q += lanes) {
    const int64_t count = z.q - q < lanes ? z.q - q : lanes;
    for (int64_t i = 0; i < lanes; i++) {
      const int64_t start = (q + i) * z.strideW - z.padW;
      firstColumn[i] = static_cast<I>(firstTap(start, z.kernelW, z.dilationW, z.w));
    }
    for (int64_t p = 0; p < z.p; p++) {
      const int64_t row = p * z.strideH, column = q * z.strideW;
      poolBlock<T>(y + p * z.q + q, index + p * z.q + q, slab + row * z.slabColumns() + column,
                   (row - z.padH) * z.w + column - z.padW, load(step), load(firstColumn),
                   firstTap(row - z.padH, z.kernelH, z.dilationH, z.h), count, z);
    }
  }
}

template <class T>
bool scatter(T* dx, const T* dy, const int32_t* index, int64_t plane, int64_t n) {
  for (int64_t i = 0; i < plane; i++) dx[i] = 0;
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = index[i];
    if (at == -1) continue;
    if (at < 0 || at >= plane) return false;
    dx[at] += dy[i];
  }
  return true;
}

template <class T>
bool gather(T* y, const T* x, const int32_t* index, int64_t plane, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = index[i];
    if (at < -1 || at >= plane) return false;
    y[i] = at == -1 ? T(0) : x[at];
  }
  return true;
}

template <class T>
constexpr Pool2dKernels<T> kernelsOf() {
  return {maxPool<T>, scatter<T>, gather<T>};
}

}  // namespace

const Pool2dTable pool2dTable = {kernelsOf<float>(), kernelsOf<double>(), kernelsOf<int64_t>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
