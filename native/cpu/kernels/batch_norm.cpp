#include "cpu/kernels/batch_norm.h"

#include "cpu/kernels/bf16_lanes.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

#define ADJOINT_LAMBDA __attribute__((always_inline))

// Elements of a lane that are added up before they join the float64 sum.
constexpr int64_t kBlockVectors = 64;
constexpr int64_t kBlockRows = 64;

template <class T>
ADJOINT_INLINE T rectified(T y) {
  return y <= T(0) ? T(0) : y;
}

// ---- planes: a channel's rows are contiguous

// The next row is asked for while this one is read or written: rows are about as long as a page,
// beyond which the processor does not look ahead by itself. Addresses past the end do no harm.
template <int forWriting = 0, class S>
ADJOINT_INLINE void fetchRowAfter(const ChannelRows<S>& rows, int64_t row, int64_t at) {
  __builtin_prefetch(rows.data + (row + 1) * rows.step + at, forWriting);
}

// Sums of several vectors side by side hide the latency of an addition.
constexpr int kSums = 4;

template <class T>
class BlockedSum {
 public:
  ADJOINT_INLINE void add(Vector<T> x, int at) { block_[at] += x; }
  ADJOINT_INLINE void add(double x) { total_ += x; }
  ADJOINT_INLINE void flush() {
    total_ += static_cast<double>(sumLanes<T>((block_[0] + block_[1]) + (block_[2] + block_[3])));
    for (int i = 0; i < kSums; i++) block_[i] = Vector<T>{};
  }
  double total() const { return total_; }

 private:
  Vector<T> block_[kSums] = {};
  double total_ = 0;
};

// Calls part(row, at, i) for the vectors of each row, i < kSums; rest(row, at) for each element
// left over; and flush() after every block of vectors.
template <class T, class Part, class Rest, class Flush>
ADJOINT_INLINE void forEachBlock(int64_t rows, int64_t length, Part part, Rest rest, Flush flush) {
  constexpr int64_t lanes = kLanes<T>;
  int64_t pending = 0;
  for (int64_t row = 0; row < rows; row++) {
    int64_t at = 0;
    while (at + lanes <= length) {
      const int64_t wanted = at + (kBlockVectors - pending) * lanes;
      const int64_t end = wanted < length ? wanted : length;
      const int64_t begin = at;
      for (; at + kSums * lanes <= end; at += kSums * lanes) {
#pragma GCC unroll 4
        for (int i = 0; i < kSums; i++) part(row, at + i * lanes, i);
      }
      for (; at + lanes <= end; at += lanes) part(row, at, 0);
      pending += (at - begin) / lanes;
      if (pending == kBlockVectors) {
        flush();
        pending = 0;
      }
    }
    for (; at < length; at++) rest(row, at);
  }
  flush();
}

template <class T, class S>
void sumPlanes(double* sum, const ChannelRows<const S>& x) {
  BlockedSum<T> total;
  forEachBlock<T>(
      x.rows, x.length,
      [&](int64_t row, int64_t at, int i) ADJOINT_LAMBDA {
        fetchRowAfter(x, row, at);
        total.add(loadElements(x.data + row * x.step + at), i);
      },
      [&](int64_t row, int64_t at)
          ADJOINT_LAMBDA { total.add(convert<double>(x.data[row * x.step + at])); },
      [&]() ADJOINT_LAMBDA { total.flush(); });
  sum[0] = total.total();
}

template <class T, class S>
void squaresPlanes(double* sum, const ChannelRows<const S>& x, const T* mean) {
  const Vector<T> center = splat(mean[0]);
  BlockedSum<T> total;
  forEachBlock<T>(
      x.rows, x.length,
      [&](int64_t row, int64_t at, int i) ADJOINT_LAMBDA {
        const Vector<T> d = loadElements(x.data + row * x.step + at) - center;
        total.add(d * d, i);
      },
      [&](int64_t row, int64_t at) ADJOINT_LAMBDA {
        const double d = static_cast<double>(convert<T>(x.data[row * x.step + at]) - mean[0]);
        total.add(d * d);
      },
      [&]() ADJOINT_LAMBDA { total.flush(); });
  sum[0] = total.total();
}

// The gradient that passes the rectification: 0 where y = scale (x - mean) + bias <= 0. T is a
// number or a vector.
template <bool Relu, class V>
ADJOINT_INLINE V passed(V dy, V centered, V scale, V bias) {
  if constexpr (!Relu) return dy;
  return scale * centered + bias <= V{} ? V{} : dy;
}

template <class T, class S, bool Relu>
void gradientSumsPlane(double* sumG, double* sumGX, const ChannelRows<const S>& dy,
                       const ChannelRows<const S>& x, const BatchNormAffine<T>& affine) {
  const T m = affine.mean[0], a = affine.scale[0], b = Relu ? affine.bias[0] : T(0);
  const Vector<T> center = splat(m), scale = splat(a), bias = splat(b);
  BlockedSum<T> total, totalX;
  forEachBlock<T>(
      x.rows, x.length,
      [&](int64_t row, int64_t at, int i) ADJOINT_LAMBDA {
        fetchRowAfter(x, row, at);
        fetchRowAfter(dy, row, at);
        const Vector<T> d = loadElements(x.data + row * x.step + at) - center;
        const Vector<T> g =
            passed<Relu>(loadElements(dy.data + row * dy.step + at), d, scale, bias);
        total.add(g, i);
        totalX.add(g * d, i);
      },
      [&](int64_t row, int64_t at) ADJOINT_LAMBDA {
        const T d = convert<T>(x.data[row * x.step + at]) - m;
        const T g = passed<Relu>(convert<T>(dy.data[row * dy.step + at]), d, a, b);
        total.add(static_cast<double>(g));
        totalX.add(static_cast<double>(g * d));
      },
      [&]() ADJOINT_LAMBDA {
        total.flush();
        totalX.flush();
      });
  sumG[0] = total.total();
  sumGX[0] = totalX.total();
}

template <class T, class S>
void gradientSumsPlanes(double* sumG, double* sumGX, const ChannelRows<const S>& dy,
                        const ChannelRows<const S>& x, const BatchNormAffine<T>& affine) {
  const auto run = affine.bias ? gradientSumsPlane<T, S, true> : gradientSumsPlane<T, S, false>;
  run(sumG, sumGX, dy, x, affine);
}

template <class T, class S>
void normalizePlanes(const ChannelRows<S>& y, const ChannelRows<const S>& x,
                     const BatchNormAffine<T>& affine, bool relu) {
  constexpr int64_t lanes = kLanes<T>;
  const auto m = splat(affine.mean[0]), a = splat(affine.scale[0]), b = splat(affine.bias[0]);
  const auto normal = [&](Vector<T> from) ADJOINT_LAMBDA {
    const Vector<T> to = a * (from - m) + b;
    return relu ? (to <= Vector<T>{} ? Vector<T>{} : to) : to;
  };
  for (int64_t row = 0; row < x.rows; row++) {
    const S* from = x.data + row * x.step;
    S* to = y.data + row * y.step;
    int64_t i = 0;
    for (; i + lanes <= x.length; i += lanes) {
      fetchRowAfter<1>(y, row, i);
      storeElements(to + i, normal(loadElements(from + i)));
    }
    if (i < x.length) {
      storeFirst(to + i, normal(loadFirst(from + i, x.length - i)), x.length - i);
    }
  }
}

template <class T, class S, bool Relu>
void gradientPlane(const ChannelRows<S>& dx, const ChannelRows<const S>& dy,
                   const ChannelRows<const S>& x, const BatchNormAffine<T>& affine, const T* offset,
                   const T* slope) {
  constexpr int64_t lanes = kLanes<T>;
  const auto m = splat(affine.mean[0]), a = splat(affine.scale[0]), b = splat(offset[0]);
  const auto c = splat(slope[0]), y0 = splat(Relu ? affine.bias[0] : T(0));
  const auto gradient = [&](Vector<T> from, Vector<T> g) ADJOINT_LAMBDA {
    const Vector<T> d = from - m;
    return a * (passed<Relu>(g, d, a, y0) - b - c * d);
  };
  for (int64_t row = 0; row < x.rows; row++) {
    const S* from = x.data + row * x.step;
    const S* g = dy.data + row * dy.step;
    S* to = dx.data + row * dx.step;
    int64_t i = 0;
    for (; i + lanes <= x.length; i += lanes) {
      fetchRowAfter<1>(dx, row, i);
      storeElements(to + i, gradient(loadElements(from + i), loadElements(g + i)));
    }
    const int64_t rest = x.length - i;
    if (rest > 0) {
      storeFirst(to + i, gradient(loadFirst(from + i, rest), loadFirst(g + i, rest)), rest);
    }
  }
}

template <class T, class S>
void gradientPlanes(const ChannelRows<S>& dx, const ChannelRows<const S>& dy,
                    const ChannelRows<const S>& x, const BatchNormAffine<T>& affine,
                    const T* offset, const T* slope) {
  const auto run = affine.bias ? gradientPlane<T, S, true> : gradientPlane<T, S, false>;
  run(dx, dy, x, affine, offset, slope);
}

// ---- columns: a row has neighbouring channels

// block[c] += part(row, c) over blocks of rows, whose sums join total in float64
template <class T, class Part>
ADJOINT_INLINE void sumColumnBlocks(double* total, int64_t rows, int64_t length, Part part) {
  for (int64_t c = 0; c < length; c++) total[c] = 0;
  for (int64_t begin = 0; begin < rows; begin += kBlockRows) {
    const int64_t end = rows - begin < kBlockRows ? rows : begin + kBlockRows;
    T block[kBatchNormColumns] = {};
    for (int64_t row = begin; row < end; row++) {
      for (int64_t c = 0; c < length; c++) block[c] += part(row, c);
    }
    for (int64_t c = 0; c < length; c++) total[c] += static_cast<double>(block[c]);
  }
}

template <class T, class S>
void sumColumns(double* sum, const ChannelRows<const S>& x) {
  sumColumnBlocks<T>(sum, x.rows, x.length, [&](int64_t row, int64_t c) ADJOINT_LAMBDA {
    return convert<T>(x.data[row * x.step + c]);
  });
}

template <class T, class S>
void squaresColumns(double* sum, const ChannelRows<const S>& x, const T* mean) {
  sumColumnBlocks<T>(sum, x.rows, x.length, [&](int64_t row, int64_t c) ADJOINT_LAMBDA {
    const T d = convert<T>(x.data[row * x.step + c]) - mean[c];
    return d * d;
  });
}

template <class T, class S, bool Relu>
void gradientSumsColumn(double* sumG, double* sumGX, const ChannelRows<const S>& dy,
                        const ChannelRows<const S>& x, const BatchNormAffine<T>& affine) {
  const auto centered = [&](int64_t row, int64_t c) ADJOINT_LAMBDA {
    return convert<T>(x.data[row * x.step + c]) - affine.mean[c];
  };
  const auto g = [&](int64_t row, int64_t c) ADJOINT_LAMBDA {
    return passed<Relu>(convert<T>(dy.data[row * dy.step + c]), centered(row, c), affine.scale[c],
                        Relu ? affine.bias[c] : T(0));
  };
  sumColumnBlocks<T>(sumG, x.rows, x.length, g);
  sumColumnBlocks<T>(sumGX, x.rows, x.length, [&](int64_t row, int64_t c) ADJOINT_LAMBDA {
    return g(row, c) * centered(row, c);
  });
}

template <class T, class S>
void gradientSumsColumns(double* sumG, double* sumGX, const ChannelRows<const S>& dy,
                         const ChannelRows<const S>& x, const BatchNormAffine<T>& affine) {
  const auto run = affine.bias ? gradientSumsColumn<T, S, true> : gradientSumsColumn<T, S, false>;
  run(sumG, sumGX, dy, x, affine);
}

template <class T, class S>
void normalizeColumns(const ChannelRows<S>& y, const ChannelRows<const S>& x,
                      const BatchNormAffine<T>& affine, bool relu) {
  const T* __restrict m = affine.mean, * __restrict a = affine.scale, * __restrict b = affine.bias;
  for (int64_t row = 0; row < x.rows; row++) {
    const S* __restrict from = x.data + row * x.step;
    S* __restrict to = y.data + row * y.step;
    if (relu) {
      for (int64_t c = 0; c < x.length; c++) {
        to[c] = convert<S>(rectified(a[c] * (convert<T>(from[c]) - m[c]) + b[c]));
      }
    } else {
      for (int64_t c = 0; c < x.length; c++) {
        to[c] = convert<S>(a[c] * (convert<T>(from[c]) - m[c]) + b[c]);
      }
    }
  }
}

template <class T, class S, bool Relu>
void gradientColumn(const ChannelRows<S>& dx, const ChannelRows<const S>& dy,
                    const ChannelRows<const S>& x, const BatchNormAffine<T>& affine,
                    const T* __restrict offset, const T* __restrict slope) {
  const T* __restrict m = affine.mean, * __restrict a = affine.scale, * __restrict b = affine.bias;
  for (int64_t row = 0; row < x.rows; row++) {
    const S* __restrict from = x.data + row * x.step;
    const S* __restrict g = dy.data + row * dy.step;
    S* __restrict to = dx.data + row * dx.step;
    for (int64_t c = 0; c < x.length; c++) {
      const T d = convert<T>(from[c]) - m[c];
      const T passing = passed<Relu>(convert<T>(g[c]), d, a[c], Relu ? b[c] : T(0));
      to[c] = convert<S>(a[c] * (passing - offset[c] - slope[c] * d));
    }
  }
}

template <class T, class S>
void gradientColumns(const ChannelRows<S>& dx, const ChannelRows<const S>& dy,
                     const ChannelRows<const S>& x, const BatchNormAffine<T>& affine,
                     const T* offset, const T* slope) {
  const auto run = affine.bias ? gradientColumn<T, S, true> : gradientColumn<T, S, false>;
  run(dx, dy, x, affine, offset, slope);
}

template <class T, class S = T>
constexpr BatchNormKernels<T, S> planes() {
  return {sumPlanes<T, S>, squaresPlanes<T, S>, normalizePlanes<T, S>, gradientSumsPlanes<T, S>,
          gradientPlanes<T, S>};
}
template <class T, class S = T>
constexpr BatchNormKernels<T, S> columns() {
  return {sumColumns<T, S>, squaresColumns<T, S>, normalizeColumns<T, S>, gradientSumsColumns<T, S>,
          gradientColumns<T, S>};
}

}  // namespace

const BatchNormTable batchNormTable = {planes<float>(),           columns<float>(),
                                       planes<double>(),          columns<double>(),
                                       planes<float, BFloat16>(), columns<float, BFloat16>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
