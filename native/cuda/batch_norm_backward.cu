// The gradient of batch normalisation: each block sums its chunk of a channel, the sums are added
// in order, and a second pass over dy and x, from their ends, gives dx.
#include "contract.h"
#include "cuda/batch_norm.h"
#include "cuda/group.h"

namespace adjoint {
namespace cuda {
namespace {

// sum(g) and sum(g (x - mean)) of some elements
template <class T>
struct GradientSums {
  T g, gx;
};
template <class T>
ADJOINT_DEVICE GradientSums<T> shuffleXor(GradientSums<T> s, int distance) {
  return {__shfl_xor_sync(kAllLanes, s.g, distance), __shfl_xor_sync(kAllLanes, s.gx, distance)};
}
template <class T>
struct GradientCombiner {
  ADJOINT_DEVICE GradientSums<T> combine(const GradientSums<T>& a, const GradientSums<T>& b) const {
    return {a.g + b.g, a.gx + b.gx};
  }
};

struct ChannelInputs {
  StridedVector mean, rstd, weight, bias;
};
struct ChannelOutputs {
  StridedVector dweight, dbias;
};

// g = dy, or 0 where y = (x - mean) scale + bias is rectified
template <class T>
ADJOINT_DEVICE T rectified(bool relu, T dy, T centred, T scale, T bias) {
  return relu && centred * scale + bias <= T(0) ? T(0) : dy;
}

// partial [C, chunks] = the sums of the chunks. Operands: dy, x.
template <class S, int V, bool planes>
__global__ void __launch_bounds__(kNormThreads)
    gradientSumsKernel(GradientSums<ComputeOf<S>>* partial, const S* dy, const S* x,
                       const ChannelInputs inputs, const ChannelAccess<2> a, bool relu) {
  using T = ComputeOf<S>;
  using Place = ChannelPlace<2, V, planes>;
  constexpr int kChannels = Place::kChannels, kMany = kUnderWay<V> / 2;
  ADJOINT_SHARED(GradientSums<T>, shared, (kChannelSlots<kChannels, planes>));
  const Place place(a, blockIdx.x);
  T mean[kChannels] = {}, scale[kChannels] = {}, bias[kChannels] = {};
  T sumG[kChannels] = {}, sumGX[kChannels] = {};
  for (int c = 0; c < kChannels && place.isActive(a); c++) {
    const int channel = place.channel + c;
    mean[c] = inputs.mean.read<T>(channel);
    if (!relu) continue;
    scale[c] = inputs.rstd.read<T>(channel) * inputs.weight.readOr(channel, T(1));
    bias[c] = inputs.bias.readOr(channel, T(0));
  }
  for (uint32_t first = place.begin; first < place.end; first += kMany * place.step) {
    T dys[kMany][V], xs[kMany][V];
    for (int u = 0; u < kMany; u++) {
      const uint32_t i = first + u * place.step;
      for (int j = 0; j < V; j++) dys[u][j] = xs[u][j] = T(0);
      if (i >= place.end) continue;
      loadFrom(dy + place.offset(a, 0, i), dys[u]);
      loadFrom(x + place.offset(a, 1, i), xs[u]);
    }
    for (int u = 0; u < kMany; u++) {
      if (first + u * place.step >= place.end) continue;
      for (int j = 0; j < V; j++) {
        const int c = j % kChannels;
        const T centred = xs[u][j] - mean[c];
        const T g = rectified(relu, dys[u][j], centred, scale[c], bias[c]);
        sumG[c] += g;
        sumGX[c] += g * centred;
      }
    }
  }
  GradientSums<T> own[kChannels];
  for (int c = 0; c < kChannels; c++) own[c] = {sumG[c], sumGX[c]};
  combineChannels(GradientCombiner<T>(), own, shared, a.lanes,
                  [&](int c, const GradientSums<T>& total) {
                    const int channel = place.firstOfBlock + c;
                    if (channel >= a.channels) return;
                    partial[int64_t(channel) * a.chunks + place.chunk] = total;
                  });
}

// dweight = rstd sum(g (x - mean)), dbias = sum(g), and what gradientKernel needs, [5, C]: mean,
// scale, bias, offset = dbias / count, slope = rstd dweight / count. A warp takes a channel.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    gradientCoefficientsKernel(T* coefficients, const GradientSums<T>* partial,
                               const ChannelInputs inputs, const ChannelOutputs outputs,
                               int channels, int chunks, T count) {
  const GradientCombiner<T> combiner;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  const int c = static_cast<int>(blockIdx.x) * kNormWarps + thread / kWarp;
  if (c >= channels) return;
  GradientSums<T> total{T(0), T(0)};
  for (int i = lane; i < chunks; i += kWarp) {
    total = combiner.combine(total, partial[int64_t(c) * chunks + i]);
  }
  for (int d = kWarp / 2; d > 0; d /= 2) {
    const GradientSums<T> other = shuffleXor(total, d);
    total = lane & d ? combiner.combine(other, total) : combiner.combine(total, other);
  }
  if (lane > 0) return;
  const T rstd = inputs.rstd.read<T>(c), dweight = total.gx * rstd;
  outputs.dweight.write(c, dweight);
  outputs.dbias.write(c, total.g);
  const T values[5] = {inputs.mean.read<T>(c), rstd * inputs.weight.readOr(c, T(1)),
                       inputs.bias.readOr(c, T(0)), total.g / count, dweight * rstd / count};
  for (int k = 0; k < 5; k++) coefficients[k * channels + c] = values[k];
}

// dx = scale (g - offset - (x - mean) slope). Operands: dy, x, dx.
template <class S, int V, bool planes>
__global__ void __launch_bounds__(kNormThreads)
    gradientKernel(S* dx, const S* dy, const S* x, const ComputeOf<S>* coefficients,
                   const ChannelAccess<3> a, bool relu) {
  using T = ComputeOf<S>;
  using Place = ChannelPlace<3, V, planes>;
  constexpr int kChannels = Place::kChannels, kMany = kUnderWay<V> / 2;
  const Place place(a, gridDim.x - 1 - blockIdx.x);
  if (!place.isActive(a)) return;
  T k[5][kChannels];
  for (int i = 0; i < 5; i++) {
    for (int c = 0; c < kChannels; c++) k[i][c] = coefficients[i * a.channels + place.channel + c];
  }
  for (uint32_t first = place.begin; first < place.end; first += kMany * place.step) {
    T dys[kMany][V], xs[kMany][V];
    for (int u = 0; u < kMany; u++) {
      const uint32_t i = first + u * place.step;
      if (i >= place.end) continue;
      loadFrom(dy + place.offset(a, 0, i), dys[u]);
      loadFrom(x + place.offset(a, 1, i), xs[u]);
    }
    for (int u = 0; u < kMany; u++) {
      const uint32_t i = first + u * place.step;
      if (i >= place.end) continue;
      for (int j = 0; j < V; j++) {
        const int c = j % kChannels;
        const T centred = xs[u][j] - k[0][c];
        const T g = rectified(relu, dys[u][j], centred, k[1][c], k[2][c]);
        dys[u][j] = k[1][c] * (g - k[3][c] - centred * k[4][c]);
      }
      storeTo(dx + place.offset(a, 2, i), dys[u]);
    }
  }
}

template <class S>
void gradient(const backend::BatchNormBackwardArgs& args, const View& dx, const View& dy,
              const View& x, ChannelLayout layout) {
  using T = ComputeOf<S>;
  const int width = accessWidth<S>({&dx, &dy, &x}, layout);
  const ChannelAccess<3> all = channelAccess<3>({&dy, &x, &dx}, layout, width);
  const ChannelAccess<2> a = channelAccess<2>({&dy, &x}, layout, width);
  const auto channels = static_cast<size_t>(a.channels);
  const Workspace partial(channels * static_cast<size_t>(a.chunks) * sizeof(GradientSums<T>));
  const Workspace coefficients(5 * channels * sizeof(T));
  auto* sums = static_cast<GradientSums<T>*>(partial.data());
  const ChannelInputs inputs{StridedVector(&args.mean), StridedVector(&args.rstd),
                             StridedVector(args.weight), StridedVector(args.bias)};
  const ChannelOutputs outputs{StridedVector(&args.dweight), StridedVector(&args.dbias)};
  const T count = static_cast<T>(x.numel() / x.size[1]);
  visitAccess<S>(width, layout, [&](auto v, auto planes) {
    launch(a.blocks(), kNormThreads, 0, stream(), gradientSumsKernel<S, v(), planes()>, sums,
           dy.as<S>(), x.as<S>(), inputs, a, args.relu);
    launch(static_cast<unsigned>(ceilDiv(a.channels, kNormWarps)), kNormThreads, 0, stream(),
           gradientCoefficientsKernel<T>, static_cast<T*>(coefficients.data()), sums, inputs,
           outputs, a.channels, a.chunks, count);
    launch(all.blocks(), kNormThreads, 0, stream(), gradientKernel<S, v(), planes()>, dx.as<S>(),
           dy.as<S>(), x.as<S>(), static_cast<T*>(coefficients.data()), all, args.relu);
  });
}

}  // namespace
}  // namespace cuda

void backend::batchNormBackward(const BatchNormBackwardArgs& a) {
  using namespace cuda;
  if (a.x.numel() == 0) {
    fill(a.dweight, Scalar::of(0.0));
    fill(a.dbias, Scalar::of(0.0));
    return;
  }
  const ChannelLayout layout = usableLayout(a.x);
  const Stand x = inLayout(a.x, a.x.dtype, layout, true);
  const Stand dy = inLayout(a.dy, a.x.dtype, layout, true);
  const Stand dx = inLayout(a.dx, a.x.dtype, layout, false);
  visitFloats("batchNorm", a.x.dtype, [&](auto tag) {
    gradient<typename decltype(tag)::type>(a, dx.view(), dy.view(), x.view(), layout);
  });
  dx.finish();
}

}  // namespace adjoint
