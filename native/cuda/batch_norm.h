// What batch_norm.cu and batch_norm_backward.cu share: how the elements of a channel lie, and how
// they are shared out among blocks and threads. That depends on the shape alone, so results do not
// depend on the device.
#pragma once
#include <cstdint>

#include "cuda/dense.h"
#include "cuda/elements.h"
#include "cuda/vectors.h"
#include "cuda/walk.h"

namespace adjoint::cuda {

constexpr int kNormThreads = 256, kNormWarps = kNormThreads / kWarp;
// Enough blocks to fill a large device; those of columns have more registers and more to combine.
constexpr int64_t kPlaneBlocks = 2048, kColumnBlocks = 1024;
// Accesses that a thread has under way.
template <int V>
constexpr int kUnderWay = V == 1 ? 8 : 4;

// Planes: the elements of a channel are neighbours, but for the batch. Columns: the channels are
// (channels last, or [N, C]).
enum class ChannelLayout { planes, columns, other };

inline int64_t innerSize(const View& x) {
  int64_t n = 1;
  for (int i = 2; i < x.ndim; i++) n *= x.size[i];
  return n;
}

inline ChannelLayout layoutOf(const View& x) {
  // Whether the axes but the channels (and the batch, unless asked for) form one of that step.
  auto isEven = [&](int64_t step, bool withBatch) {
    for (int i = x.ndim - 1; i >= 0; i--) {
      if (i == 1 || (i == 0 && !withBatch) || x.size[i] == 1) continue;
      if (x.stride[i] != step) return false;
      step *= x.size[i];
    }
    return true;
  };
  const bool isMatrix = innerSize(x) == 1;
  if (!isMatrix && isEven(1, false)) return ChannelLayout::planes;
  const bool areNeighbours = x.stride[1] == 1 || x.size[1] == 1;
  return areNeighbours && (isMatrix || isEven(x.size[1], true)) ? ChannelLayout::columns
                                                                : ChannelLayout::other;
}

// How a kernel reads it, after a copy if it must.
inline ChannelLayout usableLayout(const View& x) {
  const ChannelLayout own = layoutOf(x);
  if (own != ChannelLayout::other) return own;
  return innerSize(x) == 1 ? ChannelLayout::columns : ChannelLayout::planes;
}

// x, or what stands for it in this layout.
inline Stand inLayout(const View& x, DType dtype, ChannelLayout layout, bool isRead) {
  if (layoutOf(x) == layout && x.dtype == dtype) return Stand(x);
  int channelsLast[kMaxDims] = {0};
  for (int i = 2; i < x.ndim; i++) channelsLast[i - 1] = i;
  channelsLast[x.ndim - 1] = 1;
  const bool isColumns = layout == ChannelLayout::columns;
  return Stand(x, denseLike(x, dtype, isColumns ? channelsLast : nullptr), isRead);
}

// N operands. The channels' elements are accessed V at a time: of one channel in planes, of V
// neighbouring ones in columns. Access a of a channel is at
//   (a / perPlane) batchStride + (a % perPlane) V + c channelStride
// with one access per plane in columns. Blocks take `chunk` accesses of `lanes` threads' channels.
template <int N>
struct ChannelAccess {
  int64_t batchStride[N], channelStride[N];
  int64_t accesses, chunk;  // of a channel, of a block
  Divider perPlane;
  int channels, groups, chunks;  // groups of channels
  int lanes;                     // that have different channels; a power of two

  unsigned blocks() const { return static_cast<unsigned>(int64_t(groups) * chunks); }
};

// Where a thread stands.
template <int N, int V, bool planes>
struct ChannelPlace {
  static constexpr int kChannels = planes ? 1 : V;  // of a thread
  int firstOfBlock, channel;                        // the block's first one, the thread's
  int chunk;
  int64_t base[N];      // of the plane in which the chunk begins
  uint32_t begin, end;  // accesses of this thread, from that plane's start
  uint32_t step;

  ADJOINT_DEVICE ChannelPlace(const ChannelAccess<N>& a, unsigned block) {
    const int thread = static_cast<int>(threadIdx.x);
    chunk = static_cast<int>(block / a.groups);
    const int group = static_cast<int>(block - static_cast<unsigned>(chunk * a.groups));
    firstOfBlock = group * a.lanes * kChannels;
    channel = firstOfBlock + (thread & (a.lanes - 1)) * kChannels;
    const int64_t first = chunk * a.chunk, plane = first / a.perPlane.divisor;
    const int64_t last = first + a.chunk < a.accesses ? first + a.chunk : a.accesses;
    const auto start = static_cast<uint32_t>(first - plane * a.perPlane.divisor);
    begin = start + static_cast<uint32_t>(thread / a.lanes);
    end = isActive(a) ? start + static_cast<uint32_t>(last - first) : 0;
    step = static_cast<uint32_t>(kNormThreads / a.lanes);
    for (int k = 0; k < N; k++) {
      base[k] = plane * a.batchStride[k] + channel * a.channelStride[k];
    }
  }
  ADJOINT_DEVICE bool isActive(const ChannelAccess<N>& a) const { return channel < a.channels; }
  // Of operand k at access i in [begin, end).
  ADJOINT_DEVICE int64_t offset(const ChannelAccess<N>& a, int k, uint32_t i) const {
    const uint32_t plane = a.perPlane.quotient(i);
    return base[k] + plane * a.batchStride[k] + int64_t(i - plane * a.perPlane.divisor) * V;
  }
};

// Combines what the threads of a block bring for their J channels, in order, and calls
// store(channel, total) for each channel of the block. `shared`: kChannelSlots<J> elements.
template <int J, bool planes>
constexpr int kChannelSlots = kNormWarps*(planes ? 1 : kWarp* J);

template <int J, class Combiner, class A, class Store>
ADJOINT_DEVICE void combineChannels(const Combiner& combiner, A (&value)[J], A* shared, int lanes,
                                    const Store& store) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  for (int d = kWarp / 2; d >= lanes; d /= 2) {
    for (int c = 0; c < J; c++) {
      const A other = shuffleXor(value[c], d);
      value[c] = lane & d ? combiner.combine(other, value[c]) : combiner.combine(value[c], other);
    }
  }
  const int channels = lanes * J;
  for (int c = 0; c < J && lane < lanes; c++) shared[warp * channels + lane * J + c] = value[c];
  __syncthreads();
  for (int channel = thread; channel < channels; channel += kNormThreads) {
    A total = shared[channel];
    for (int w = 1; w < kNormWarps; w++) {
      total = combiner.combine(total, shared[w * channels + channel]);
    }
    store(channel, total);
  }
}

// `views` share their layout and dtype.
template <int N>
ChannelAccess<N> channelAccess(const View* const (&views)[N], ChannelLayout layout, int width) {
  const View& x = *views[0];
  const bool isPlanes = layout == ChannelLayout::planes;
  const int64_t inner = innerSize(x);
  ChannelAccess<N> a{};
  for (int k = 0; k < N; k++) {
    const bool isDense = !isPlanes && inner > 1;
    a.batchStride[k] = isDense ? x.size[1] : views[k]->stride[0];
    a.channelStride[k] = isPlanes ? views[k]->stride[1] : 1;
  }
  const int64_t perPlane = isPlanes ? inner / width : 1;
  a.accesses = isPlanes ? x.size[0] * perPlane : x.size[0] * inner;
  if (x.size[1] > kMaxIndex / 32 || perPlane > kMaxIndex / 4) {
    fail(ErrorKind::shape, "batchNorm: expected smaller planes or fewer channels");
  }
  a.perPlane = Divider(static_cast<uint32_t>(perPlane));
  a.channels = static_cast<int>(x.size[1]);
  a.lanes = 1;
  while (!isPlanes && a.lanes < kWarp && a.lanes * width < a.channels) a.lanes *= 2;
  a.groups = static_cast<int>(ceilDiv(a.channels, isPlanes ? 1 : a.lanes * width));
  const int64_t threads = kNormThreads / a.lanes;
  const int64_t most = ceilDiv(a.accesses, threads * 4),
                wanted = ceilDiv(isPlanes ? kPlaneBlocks : kColumnBlocks, a.groups);
  a.chunk = ceilDiv(ceilDiv(a.accesses, wanted < most ? wanted : most), threads) * threads;
  if (a.chunk > kMaxIndex / 8) a.chunk = kMaxIndex / 8 / threads * threads;
  a.chunks = static_cast<int>(ceilDiv(a.accesses, a.chunk));
  return a;
}

// The widest access of S that sizes, strides and places of all operands allow: 16 bytes, 8 of half
// types, or one element.
template <class S>
int accessWidth(std::initializer_list<const View*> views, ChannelLayout layout) {
  const bool isPlanes = layout == ChannelLayout::planes;
  for (int width = kPerAccess<S>; width == kPerAccess<S> || width >= 4; width /= 2) {
    bool fits = true;
    for (const View* v : views) {
      const int64_t outer = v->size[0] > 1 ? v->stride[0] : 0;
      const int64_t run = isPlanes ? innerSize(*v) : v->size[1];
      const int64_t other = isPlanes && v->size[1] > 1 ? v->stride[1] : 0;
      fits = fits && run % width == 0 && outer % width == 0 && other % width == 0 &&
             reinterpret_cast<uintptr_t>(v->data) % (width * sizeof(S)) == 0;
    }
    if (fits) return width;
  }
  return 1;
}

// Calls f(width, isPlanes) with them as constants.
template <class S, class F>
void visitAccess(int width, ChannelLayout layout, const F& f) {
  auto withWidth = [&](auto constant) {
    if (layout == ChannelLayout::planes) {
      f(constant, std::true_type());
    } else {
      f(constant, std::false_type());
    }
  };
  constexpr int kWide = kPerAccess<S>;
  if (width == kWide) return withWidth(std::integral_constant<int, kWide>());
  if constexpr (sizeof(S) == 2) {
    if (width == kWide / 2) return withWidth(std::integral_constant<int, kWide / 2>());
  }
  withWidth(std::integral_constant<int, 1>());
}

}  // namespace adjoint::cuda
