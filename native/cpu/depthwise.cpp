// Depthwise convolutions: each filter sees one channel.
#include "cpu/kernels/depthwise.h"

#include <vector>

#include "cpu/conv2d.h"
#include "cpu/pool.h"
#include "cpu/workspace.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kBlockPixels = 8192;  // of an image at a time: its slab stays in the cache
constexpr int64_t kTaskOperations = 1 << 16;

template <class T>
const DepthwiseKernels<T>& depthwiseKernels();
template <>
const DepthwiseKernels<float>& depthwiseKernels<float>() {
  return depthwiseTable().f32;
}
template <>
const DepthwiseKernels<double>& depthwiseKernels<double>() {
  return depthwiseTable().f64;
}

// The blocks of rows of an image, whose slabs are filled one after the other.
template <class T>
class ChannelSlabs {
 public:
  ChannelSlabs(const View& x, const ConvSizes& z)
      : x_(x),
        z_(z),
        kernels_(conv2dKernels<T>()),
        blockRows_(z.blockRows(kBlockPixels)),
        window_(z.window(blockRows_)),
        offset_(z.depth) {
    kernels_.tapOffsets(offset_.data(), window_, 0, z.depth);
  }
  const ConvWindow& window() const { return window_; }
  const int64_t* offset() const { return offset_.data(); }
  size_t bytes() const { return (window_.slabChannel + z_.slabSlack()) * sizeof(T); }

  // Calls body(p, rows) with the slab of rows p.. of the output of an image's channel in `slab`.
  template <class F>
  void forEach(T* slab, int64_t image, int64_t channel, const F& body) const {
    for (int64_t p = 0; p < z_.p; p += blockRows_) {
      const int64_t rows = std::min(blockRows_, z_.p - p);
      kernels_.fillSlab(slab, imageOf<T, const T>(x_, image, channel, 1), window_,
                        p * z_.shape.strideH - z_.shape.padH, -z_.shape.padW, z_.slabRows(rows));
      body(p, rows);
    }
  }

 private:
  const View& x_;
  const ConvSizes& z_;
  const Conv2dKernels<T>& kernels_;
  const int64_t blockRows_;
  const ConvWindow window_;
  std::vector<int64_t> offset_;
};

int64_t grainOf(double operations) {
  return std::max<int64_t>(1, static_cast<int64_t>(kTaskOperations / (operations + 1)));
}

}  // namespace

template <class T>
void convolveDepthwise(const View& y, const View& x, const View& weight, const View* bias,
                       const ConvSizes& z) {
  const DepthwiseKernels<T>& kernels = depthwiseKernels<T>();
  const ChannelSlabs<T> slabs(x, z);
  const int64_t grain = grainOf(static_cast<double>(z.k) * z.p * z.q * z.depth);
  parallelFor(z.n * z.groups, grain, [&](int64_t begin, int64_t end) {
    Workspace space(slabs.bytes());
    T* slab = space.as<T>();
    for (int64_t i = begin; i < end; i++) {
      const int64_t n = i / z.groups, g = i % z.groups;
      slabs.forEach(slab, n, g, [&](int64_t p, int64_t rows) {
        for (int64_t k = g * z.k; k < (g + 1) * z.k; k++) {
          kernels.correlate(imageOf<T>(y, n, k, 1).data + p * y.stride[2], y.stride[2], rows, slab,
                            slabs.window(), slabs.offset(), weight.as<T>() + k * z.depth, z.depth,
                            bias ? bias->as<T>()[k * bias->stride[0]] : T(0));
        }
      });
    }
  });
}

template <class T>
void depthwiseWeightGradient(T* dw, const View& dy, const View& x, const ConvSizes& z) {
  const DepthwiseKernels<T>& kernels = depthwiseKernels<T>();
  const ChannelSlabs<T> slabs(x, z);
  const int64_t grain = grainOf(static_cast<double>(z.n) * z.k * z.p * z.q * z.depth);
  parallelFor(z.groups, grain, [&](int64_t begin, int64_t end) {
    Workspace space(slabs.bytes());
    T* slab = space.as<T>();
    std::fill(dw + begin * z.k * z.depth, dw + end * z.k * z.depth, T(0));
    for (int64_t g = begin; g < end; g++) {
      for (int64_t n = 0; n < z.n; n++) {
        slabs.forEach(slab, n, g, [&](int64_t p, int64_t rows) {
          for (int64_t k = g * z.k; k < (g + 1) * z.k; k++) {
            kernels.correlateSums(dw + k * z.depth, imageOf<T>(dy, n, k, 1).data + p * dy.stride[2],
                                  dy.stride[2], rows, slab, slabs.window(), slabs.offset(),
                                  z.depth);
          }
        });
      }
    }
  });
}

template void convolveDepthwise<float>(const View&, const View&, const View&, const View*,
                                       const ConvSizes&);
template void convolveDepthwise<double>(const View&, const View&, const View&, const View*,
                                        const ConvSizes&);
template void depthwiseWeightGradient<float>(float*, const View&, const View&, const ConvSizes&);
template void depthwiseWeightGradient<double>(double*, const View&, const View&, const ConvSizes&);

}  // namespace adjoint::cpu
