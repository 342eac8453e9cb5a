// Max pooling.
#include <limits>

#include "cuda/pool2d.h"

namespace adjoint {
namespace cuda {
namespace {

template <class T>
ADJOINT_DEVICE T leastOf() {
  if constexpr (std::is_integral<T>::value) return std::numeric_limits<T>::min();
  return -std::numeric_limits<T>::infinity();
}

// The first of equal values wins, and NaN.
template <class T>
struct Maximum {
  T value = leastOf<T>();
  int32_t tap = -1;  // of nothing
  ADJOINT_DEVICE void take(T x, int32_t at) {
    if (tap < 0 || x > value || (x != x && value == value)) {
      value = x;
      tap = at;
    }
  }
};

struct PoolArgs {
  Images y;
  TapImages tap;
  Images x;
  Window window;
};

template <class Access, int V>
ADJOINT_DEVICE void storeMaxima(const Access& access, const PoolArgs& a, int64_t toY, int64_t toTap,
                                const Maximum<typename Access::Compute> (&most)[V]) {
  typename Access::Compute values[V];
  Wide<int32_t, V> taps;
  for (int j = 0; j < V; j++) {
    values[j] = most[j].value;
    taps.value[j] = most[j].tap < 0 ? 0 : most[j].tap;
  }
  access.store(a.y.data, toY, values);
  a.tap.store(toTap, taps);
}

// y[n, c, p, q] = max over the window; V channels at a time. kernel: 2 or 3 for such windows
// without dilation, whose loads then come before their comparisons; 0 for any.
template <class Access, int V, int kernel, bool channelsLast>
__global__ void __launch_bounds__(kPoolThreads)
    maxPoolKernel(const Access access, const Numbering<channelsLast> numbering, const PoolArgs a) {
  using T = typename Access::Compute;
  const Window& z = a.window;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < numbering.count;
       i += gridDim.x * blockDim.x) {
    Place at = numbering.at(i);
    if (channelsLast) at.c *= V;
    const int64_t plane = a.x.plane(at);
    const int64_t top = int64_t(at.h) * z.strideH.divisor - z.padH;
    const int64_t left = int64_t(at.w) * z.strideW.divisor - z.padW;
    Maximum<T> most[V];
    auto load = [&](int64_t row, int64_t column, T(&x)[V]) {
      access.load(a.x.data, plane + row * a.x.stride[2] + column * a.x.stride[3], x);
    };
    auto take = [&](int32_t tap, const T(&x)[V]) {
      for (int j = 0; j < V; j++) most[j].take(x[j], tap);
    };
    if constexpr (kernel > 0) {
      T x[kernel * kernel][V] = {};
      auto isInside = [&](int k) {
        const int64_t row = top + k / kernel, column = left + k % kernel;
        return row >= 0 && row < z.h && column >= 0 && column < z.w;
      };
      for (int k = 0; k < kernel * kernel; k++) {
        if (isInside(k)) load(top + k / kernel, left + k % kernel, x[k]);
      }
      for (int k = 0; k < kernel * kernel; k++) {
        if (isInside(k)) take(k, x[k]);
      }
    } else {
      for (int64_t r = 0; r < z.kernelH; r++) {
        const int64_t row = top + r * z.dilationH;
        if (row < 0 || row >= z.h) continue;
        for (int64_t s = 0; s < z.kernelW; s++) {
          const int64_t column = left + s * z.dilationW;
          if (column < 0 || column >= z.w) continue;
          T x[V];
          load(row, column, x);
          take(static_cast<int32_t>(r * z.kernelW + s), x);
        }
      }
    }
    const int64_t within[2] = {at.h * a.y.stride[2] + at.w * a.y.stride[3],
                               at.h * a.tap.stride[2] + at.w * a.tap.stride[3]};
    storeMaxima(access, a, a.y.plane(at) + within[0], a.tap.plane(at) + within[1], most);
  }
}

// 2 x 2 windows side by side along dense rows: V elements of two rows give V / 2 maxima.
template <class Access, int V>
__global__ void __launch_bounds__(kPoolThreads)
    maxPoolPairsKernel(const Access access, const Numbering<false> numbering, const PoolArgs a) {
  using T = typename Access::Compute;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < numbering.count;
       i += gridDim.x * blockDim.x) {
    const Place at = numbering.at(i);
    T x[2][V];
    const int64_t row = int64_t(at.h) * 2, column = int64_t(at.w) * V;
    for (int r = 0; r < 2; r++) {
      access.load(a.x.data, a.x.plane(at) + (row + r) * a.x.stride[2] + column, x[r]);
    }
    Maximum<T> most[V / 2];
    for (int r = 0; r < 2; r++) {
      for (int j = 0; j < V; j++) most[j / 2].take(x[r][j], 2 * r + j % 2);
    }
    storeMaxima(access, a, a.y.plane(at) + at.h * a.y.stride[2] + column / 2,
                a.tap.plane(at) + at.h * a.tap.stride[2] + column / 2, most);
  }
}

template <class Access>
void maxPool(const View& y, const View& tap, const View& x, const Window& window,
             const Access& access) {
  const PoolArgs args{Images(y), TapImages(tap), Images(x), window};
  constexpr int widest = Access::widest;
  if constexpr (widest > 1) {
    auto areTogether = [&](int width) {
      return moveTogether(x, 3, width) && moveTogether(y, 3, width / 2) &&
             moveTogether(tap, 3, width / 2);
    };
    if (window.isPairs() && window.q * 2 == window.w && areTogether(2)) {
      if (areTogether(widest)) {
        return launchOver<false>(y, widest / 2, maxPoolPairsKernel<Access, widest>, access, args);
      }
      return launchOver<false>(y, 1, maxPoolPairsKernel<Access, 2>, access, args);
    }
  }
  auto run = [&](auto last, auto width) {
    constexpr bool channelsLast = decltype(last)::value;
    constexpr int v = decltype(width)::value;
    auto with = [&](auto kernel) { launchOver<channelsLast>(y, v, kernel, access, args); };
    if constexpr (widest > 1) {
      if (window.isSquare(2)) return with(maxPoolKernel<Access, v, 2, channelsLast>);
      if (window.isSquare(3)) return with(maxPoolKernel<Access, v, 3, channelsLast>);
    }
    with(maxPoolKernel<Access, v, 0, channelsLast>);
  };
  if (!isChannelsLast(y)) return run(std::false_type(), std::integral_constant<int, 1>());
  constexpr int v = widest < 4 ? widest : 4;
  if (moveTogether(x, 1, v) && moveTogether(y, 1, v) && moveTogether(tap, 1, v)) {
    return run(std::true_type(), std::integral_constant<int, v>());
  }
  run(std::true_type(), std::integral_constant<int, 1>());
}

}  // namespace
}  // namespace cuda

namespace backend {

using namespace cuda;

void maxPool2d(const View& y, const View& tap, const View& x, const Pool2dShape& s) {
  if (y.numel() == 0) return;
  checkPool("maxPool2d", x, tap, s);
  const Window window("maxPool2d", x, y, s);
  forEachBatch<3>("maxPool2d", {y, tap, x}, [&](const View(&v)[3]) {
    visitStored(y.dtype, [&](auto access) { maxPool(v[0], v[1], v[2], window, access); });
  });
}

}  // namespace backend
}  // namespace adjoint
