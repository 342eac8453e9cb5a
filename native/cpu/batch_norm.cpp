// Batch normalisation (Ioffe & Szegedy 2015). The elements are cut into parts by the batch, as
// convolutions and pooling cut them, so that a part is met by the core that has just written it, or
// soon will read it; the parts' sums are added up in order. A part's squares are taken about its
// own mean, while it is in the cache.
#include "cpu/kernels/batch_norm.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "cpu/compute_view.h"
#include "cpu/pool.h"
#include "cpu/workspace.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kTaskElements = 1 << 15;
constexpr int64_t kMostParts = 64;
constexpr int64_t kCombineSums = 1 << 12;  // in one chunk

// ---- [C]: few numbers, of any dtype and stride
double elementAt(const View& x, int64_t i) {
  double value = 0;
  visitDType(x.dtype, [&](auto tag) {
    value = convert<double>(x.as<typename decltype(tag)::type>()[i * x.stride[0]]);
  });
  return value;
}
double elementOr(const View* x, int64_t i, double otherwise) {
  return x ? elementAt(*x, i) : otherwise;
}
void setElement(const View& y, int64_t i, double value) {
  void* p = y.as<char>() + i * y.stride[0] * static_cast<int64_t>(itemSize(y.dtype));
  storeScalar(p, y.dtype, Scalar::of(value));
}

// How the elements of a channel lie: in planes, in columns, or in neither way.
enum class ChannelLayout { planes, columns, other };

// Whether the axes but the channels (and the batch, unless asked for) form one of that step.
bool isEven(const View& x, int64_t step, bool withBatch) {
  for (int i = x.ndim - 1; i >= 0; i--) {
    if (i == 1 || (i == 0 && !withBatch) || x.size[i] == 1) continue;
    if (x.stride[i] != step) return false;
    step *= x.size[i];
  }
  return true;
}

int64_t innerSize(const View& x) {
  int64_t n = 1;
  for (int i = 2; i < x.ndim; i++) n *= x.size[i];
  return n;
}

ChannelLayout layoutOf(const View& x) {
  if (innerSize(x) > 1 && isEven(x, 1, false)) return ChannelLayout::planes;
  if ((x.stride[1] == 1 || x.size[1] == 1) && isEven(x, x.size[1], true)) {
    return ChannelLayout::columns;
  }
  return ChannelLayout::other;
}

// The layout that all of the tensors share; `other` asks for dense copies.
ChannelLayout sharedLayout(std::initializer_list<const View*> views) {
  const View& first = **views.begin();
  const ChannelLayout layout = layoutOf(first);
  for (const View* v : views) {
    if (layoutOf(*v) != layout || v->dtype != first.dtype) return ChannelLayout::other;
  }
  return layout;
}

// What kernels read and write: bfloat16 as it is, unless copies are made anyway.
DType formOf(DType dtype, ChannelLayout shared) {
  const bool isStored = dtype == DType::bfloat16 && shared != ChannelLayout::other;
  return isStored ? dtype : computeDType(dtype);
}

// Calls f(TypeTag<T>, TypeTag<S>) with the type to compute in and that of the elements.
template <class F>
void visitElements(DType dtype, F f) {
  if (dtype == DType::bfloat16) return f(TypeTag<float>(), TypeTag<BFloat16>());
  visitFloat(dtype, [&](auto tag) { f(tag, tag); });
}

// Who works on what: a task takes a part, in it one channel after the other, or as many
// neighbouring ones as a row of columns takes.
template <class T, class S>
class Channels {
 public:
  // `x` stands for all tensors of the operation, which share its sizes and layout.
  Channels(const View& x, ChannelLayout layout)
      : isPlanes_(layout == ChannelLayout::planes),
        count_(x.size[1]),
        batch_(isPlanes_ ? x.size[0] : x.size[0] * innerSize(x)),
        inner_(isPlanes_ ? innerSize(x) : 1) {
    const int64_t wanted = std::clamp<int64_t>(x.numel() / kTaskElements, 1, kMostParts);
    batchParts_ = std::min(batch_, wanted);
    innerParts_ = std::min(inner_, (wanted - 1) / batchParts_ + 1);
  }

  static constexpr int64_t kMost = kBatchNormColumns;

  const BatchNormKernels<T, S>& kernels() const {
    const BatchNormTable& table = batchNormTable();
    if constexpr (std::is_same<S, BFloat16>::value) {
      return isPlanes_ ? table.planesBf16 : table.columnsBf16;
    } else if constexpr (std::is_same<T, float>::value) {
      return isPlanes_ ? table.planes32 : table.columns32;
    } else {
      return isPlanes_ ? table.planes64 : table.columns64;
    }
  }
  int64_t count() const { return count_; }
  int64_t parts() const { return batchParts_ * innerParts_; }
  double elements() const { return static_cast<double>(batch_) * inner_; }  // of a channel

  // Rows (images of planes) and, in each, elements.
  struct Part {
    int64_t index, row, rows, begin, length;
    double elements() const { return static_cast<double>(rows) * length; }  // of a channel
  };
  Part operator[](int64_t part) const {
    const int64_t i = part / innerParts_, j = part % innerParts_;
    const int64_t row = batch_ * i / batchParts_, begin = inner_ * j / innerParts_;
    return {part, row, batch_ * (i + 1) / batchParts_ - row, begin,
            inner_ * (j + 1) / innerParts_ - begin};
  }
  template <class U>
  ChannelRows<U> rows(const View& x, const Part& p, int64_t channel, int64_t channels) const {
    U* data = x.as<S>() + channel * x.stride[1];
    if (isPlanes_) return {data + p.row * x.stride[0] + p.begin, p.rows, x.stride[0], p.length};
    return {data + p.row * count_, p.rows, count_, channels};
  }

  // Calls body(part, channel, channels) for all channels of all parts, the parts in parallel.
  template <class F>
  void forEach(const F& body) const {
    const int64_t group = isPlanes_ ? 1 : kMost;
    parallelFor(parts(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const Part part = (*this)[i];
        for (int64_t c = 0; c < count_; c += group) body(part, c, std::min(group, count_ - c));
      }
    });
  }
  // Calls body(channel) for each, in parallel: what follows from the sums of its parts.
  template <class F>
  void forEachChannel(const F& body) const {
    parallelFor(count_, std::max<int64_t>(1, kCombineSums / parts()),
                [&](int64_t begin, int64_t end) {
                  for (int64_t c = begin; c < end; c++) body(c);
                });
  }

 private:
  bool isPlanes_;
  int64_t count_, batch_, inner_;
  int64_t batchParts_, innerParts_;
};

// Two sums of each channel in each part, and the numbers that all parts read: arrays of a number a
// channel.
template <class T>
class Statistics {
 public:
  Statistics(int64_t channels, int64_t parts, int64_t arrays)
      : channels_(channels),
        sums_(2 * channels * parts * sizeof(double)),
        numbers_(arrays * channels * sizeof(T)) {}
  double* first(int64_t part) { return sums_.template as<double>() + 2 * part * channels_; }
  double* second(int64_t part) { return first(part) + channels_; }
  T* array(int64_t i) { return numbers_.template as<T>() + i * channels_; }

 private:
  int64_t channels_;
  Workspace sums_, numbers_;
};

template <class T, class S>
void normalize(const backend::BatchNormArgs& a, const View& y, const View& x,
               ChannelLayout layout) {
  const Channels<T, S> all(x, layout);
  const BatchNormKernels<T, S>& kernels = all.kernels();
  Statistics<T> statistics(all.count(), all.parts(), 3);
  T *const mean = statistics.array(0), *const scale = statistics.array(1);
  T* const bias = statistics.array(2);
  std::vector<double> sizes(all.parts());
  for (size_t part = 0; part < sizes.size(); part++) sizes[part] = all[part].elements();
  // What the squares of a part are taken about.
  const auto center = [&](double sum, int64_t part) { return static_cast<T>(sum / sizes[part]); };
  all.forEach([&](const auto& part, int64_t channel, int64_t channels) {
    double* const sum = statistics.first(part.index) + channel;
    double* const squares = statistics.second(part.index) + channel;
    std::fill_n(sum, channels, 0.0);
    std::fill_n(squares, channels, 0.0);
    const auto rows = all.template rows<const S>(x, part, channel, channels);
    kernels.sum(sum, rows);
    T centers[all.kMost];
    for (int64_t i = 0; i < channels; i++) centers[i] = center(sum[i], part.index);
    kernels.squares(squares, rows, centers);
  });
  all.forEachChannel([&](int64_t c) {
    const double count = all.elements();
    double sum = 0, squares = 0;
    for (int64_t part = 0; part < all.parts(); part++) sum += statistics.first(part)[c];
    const double exactMean = sum / count;
    // Sum (x - mean)^2 = sum (x - m)^2 + 2 (m - mean) sum (x - m) + n (m - mean)^2
    for (int64_t part = 0; part < all.parts(); part++) {
      const double partSum = statistics.first(part)[c], n = sizes[part];
      const double m = center(partSum, part), off = m - exactMean;
      squares += statistics.second(part)[c] + off * (2 * (partSum - n * m) + n * off);
    }
    const double variance = squares / count;
    setElement(a.mean, c, exactMean);
    setElement(a.rstd, c, 1 / std::sqrt(variance + a.eps));
    mean[c] = static_cast<T>(exactMean);
    // As stored, so that backward finds the same y.
    scale[c] = static_cast<T>(elementAt(a.rstd, c) * elementOr(a.weight, c, 1));
    bias[c] = static_cast<T>(elementOr(a.bias, c, 0));
    if (a.runningMean) {
      const double old = elementAt(*a.runningMean, c);
      setElement(*a.runningMean, c, (1 - a.momentum) * old + a.momentum * exactMean);
    }
    if (a.runningVar) {
      const double old = elementAt(*a.runningVar, c), unbiased = squares / (count - 1);
      setElement(*a.runningVar, c, (1 - a.momentum) * old + a.momentum * unbiased);
    }
  });
  all.forEach([&](const auto& part, int64_t channel, int64_t channels) {
    kernels.normalize(all.template rows<S>(y, part, channel, channels),
                      all.template rows<const S>(x, part, channel, channels),
                      {mean + channel, scale + channel, bias + channel}, a.relu);
  });
}

template <class T, class S>
void gradient(const backend::BatchNormBackwardArgs& args, const View& dx, const View& dy,
              const View& x, ChannelLayout layout) {
  const Channels<T, S> all(x, layout);
  const BatchNormKernels<T, S>& kernels = all.kernels();
  Statistics<T> statistics(all.count(), all.parts(), 5);
  T *const mean = statistics.array(0), *const scale = statistics.array(1);
  T *const bias = statistics.array(2), *const offset = statistics.array(3);
  T* const slope = statistics.array(4);
  for (int64_t c = 0; c < all.count(); c++) {
    mean[c] = static_cast<T>(elementAt(args.mean, c));
    scale[c] = static_cast<T>(elementAt(args.rstd, c) * elementOr(args.weight, c, 1));
    bias[c] = static_cast<T>(elementOr(args.bias, c, 0));
  }
  const auto affine = [&](int64_t channel) {
    return BatchNormAffine<T>{mean + channel, scale + channel,
                              args.relu ? bias + channel : nullptr};
  };
  all.forEach([&](const auto& part, int64_t channel, int64_t channels) {
    double* const sumG = statistics.first(part.index) + channel;
    double* const sumGX = statistics.second(part.index) + channel;
    std::fill_n(sumG, channels, 0.0);
    std::fill_n(sumGX, channels, 0.0);
    kernels.gradientSums(sumG, sumGX, all.template rows<const S>(dy, part, channel, channels),
                         all.template rows<const S>(x, part, channel, channels), affine(channel));
  });
  all.forEachChannel([&](int64_t c) {
    const double count = all.elements(), rstd = elementAt(args.rstd, c);
    double sumG = 0, sumGX = 0;
    for (int64_t part = 0; part < all.parts(); part++) {
      sumG += statistics.first(part)[c];
      sumGX += statistics.second(part)[c];
    }
    setElement(args.dweight, c, sumGX * rstd);
    setElement(args.dbias, c, sumG);
    offset[c] = static_cast<T>(sumG / count);
    slope[c] = static_cast<T>(sumGX * rstd * rstd / count);
  });
  all.forEach([&](const auto& part, int64_t channel, int64_t channels) {
    kernels.gradient(all.template rows<S>(dx, part, channel, channels),
                     all.template rows<const S>(dy, part, channel, channels),
                     all.template rows<const S>(x, part, channel, channels), affine(channel),
                     offset + channel, slope + channel);
  });
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

void batchNorm(const BatchNormArgs& a) {
  using namespace cpu;
  if (a.x.numel() == 0) return;
  const ChannelLayout shared = sharedLayout({&a.x, &a.y});
  const Layout wanted = shared == ChannelLayout::other ? Layout::dense : Layout::any;
  const DType form = formOf(a.x.dtype, shared);
  const ComputeInput x(a.x, wanted, form);
  ComputeOutput y(a.y, wanted, form);
  visitElements(form, [&](auto compute, auto stored) {
    using T = typename decltype(compute)::type;
    normalize<T, typename decltype(stored)::type>(a, y.view(), x.view(), layoutOf(x.view()));
  });
  y.finish();
}

void batchNormBackward(const BatchNormBackwardArgs& a) {
  using namespace cpu;
  if (a.x.numel() == 0) {
    fill(a.dweight, Scalar::of(0.0));
    fill(a.dbias, Scalar::of(0.0));
    return;
  }
  const ChannelLayout shared = sharedLayout({&a.x, &a.dy, &a.dx});
  const Layout wanted = shared == ChannelLayout::other ? Layout::dense : Layout::any;
  const DType form = formOf(a.x.dtype, shared);
  const ComputeInput x(a.x, wanted, form), dy(a.dy, wanted, form);
  ComputeOutput dx(a.dx, wanted, form);
  visitElements(form, [&](auto compute, auto stored) {
    using T = typename decltype(compute)::type;
    gradient<T, typename decltype(stored)::type>(a, dx.view(), dy.view(), x.view(),
                                                 layoutOf(x.view()));
  });
  dx.finish();
}

}  // namespace adjoint::backend
