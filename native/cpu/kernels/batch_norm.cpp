#include "cpu/kernels/batch_norm.h"

#include "cpu/kernels/lanes.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

#define ADJOINT_LAMBDA __attribute__((always_inline))

// Elements of a lane that are added up before they join the float64 sum.
constexpr int64_t kBlockVectors = 64;
constexpr int64_t kBlockRows = 64;

// ---- planes: a channel's rows are contiguous

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

template <class T>
void sumPlanes(double* sum, const ChannelRows<const T>& x) {
  BlockedSum<T> total;
  forEachBlock<T>(
      x.rows, x.length,
      [&](int64_t row, int64_t at, int i)
          ADJOINT_LAMBDA { total.add(load(x.data + row * x.step + at), i); },
      [&](int64_t row, int64_t at)
          ADJOINT_LAMBDA { total.add(static_cast<double>(x.data[row * x.step + at])); },
      [&]() ADJOINT_LAMBDA { total.flush(); });
  sum[0] = total.total();
}

template <class T>
void squaresPlanes(double* sum, const ChannelRows<const T>& x, const T* mean) {
  const Vector<T> center = splat(mean[0]);
  BlockedSum<T> total;
  forEachBlock<T>(
      x.rows, x.length,
      [&](int64_t row, int64_t at, int i) ADJOINT_LAMBDA {
        const Vector<T> d = load(x.data + row * x.step + at) - center;
        total.add(d * d, i);
      },
      [&](int64_t row, int64_t at) ADJOINT_LAMBDA {
        const double d = static_cast<double>(x.data[row * x.step + at] - mean[0]);
        total.add(d * d);
      },
      [&]() ADJOINT_LAMBDA { total.flush(); });
  sum[0] = total.total();
}

template <class T>
void gradientSumsPlanes(double* sumDy, double* sumDyX, const ChannelRows<const T>& dy,
                        const ChannelRows<const T>& x, const T* mean) {
  const Vector<T> center = splat(mean[0]);
  BlockedSum<T> total, totalX;
  forEachBlock<T>(
      x.rows, x.length,
      [&](int64_t row, int64_t at, int i) ADJOINT_LAMBDA {
        const Vector<T> d = load(dy.data + row * dy.step + at);
        total.add(d, i);
        totalX.add(d * (load(x.data + row * x.step + at) - center), i);
      },
      [&](int64_t row, int64_t at) ADJOINT_LAMBDA {
        const T d = dy.data[row * dy.step + at];
        total.add(static_cast<double>(d));
        totalX.add(static_cast<double>(d * (x.data[row * x.step + at] - mean[0])));
      },
      [&]() ADJOINT_LAMBDA {
        total.flush();
        totalX.flush();
      });
  sumDy[0] = total.total();
  sumDyX[0] = totalX.total();
}

template <class T>
void normalizePlanes(const ChannelRows<T>& y, const ChannelRows<const T>& x, const T* mean,
                     const T* scale, const T* bias) {
  const T m = mean[0], a = scale[0], b = bias[0];
  for (int64_t row = 0; row < x.rows; row++) {
    const T* __restrict from = x.data + row * x.step;
    T* __restrict to = y.data + row * y.step;
    for (int64_t i = 0; i < x.length; i++) to[i] = a * (from[i] - m) + b;
  }
}

template <class T>
void gradientPlanes(const ChannelRows<T>& dx, const ChannelRows<const T>& dy,
                    const ChannelRows<const T>& x, const T* mean, const T* scale, const T* offset,
                    const T* slope) {
  const T m = mean[0], a = scale[0], b = offset[0], c = slope[0];
  for (int64_t row = 0; row < x.rows; row++) {
    const T* __restrict from = x.data + row * x.step;
    const T* __restrict g = dy.data + row * dy.step;
    T* __restrict to = dx.data + row * dx.step;
    for (int64_t i = 0; i < x.length; i++) to[i] = a * (g[i] - b - c * (from[i] - m));
  }
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

template <class T>
void sumColumns(double* sum, const ChannelRows<const T>& x) {
  sumColumnBlocks<T>(sum, x.rows, x.length, [&](int64_t row, int64_t c) ADJOINT_LAMBDA {
    return x.data[row * x.step + c];
  });
}

template <class T>
void squaresColumns(double* sum, const ChannelRows<const T>& x, const T* mean) {
  sumColumnBlocks<T>(sum, x.rows, x.length, [&](int64_t row, int64_t c) ADJOINT_LAMBDA {
    const T d = x.data[row * x.step + c] - mean[c];
    return d * d;
  });
}

template <class T>
void gradientSumsColumns(double* sumDy, double* sumDyX, const ChannelRows<const T>& dy,
                         const ChannelRows<const T>& x, const T* mean) {
  sumColumns(sumDy, dy);
  sumColumnBlocks<T>(sumDyX, x.rows, x.length, [&](int64_t row, int64_t c) ADJOINT_LAMBDA {
    return dy.data[row * dy.step + c] * (x.data[row * x.step + c] - mean[c]);
  });
}

template <class T>
void normalizeColumns(const ChannelRows<T>& y, const ChannelRows<const T>& x,
                      const T* __restrict mean, const T* __restrict scale,
                      const T* __restrict bias) {
  for (int64_t row = 0; row < x.rows; row++) {
    const T* __restrict from = x.data + row * x.step;
    T* __restrict to = y.data + row * y.step;
    for (int64_t c = 0; c < x.length; c++) to[c] = scale[c] * (from[c] - mean[c]) + bias[c];
  }
}

template <class T>
void gradientColumns(const ChannelRows<T>& dx, const ChannelRows<const T>& dy,
                     const ChannelRows<const T>& x, const T* __restrict mean,
                     const T* __restrict scale, const T* __restrict offset,
                     const T* __restrict slope) {
  for (int64_t row = 0; row < x.rows; row++) {
    const T* __restrict from = x.data + row * x.step;
    const T* __restrict g = dy.data + row * dy.step;
    T* __restrict to = dx.data + row * dx.step;
    for (int64_t c = 0; c < x.length; c++) {
      to[c] = scale[c] * (g[c] - offset[c] - slope[c] * (from[c] - mean[c]));
    }
  }
}

template <class T>
constexpr BatchNormKernels<T> planes() {
  return {sumPlanes<T>, squaresPlanes<T>, gradientSumsPlanes<T>, normalizePlanes<T>,
          gradientPlanes<T>};
}
template <class T>
constexpr BatchNormKernels<T> columns() {
  return {sumColumns<T>, squaresColumns<T>, gradientSumsColumns<T>, normalizeColumns<T>,
          gradientColumns<T>};
}

}  // namespace

const BatchNormTable batchNormTable = {planes<float>(), columns<float>(), planes<double>(),
                                       columns<double>()};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
