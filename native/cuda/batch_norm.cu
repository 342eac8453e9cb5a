// Batch normalisation (Ioffe & Szegedy 2015): each block takes the moments of its chunk of a
// channel, these are combined in order, and a second pass over x normalises. The second pass goes
// backwards, since the end of x may still be in the cache.
#include "contract.h"
#include "cuda/batch_norm.h"
#include "cuda/moments.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

template <class T>
struct Statistics {
  StridedVector mean, rstd, runningMean, runningVar, weight, bias;
  T momentum, eps;
};

// partial [C, chunks] = the moments of the chunks
template <class S, int V, bool planes>
__global__ void __launch_bounds__(kNormThreads)
    momentsKernel(Moments<ComputeOf<S>>* partial, const S* x, const ChannelAccess<1> a) {
  using T = ComputeOf<S>;
  using Place = ChannelPlace<1, V, planes>;
  constexpr int kChannels = Place::kChannels, kMany = kUnderWay<V>;
  ADJOINT_SHARED(Moments<T>, shared, (kChannelSlots<kChannels, planes>));
  const Place place(a, blockIdx.x);
  T count = T(0), mean[kChannels] = {}, squares[kChannels] = {};
  for (uint32_t first = place.begin; first < place.end; first += kMany * place.step) {
    T value[kMany][V];
    int n = 0;  // accesses
    for (int u = 0; u < kMany; u++) {
      const uint32_t i = first + u * place.step;
      for (int j = 0; j < V; j++) value[u][j] = T(0);
      if (i >= place.end) continue;
      loadFrom(x + place.offset(a, 0, i), value[u]);
      n++;
    }
    // Of these few values, in two passes, the second of which gives back what rounding took from
    // their mean; then combined with those before (moments.h).
    const T few = static_cast<T>(planes ? n * V : n), each = T(1) / few;
    const T share = few / (count + few), both = count * share;
    count += few;
    for (int c = 0; c < kChannels; c++) {
      T sum = T(0), fewSquares = T(0), residue = T(0);
      for (int u = 0; u < kMany; u++) {
        for (int j = c; j < V; j += kChannels) sum += value[u][j];
      }
      const T rounded = sum * each;
      for (int u = 0; u < kMany; u++) {
        for (int j = c; j < V; j += kChannels) {
          const T e = u < n ? value[u][j] - rounded : T(0);
          residue += e;
          fewSquares += e * e;
        }
      }
      const T d = (rounded - mean[c]) + residue * each;
      mean[c] += d * share;
      squares[c] += fewSquares + d * d * both;
    }
  }
  Moments<T> own[kChannels];
  for (int c = 0; c < kChannels; c++) own[c] = {count, mean[c], squares[c]};
  combineChannels(MomentsCombiner<T>(), own, shared, a.lanes, [&](int c, const Moments<T>& total) {
    const int channel = place.firstOfBlock + c;
    if (channel < a.channels) partial[int64_t(channel) * a.chunks + place.chunk] = total;
  });
}

// rstd = 1 / sqrt(var + eps), and the coefficients of y = (x - mean) scale + bias, [3, C]; running
// averages r = (1 - momentum) r + momentum * batch. A warp takes a channel.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    statisticsKernel(T* coefficients, const Moments<T>* partial, const Statistics<T> s,
                     int channels, int chunks) {
  const MomentsCombiner<T> combiner;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  const int c = static_cast<int>(blockIdx.x) * kNormWarps + thread / kWarp;
  if (c >= channels) return;
  Moments<T> total{T(0), T(0), T(0)};
  for (int i = lane; i < chunks; i += kWarp) {
    total = combiner.combine(total, partial[int64_t(c) * chunks + i]);
  }
  for (int d = kWarp / 2; d > 0; d /= 2) {
    const Moments<T> other = shuffleXor(total, d);
    total = lane & d ? combiner.combine(other, total) : combiner.combine(total, other);
  }
  if (lane > 0) return;
  const T rstd = T(1) / Math<T>::sqrt(total.squares / total.count + s.eps);
  s.mean.write(c, total.mean);
  s.rstd.write(c, rstd);
  coefficients[c] = total.mean;
  coefficients[channels + c] = rstd * s.weight.readOr(c, T(1));
  coefficients[2 * channels + c] = s.bias.readOr(c, T(0));
  auto update = [&](const StridedVector& running, T batch) {
    if (!running.data) return;
    running.write(c, (T(1) - s.momentum) * running.read<T>(c) + s.momentum * batch);
  };
  update(s.runningMean, total.mean);
  update(s.runningVar, total.squares / (total.count - T(1)));
}

// y = (x - mean) scale + bias, rectified if asked for
template <class S, int V, bool planes>
__global__ void __launch_bounds__(kNormThreads)
    normalizeKernel(S* y, const S* x, const ComputeOf<S>* coefficients, const ChannelAccess<2> a,
                    bool relu) {
  using T = ComputeOf<S>;
  using Place = ChannelPlace<2, V, planes>;
  constexpr int kChannels = Place::kChannels, kMany = kUnderWay<V>;
  const Place place(a, gridDim.x - 1 - blockIdx.x);
  if (!place.isActive(a)) return;
  T mean[kChannels], scale[kChannels], bias[kChannels];
  for (int c = 0; c < kChannels; c++) {
    mean[c] = coefficients[place.channel + c];
    scale[c] = coefficients[a.channels + place.channel + c];
    bias[c] = coefficients[2 * a.channels + place.channel + c];
  }
  for (uint32_t first = place.begin; first < place.end; first += kMany * place.step) {
    T value[kMany][V];
    for (int u = 0; u < kMany; u++) {
      const uint32_t i = first + u * place.step;
      if (i < place.end) loadFrom(x + place.offset(a, 1, i), value[u]);
    }
    for (int u = 0; u < kMany; u++) {
      const uint32_t i = first + u * place.step;
      if (i >= place.end) continue;
      for (int j = 0; j < V; j++) {
        const int c = j % kChannels;
        const T result = (value[u][j] - mean[c]) * scale[c] + bias[c];
        value[u][j] = relu && result < T(0) ? T(0) : result;
      }
      storeTo(y + place.offset(a, 0, i), value[u]);
    }
  }
}

template <class S>
void normalize(const backend::BatchNormArgs& args, const View& y, const View& x,
               ChannelLayout layout) {
  using T = ComputeOf<S>;
  const int width = accessWidth<S>({&y, &x}, layout);
  const ChannelAccess<2> both = channelAccess<2>({&y, &x}, layout, width);
  const ChannelAccess<1> a = channelAccess<1>({&x}, layout, width);
  const auto channels = static_cast<size_t>(a.channels);
  const Workspace partial(channels * static_cast<size_t>(a.chunks) * sizeof(Moments<T>));
  const Workspace coefficients(3 * channels * sizeof(T));
  auto* moments = static_cast<Moments<T>*>(partial.data());
  const Statistics<T> s{StridedVector(&args.mean),       StridedVector(&args.rstd),
                        StridedVector(args.runningMean), StridedVector(args.runningVar),
                        StridedVector(args.weight),      StridedVector(args.bias),
                        static_cast<T>(args.momentum),   static_cast<T>(args.eps)};
  visitAccess<S>(width, layout, [&](auto v, auto planes) {
    launch(a.blocks(), kNormThreads, 0, stream(), momentsKernel<S, v(), planes()>, moments,
           x.as<S>(), a);
    launch(static_cast<unsigned>(ceilDiv(a.channels, kNormWarps)), kNormThreads, 0, stream(),
           statisticsKernel<T>, static_cast<T*>(coefficients.data()), moments, s, a.channels,
           a.chunks);
    launch(both.blocks(), kNormThreads, 0, stream(), normalizeKernel<S, v(), planes()>, y.as<S>(),
           x.as<S>(), static_cast<T*>(coefficients.data()), both, args.relu);
  });
}

}  // namespace
}  // namespace cuda

void backend::batchNorm(const BatchNormArgs& a) {
  using namespace cuda;
  if (a.x.numel() == 0) return;
  const ChannelLayout layout = usableLayout(a.x);
  const Stand x = inLayout(a.x, a.x.dtype, layout, true);
  const Stand y = inLayout(a.y, a.x.dtype, layout, false);
  visitFloats("batchNorm", a.x.dtype, [&](auto tag) {
    normalize<typename decltype(tag)::type>(a, y.view(), x.view(), layout);
  });
  y.finish();
}

}  // namespace adjoint
