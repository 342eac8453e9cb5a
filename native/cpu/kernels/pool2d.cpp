#include "cpu/kernels/pool2d.h"

#include <limits>
#include <type_traits>

#include "cpu/kernels/lanes.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

// Whether x takes the place of the maximum so far: the first of equal values stays, NaN wins.
template <class T>
ADJOINT_INLINE bool beats(T x, T most) {
  return (x > most) | ((x != x) & (most == most));
}

template <class T>
constexpr T least() {
  if constexpr (std::is_floating_point<T>::value) return -__builtin_huge_val();
  return std::numeric_limits<T>::min();
}

// 2 x 2 windows side by side: the commonest pooling, all taps of a window at once.
template <class T>
void maxPoolPairs(T* __restrict y, int32_t* __restrict index, const T* x, int64_t xRow,
                  const PoolWindow& z) {
  const auto below = static_cast<int32_t>(z.w);
  for (int64_t p = 0; p < z.p; p++, y += z.q, index += z.q) {
    const T* __restrict top = x + 2 * p * xRow;
    const T* __restrict bottom = top + xRow;
    const auto first = static_cast<int32_t>(2 * p * z.w);
    const auto q = static_cast<int32_t>(z.q);
    for (int32_t j = 0; j < q; j++) {
      const T a = top[2 * j], b = top[2 * j + 1], c = bottom[2 * j], d = bottom[2 * j + 1];
      const bool takesB = beats(b, a), takesD = beats(d, c);
      const T upper = takesB ? b : a, lower = takesD ? d : c;
      const int32_t upperAt = takesB ? 1 : 0, lowerAt = takesD ? below + 1 : below;
      const bool takesLower = beats(lower, upper);
      y[j] = takesLower ? lower : upper;
      index[j] = first + 2 * j + (takesLower ? lowerAt : upperAt);
    }
  }
}

// One tap of a row of windows: y[j] = max(y[j], x[j stride])
template <class T, int Stride>
ADJOINT_INLINE void poolTap(T* __restrict y, int32_t* __restrict index, const T* __restrict x,
                            int32_t at, int64_t anyStride, int32_t n) {
  const auto stride = static_cast<int32_t>(Stride ? Stride : anyStride);
  for (int32_t j = 0; j < n; j++) {
    const T value = x[j * stride];
    const bool takes = beats(value, y[j]) | (index[j] < 0);
    y[j] = takes ? value : y[j];
    index[j] = takes ? at + j * stride : index[j];
  }
}

template <class T>
void maxPool(T* y, int32_t* index, const T* x, int64_t xRow, const PoolWindow& z) {
  if (z.kernelH == 2 && z.kernelW == 2 && z.strideH == 2 && z.strideW == 2 && z.padH == 0 &&
      z.padW == 0 && z.dilationH == 1 && z.dilationW == 1) {
    return maxPoolPairs(y, index, x, xRow, z);
  }
  constexpr T lowest = least<T>();
  for (int64_t p = 0; p < z.p; p++, y += z.q, index += z.q) {
    for (int64_t j = 0; j < z.q; j++) {
      y[j] = lowest;
      index[j] = -1;
    }
    for (int64_t r = 0; r < z.kernelH; r++) {
      const int64_t row = p * z.strideH - z.padH + r * z.dilationH;
      if (row < 0 || row >= z.h) continue;
      for (int64_t s = 0; s < z.kernelW; s++) {
        // The windows whose column j strideW + shift lies inside.
        const int64_t shift = s * z.dilationW - z.padW;
        int64_t begin = shift < 0 ? (-shift + z.strideW - 1) / z.strideW : 0;
        int64_t end = z.w > shift ? (z.w - shift - 1) / z.strideW + 1 : 0;
        if (end > z.q) end = z.q;
        if (begin >= end) continue;
        const int64_t column = begin * z.strideW + shift;
        const T* from = x + row * xRow + column;
        const auto at = static_cast<int32_t>(row * z.w + column);
        const auto n = static_cast<int32_t>(end - begin);
        if (z.strideW == 1) {
          poolTap<T, 1>(y + begin, index + begin, from, at, 1, n);
        } else if (z.strideW == 2) {
          poolTap<T, 2>(y + begin, index + begin, from, at, 2, n);
        } else {
          poolTap<T, 0>(y + begin, index + begin, from, at, z.strideW, n);
        }
      }
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
