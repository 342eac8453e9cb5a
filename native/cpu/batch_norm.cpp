// Batch normalisation (Ioffe & Szegedy 2015): statistics in two passes, mean before variance.
#include "cpu/kernels/batch_norm.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "cpu/compute_view.h"
#include "cpu/pool.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kTaskElements = 1 << 14;

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

// What a task works on: one channel, or as many neighbouring ones as a row of columns takes.
template <class T, class S>
class Channels {
 public:
  // `x` stands for all tensors of the operation, which share its sizes and layout.
  Channels(const View& x, ChannelLayout layout)
      : isPlanes_(layout == ChannelLayout::planes),
        count_(x.size[1]),
        batch_(x.size[0]),
        inner_(innerSize(x)) {}

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
  template <class U>
  ChannelRows<U> rows(const View& x, int64_t channel, int64_t channels) const {
    U* data = x.as<S>() + channel * x.stride[1];
    if (isPlanes_) return {data, batch_, x.stride[0], inner_};
    return {data, batch_ * inner_, count_, channels};
  }
  int64_t elements() const { return batch_ * inner_; }  // of a channel

  // Calls body(channel, channels), in parallel.
  template <class F>
  void forEach(const F& body) const {
    const int64_t group = isPlanes_ ? 1 : std::min(kMost, count_);
    const int64_t grain = std::max<int64_t>(1, kTaskElements / (elements() * group + 1));
    parallelFor((count_ + group - 1) / group, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        body(i * group, std::min(group, count_ - i * group));
      }
    });
  }

 private:
  bool isPlanes_;
  int64_t count_, batch_, inner_;
};

template <class T, class S>
void normalize(const backend::BatchNormArgs& a, const View& y, const View& x,
               ChannelLayout layout) {
  const Channels<T, S> all(x, layout);
  const BatchNormKernels<T, S>& kernels = all.kernels();
  const auto count = static_cast<double>(all.elements());
  all.forEach([&](int64_t channel, int64_t channels) {
    double sum[all.kMost] = {}, squares[all.kMost] = {};
    T mean[all.kMost] = {}, scale[all.kMost] = {}, bias[all.kMost] = {};
    const auto rows = all.template rows<const S>(x, channel, channels);
    kernels.sum(sum, rows);
    for (int64_t i = 0; i < channels; i++) mean[i] = static_cast<T>(sum[i] / count);
    kernels.squares(squares, rows, mean);
    for (int64_t i = 0; i < channels; i++) {
      const int64_t c = channel + i;
      const double exactMean = sum[i] / count, variance = squares[i] / count;
      setElement(a.mean, c, exactMean);
      setElement(a.rstd, c, 1 / std::sqrt(variance + a.eps));
      // As stored, so that backward finds the same y.
      scale[i] = static_cast<T>(elementAt(a.rstd, c) * elementOr(a.weight, c, 1));
      bias[i] = static_cast<T>(elementOr(a.bias, c, 0));
      if (a.runningMean) {
        const double old = elementAt(*a.runningMean, c);
        setElement(*a.runningMean, c, (1 - a.momentum) * old + a.momentum * exactMean);
      }
      if (a.runningVar) {
        const double old = elementAt(*a.runningVar, c), unbiased = squares[i] / (count - 1);
        setElement(*a.runningVar, c, (1 - a.momentum) * old + a.momentum * unbiased);
      }
    }
    kernels.normalize(all.template rows<S>(y, channel, channels), rows, {mean, scale, bias},
                      a.relu);
  });
}

template <class T, class S>
void gradient(const backend::BatchNormBackwardArgs& args, const View& dx, const View& dy,
              const View& x, ChannelLayout layout) {
  const Channels<T, S> all(x, layout);
  const BatchNormKernels<T, S>& kernels = all.kernels();
  const auto count = static_cast<double>(all.elements());
  all.forEach([&](int64_t channel, int64_t channels) {
    double sumG[all.kMost] = {}, sumGX[all.kMost] = {};
    T mean[all.kMost] = {}, scale[all.kMost] = {}, bias[all.kMost] = {};
    T offset[all.kMost] = {}, slope[all.kMost] = {};
    const auto rows = all.template rows<const S>(x, channel, channels);
    const auto dyRows = all.template rows<const S>(dy, channel, channels);
    for (int64_t i = 0; i < channels; i++) {
      const int64_t c = channel + i;
      mean[i] = static_cast<T>(elementAt(args.mean, c));
      scale[i] = static_cast<T>(elementAt(args.rstd, c) * elementOr(args.weight, c, 1));
      bias[i] = static_cast<T>(elementOr(args.bias, c, 0));
    }
    const BatchNormAffine<T> affine = {mean, scale, args.relu ? bias : nullptr};
    kernels.gradientSums(sumG, sumGX, dyRows, rows, affine);
    for (int64_t i = 0; i < channels; i++) {
      const int64_t c = channel + i;
      const double rstd = elementAt(args.rstd, c);
      setElement(args.dweight, c, sumGX[i] * rstd);
      setElement(args.dbias, c, sumG[i]);
      offset[i] = static_cast<T>(sumG[i] / count);
      slope[i] = static_cast<T>(sumGX[i] * rstd * rstd / count);
    }
    kernels.gradient(all.template rows<S>(dx, channel, channels), dyRows, rows, affine, offset,
                     slope);
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
