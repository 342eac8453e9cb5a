// What the kernels of max pooling share: how images are numbered, and where windows lie. A thread
// makes an element, or a few neighbours: along the width, or along the channels where these are
// innermost in memory.
#pragma once
#include <algorithm>

#include "contract.h"
#include "cuda/wide.h"
#include "shared/pool_checks.h"

namespace adjoint::cuda {

using backend::Pool2dShape;
constexpr int kPoolThreads = 256;

struct Place {
  uint32_t n, c, h, w;
};

// Images [n, c, h, w] numbered in the order of memory; innermost are w, or c with channelsLast. The
// innermost axis may go V elements at a time.
template <bool channelsLast>
struct Numbering {
  Divider first, second, third;  // from the innermost axis: w, h, c or c, w, h
  uint32_t count;

  Numbering(const View& v, int width) {
    const auto size = [&](int axis) { return static_cast<uint32_t>(v.size[axis]); };
    const auto inner = size(channelsLast ? 1 : 3) / static_cast<uint32_t>(width);
    first = Divider(inner);
    second = Divider(size(channelsLast ? 3 : 2));
    third = Divider(size(channelsLast ? 2 : 1));
    count = inner * second.divisor * third.divisor * size(0);
  }
  // The innermost coordinate counts groups of V.
  ADJOINT_DEVICE Place at(uint32_t i) const {
    const uint32_t rows = first.quotient(i), planes = second.quotient(rows);
    const uint32_t n = third.quotient(planes);
    const uint32_t a = i - rows * first.divisor, b = rows - planes * second.divisor;
    const uint32_t c = planes - n * third.divisor;
    if (channelsLast) return {n, a, c, b};
    return {n, c, b, a};
  }
};

struct Images {
  void* data;
  int64_t stride[4];

  explicit Images(const View& v) : data(v.data) {
    for (int i = 0; i < 4; i++) stride[i] = v.stride[i];
  }
  ADJOINT_DEVICE int64_t plane(const Place& at) const {
    return at.n * stride[0] + at.c * stride[1];
  }
};

// Taps [n, c, p, q], stored as uint8 or int32.
struct TapImages : Images {
  bool areBytes;

  explicit TapImages(const View& v) : Images(v), areBytes(v.dtype == DType::uint8) {}
  template <int V>
  ADJOINT_DEVICE Wide<int32_t, V> load(int64_t at) const {
    if (!areBytes) return *reinterpret_cast<const Wide<int32_t, V>*>(as<int32_t>() + at);
    const auto bytes = *reinterpret_cast<const Wide<uint8_t, V>*>(as<uint8_t>() + at);
    Wide<int32_t, V> taps;
    for (int j = 0; j < V; j++) taps.value[j] = bytes.value[j];
    return taps;
  }
  template <int V>
  ADJOINT_DEVICE void store(int64_t at, const Wide<int32_t, V>& taps) const {
    if (!areBytes) {
      *reinterpret_cast<Wide<int32_t, V>*>(as<int32_t>() + at) = taps;
      return;
    }
    Wide<uint8_t, V> bytes;
    for (int j = 0; j < V; j++) bytes.value[j] = static_cast<uint8_t>(taps.value[j]);
    *reinterpret_cast<Wide<uint8_t, V>*>(as<uint8_t>() + at) = bytes;
  }

 private:
  template <class T>
  ADJOINT_DEVICE T* as() const {
    return static_cast<T*>(data);
  }
};

struct Window {
  int64_t h, w, p, q, kernelH, kernelW, padH, padW, dilationH, dilationW;
  Divider strideH, strideW, tapsInRow;

  Window(const char* op, const View& x, const View& y, const Pool2dShape& s)
      : h(x.size[2]),
        w(x.size[3]),
        p(y.size[2]),
        q(y.size[3]),
        kernelH(s.kernelH),
        kernelW(s.kernelW),
        padH(s.padH),
        padW(s.padW),
        dilationH(s.dilationH),
        dilationW(s.dilationW) {
    const int64_t highest = s.padH + h + s.kernelH, widest = s.padW + w + s.kernelW;
    if (highest > kMaxIndex || widest > kMaxIndex) {
      fail(ErrorKind::shape, "%s: expected an image and windows of fewer than 2^31 pixels", op);
    }
    // A stride beyond the image is as good as any other.
    strideH = Divider(static_cast<uint32_t>(s.strideH < highest ? s.strideH : highest));
    strideW = Divider(static_cast<uint32_t>(s.strideW < widest ? s.strideW : widest));
    tapsInRow = Divider(static_cast<uint32_t>(kernelW));
  }
  // The pixel h W + w at a tap of window [p, q]; -1 outside the image.
  ADJOINT_DEVICE int64_t pixel(int64_t fromP, int64_t fromQ, int32_t tap) const {
    const uint32_t down = tapsInRow.quotient(static_cast<uint32_t>(tap));
    const uint32_t right = static_cast<uint32_t>(tap) - down * tapsInRow.divisor;
    const int64_t row = fromP * strideH.divisor - padH + down * dilationH;
    const int64_t column = fromQ * strideW.divisor - padW + right * dilationW;
    const bool isInside = row >= 0 && row < h && column >= 0 && column < w;
    return isInside ? row * w + column : -1;
  }
  bool isSquare(int64_t kernel) const {
    return kernelH == kernel && kernelW == kernel && dilationH == 1 && dilationW == 1;
  }
  // 2 x 2 windows side by side
  bool isPairs() const {
    return isSquare(2) && strideH.divisor == 2 && strideW.divisor == 2 && padH == 0 && padW == 0;
  }
};

// Whether V elements along `inner` lie together and aligned, in every row.
inline bool moveTogether(const View& v, int inner, int width) {
  if (width == 1) return true;
  if (v.stride[inner] != 1 || v.size[inner] % width != 0) return false;
  for (int axis = 0; axis < 4; axis++) {
    if (axis != inner && v.size[axis] > 1 && v.stride[axis] % width != 0) return false;
  }
  return reinterpret_cast<uintptr_t>(v.data) % (itemSize(v.dtype) * static_cast<size_t>(width)) ==
         0;
}

inline bool isChannelsLast(const View& v) {
  return v.size[1] > 1 && v.size[3] > 1 &&
         detail::magnitude(v.stride[1]) < detail::magnitude(v.stride[3]);
}

// Calls f with parts of the views [N, ..] of at most 2^31 elements each.
template <int N, class F>
void forEachBatch(const char* op, const View (&views)[N], const F& f) {
  int64_t most = 1;  // elements of an image
  for (const View& v : views) most = std::max(most, v.size[1] * v.size[2] * v.size[3]);
  const int64_t images = views[0].size[0], batch = kMaxIndex / most;
  if (batch == 0) fail(ErrorKind::shape, "%s: expected images of fewer than 2^31 elements", op);
  for (int64_t n = 0; n < images; n += batch) {
    View part[N];
    for (int k = 0; k < N; k++) {
      part[k] = views[k];
      part[k].size[0] = std::min(batch, images - n);
      part[k].data = static_cast<char*>(part[k].data) +
                     n * part[k].stride[0] * static_cast<int64_t>(itemSize(part[k].dtype));
    }
    f(part);
  }
}

template <bool channelsLast, class Kernel, class Access, class Args>
void launchOver(const View& v, int width, Kernel kernel, const Access& access, const Args& args) {
  const Numbering<channelsLast> numbering(v, width);
  launch(gridFor(numbering.count, kPoolThreads), kPoolThreads, 0, stream(), kernel, access,
         numbering, args);
}

}  // namespace adjoint::cuda
