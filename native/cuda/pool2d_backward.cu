// The gradients of max pooling.
#include "cuda/index_guard.h"
#include "cuda/pool2d.h"

namespace adjoint {
namespace cuda {
namespace {

struct PoolBackwardArgs {
  Images dx, dy, index;
  Window window;
  IndexGuard guard;
};

// dx[n, c, h, w] = sum of dy[n, c, p, q] where index[n, c, p, q] = h W + w: only windows that cover
// [h, w] can say so. V elements of dx at a time.
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
    const auto here = static_cast<int32_t>(at.h * z.w + at.w);
    T sum[V] = {};
    const int64_t pBegin = first(at.h, z.kernelH, z.padH, z.dilationH, z.strideH);
    const int64_t pLast = last(at.h, z.padH, z.strideH, z.p);
    const int64_t qBegin = first(at.w, z.kernelW, z.padW, z.dilationW, z.strideW);
    const int64_t qLast = last(int64_t(at.w) + alongW - 1, z.padW, z.strideW, z.q);
    for (int64_t p = pBegin; p <= pLast; p++) {
      for (int64_t q = qBegin; q <= qLast; q++) {
        const int64_t from = a.index.plane(at) + p * a.index.stride[2] + q * a.index.stride[3];
        const auto index = *reinterpret_cast<const Wide<int32_t, alongC>*>(
            static_cast<const int32_t*>(a.index.data) + from);
        bool isHere[V], any = false;
        for (int j = 0; j < V; j++) {
          isHere[j] = channelsLast ? index.value[j % alongC] == here : index.value[0] == here + j;
          any = any || isHere[j];
        }
        int32_t outside = -1;
        for (int j = 0; j < alongC; j++) {
          if (index.value[j] < -1 || index.value[j] >= a.guard.size) outside = index.value[j];
        }
        if (outside != -1) a.guard.admits(outside, from);
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

// y[n, c, p, q] = x[n, c, index / W, index % W], 0 for -1
template <class Access>
__global__ void __launch_bounds__(kPoolThreads)
    maxPoolGatherKernel(const Access access, const Walk<3> walk, uint32_t count, void* y,
                        const void* x, const int32_t* index, Divider width, int64_t strideH,
                        int64_t strideW, const IndexGuard guard) {
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    int64_t at[3];
    walk.offsets(i, at);
    const int32_t from = index[at[2]];
    typename Access::Compute value[1] = {};
    if (from != -1 && guard.admits(from, i)) {
      const uint32_t row = width.quotient(static_cast<uint32_t>(from));
      const uint32_t column = static_cast<uint32_t>(from) - row * width.divisor;
      access.load(x, at[1] + row * strideH + column * strideW, value);
    }
    access.store(y, at[0], value);
  }
}

template <class Access>
void maxPoolBackward(const View& dx, const PoolBackwardArgs& args, const View& dy,
                     const View& index, const Access& access) {
  constexpr int v = Access::widest < 4 ? Access::widest : 4;
  auto run = [&](auto last, auto width) {
    constexpr bool channelsLast = decltype(last)::value;
    constexpr int w = decltype(width)::value;
    launchOver<channelsLast>(dx, w, maxPoolBackwardKernel<Access, w, channelsLast>, access, args);
  };
  const std::integral_constant<int, v> wide;
  const std::integral_constant<int, 1> one;
  if (isChannelsLast(dx)) {
    if (moveTogether(dx, 1, v) && moveTogether(dy, 1, v) && moveTogether(index, 1, v)) {
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

void maxPool2dBackward(const View& dx, const View& dy, const View& index, const Pool2dShape& s) {
  if (dx.numel() == 0) return;
  checkPlane("maxPool2dBackward", dx);
  const Window window("maxPool2dBackward", dx, dy, s);
  const IndexGuard guard = indexGuard("maxPool2dBackward", "indices", dx.size[2] * dx.size[3]);
  forEachBatch<3>("maxPool2dBackward", {dx, dy, index}, [&](const View(&v)[3]) {
    const PoolBackwardArgs args{Images(v[0]), Images(v[1]), Images(v[2]), window, guard};
    visitStored(dx.dtype, [&](auto access) { maxPoolBackward(v[0], args, v[1], v[2], access); });
  });
}

void maxPool2dGather(const View& y, const View& x, const View& index) {
  if (y.numel() == 0) return;
  checkPlane("maxPool2dGather", x);
  View planes = y;  // x's planes, each at its first element
  planes.data = x.data;
  for (int i = 0; i < 4; i++) planes.stride[i] = i < 2 ? x.stride[i] : 0;
  const size_t bytes[3] = {itemSize(y.dtype), itemSize(x.dtype), itemSize(index.dtype)};
  const Divider width(static_cast<uint32_t>(std::max<int64_t>(x.size[3], 1)));
  const IndexGuard guard = indexGuard("maxPool2dGather", "indices", x.size[2] * x.size[3]);
  forEachPiece(makePlan<3>({&y, &planes, &index}), bytes, [&](const Plan<3>& piece) {
    const auto count = static_cast<uint32_t>(piece.numel);
    visitStored(y.dtype, [&](auto access) {
      launch(gridFor(count, kPoolThreads), kPoolThreads, 0, stream(),
             maxPoolGatherKernel<decltype(access)>, access, makeWalk(piece), count, piece.data[0],
             piece.data[1], static_cast<const int32_t*>(piece.data[2]), width, x.stride[2],
             x.stride[3], guard);
    });
  });
}

}  // namespace backend
}  // namespace adjoint
