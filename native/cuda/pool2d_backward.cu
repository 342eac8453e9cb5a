// The gradients of max pooling.
#include "cuda/index_guard.h"
#include "cuda/pool2d.h"

namespace adjoint {
namespace cuda {
namespace {

struct PoolBackwardArgs {
  Images dx, dy;
  TapImages tap;
  Window window;
  IndexGuard guard;
};
struct PoolGatherArgs {
  Images y, x;
  TapImages tap;
  Window window;
  IndexGuard guard;
};

IndexGuard tapGuard(const char* op, const Pool2dShape& s) {
  return indexGuard(op, "taps", s.kernelH * s.kernelW);
}

// dx[n, c, h, w] = sum of dy[n, c, p, q] where the tap of [n, c, p, q] lies there: only those of
// windows that cover [h, w] can. V elements of dx at a time.
template <class Access, int V, bool channelsLast>
__global__ void __launch_bounds__(kPoolThreads, ADJOINT_ROOM_FOR(4))
    maxPoolBackwardKernel(const Access access, const Numbering<channelsLast> numbering,
                          const PoolBackwardArgs a) {
  using T = typename Access::Compute;
  const Window& z = a.window;
  // The windows along one axis that cover any of [at, at + length): first to last.
  auto first = [](int64_t at, int64_t kernel, int64_t pad, int64_t dilation,
                  const Divider& stride) {
    const int64_t from = at + pad - (kernel - 1) * dilation;  // where the earliest one starts
    return from <= 0 ? 0 : int64_t(stride.quotient(static_cast<uint32_t>(from - 1))) + 1;
  };
  auto last = [](int64_t at, int64_t pad, const Divider& stride, int64_t windows) {
    const auto window = int64_t(stride.quotient(static_cast<uint32_t>(at + pad)));
    return window < windows ? window : windows - 1;
  };
  constexpr int alongW = channelsLast ? 1 : V, alongC = channelsLast ? V : 1;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < numbering.count;
       i += gridDim.x * blockDim.x) {
    Place at = numbering.at(i);
    at.c *= alongC;
    at.w *= alongW;
    const int64_t here = at.h * z.w + at.w;
    T sum[V] = {};
    const int64_t pBegin = first(at.h, z.kernelH, z.padH, z.dilationH, z.strideH);
    const int64_t pLast = last(at.h, z.padH, z.strideH, z.p);
    const int64_t qBegin = first(at.w, z.kernelW, z.padW, z.dilationW, z.strideW);
    const int64_t qLast = last(int64_t(at.w) + alongW - 1, z.padW, z.strideW, z.q);
    for (int64_t p = pBegin; p <= pLast; p++) {
      for (int64_t q = qBegin; q <= qLast; q++) {
        const int64_t from = a.tap.plane(at) + p * a.tap.stride[2] + q * a.tap.stride[3];
        const auto taps = a.tap.template load<alongC>(from);
        int64_t pixels[alongC];
        for (int j = 0; j < alongC; j++) {
          const bool isTap = a.guard.admits(taps.value[j], from);
          pixels[j] = isTap ? z.pixel(p, q, taps.value[j]) : -1;
        }
        bool isHere[V], any = false;
        for (int j = 0; j < V; j++) {
          isHere[j] = channelsLast ? pixels[j % alongC] == here : pixels[0] == here + j;
          any = any || isHere[j];
        }
        if (!any) continue;
        T dy[alongC];
        access.load(a.dy.data, a.dy.plane(at) + p * a.dy.stride[2] + q * a.dy.stride[3], dy);
        for (int j = 0; j < V; j++) {
          if (isHere[j]) sum[j] += dy[channelsLast ? j % alongC : 0];
        }
      }
    }
    access.store(a.dx.data, a.dx.plane(at) + at.h * a.dx.stride[2] + at.w * a.dx.stride[3], sum);
  }
}

// y[n, c, p, q] = x[n, c] at the window's tap, 0 outside the image
template <class Access>
__global__ void __launch_bounds__(kPoolThreads)
    maxPoolGatherKernel(const Access access, const Numbering<false> numbering,
                        const PoolGatherArgs a) {
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < numbering.count;
       i += gridDim.x * blockDim.x) {
    const Place at = numbering.at(i);
    const int64_t from = a.tap.plane(at) + at.h * a.tap.stride[2] + at.w * a.tap.stride[3];
    const int32_t tap = a.tap.template load<1>(from).value[0];
    typename Access::Compute value[1] = {};
    const int64_t pixel = a.guard.admits(tap, from) ? a.window.pixel(at.h, at.w, tap) : -1;
    if (pixel >= 0) {
      const int64_t row = pixel / a.window.w, column = pixel % a.window.w;
      access.load(a.x.data, a.x.plane(at) + row * a.x.stride[2] + column * a.x.stride[3], value);
    }
    access.store(a.y.data, a.y.plane(at) + at.h * a.y.stride[2] + at.w * a.y.stride[3], value);
  }
}

template <class Access>
void maxPoolBackward(const View& dx, const PoolBackwardArgs& args, const View& dy, const View& tap,
                     const Access& access) {
  constexpr int v = Access::widest < 4 ? Access::widest : 4;
  auto run = [&](auto last, auto width) {
    constexpr bool channelsLast = decltype(last)::value;
    constexpr int w = decltype(width)::value;
    launchOver<channelsLast>(dx, w, maxPoolBackwardKernel<Access, w, channelsLast>, access, args);
  };
  const std::integral_constant<int, v> wide;
  const std::integral_constant<int, 1> one;
  if (isChannelsLast(dx)) {
    if (moveTogether(dx, 1, v) && moveTogether(dy, 1, v) && moveTogether(tap, 1, v)) {
      return run(std::true_type(), wide);
    }
    return run(std::true_type(), one);
  }
  moveTogether(dx, 3, v) ? run(std::false_type(), wide) : run(std::false_type(), one);
}

}  // namespace
}  // namespace cuda

namespace backend {

using namespace cuda;

void maxPool2dBackward(const View& dx, const View& dy, const View& tap, const Pool2dShape& s) {
  if (dx.numel() == 0) return;
  checkPool("maxPool2dBackward", dx, tap, s);
  const Window window("maxPool2dBackward", dx, dy, s);
  const IndexGuard guard = tapGuard("maxPool2dBackward", s);
  forEachBatch<3>("maxPool2dBackward", {dx, dy, tap}, [&](const View(&v)[3]) {
    const PoolBackwardArgs args{Images(v[0]), Images(v[1]), TapImages(v[2]), window, guard};
    visitStored(dx.dtype, [&](auto access) { maxPoolBackward(v[0], args, v[1], v[2], access); });
  });
}

void maxPool2dGather(const View& y, const View& x, const View& tap, const Pool2dShape& s) {
  if (y.numel() == 0) return;
  checkPool("maxPool2dGather", x, tap, s);
  const Window window("maxPool2dGather", x, y, s);
  const IndexGuard guard = tapGuard("maxPool2dGather", s);
  forEachBatch<3>("maxPool2dGather", {y, x, tap}, [&](const View(&v)[3]) {
    const PoolGatherArgs args{Images(v[0]), Images(v[1]), TapImages(v[2]), window, guard};
    visitStored(y.dtype, [&](auto access) {
      launchOver<false>(v[0], 1, maxPoolGatherKernel<decltype(access)>, access, args);
    });
  });
}

}  // namespace backend
}  // namespace adjoint
