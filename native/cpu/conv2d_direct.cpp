// Convolutions whose filters see few values, and the gradients of their parameters: depthwise ones
// and those of images with few channels.
#include "cpu/kernels/conv2d_direct.h"

#include <vector>

#include "cpu/compute_view.h"
#include "cpu/conv2d.h"
#include "cpu/pool.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kSlabElements = 1 << 15;  // they stay in the second cache
constexpr int64_t kParts = 16;
constexpr int64_t kTaskOperations = 1 << 16;

template <class T>
const DirectKernels<T>& directKernels();
template <>
const DirectKernels<float>& directKernels<float>() {
  return directTable().f32;
}
template <>
const DirectKernels<double>& directKernels<double>() {
  return directTable().f64;
}

// The blocks of rows of an image, each with a slab of what a group of filters sees of it.
template <class T>
class ImageSlabs {
 public:
  ImageSlabs(const View& x, const ConvSizes& z)
      : x_(x), z_(z), blockRows_(z.blockRows(kSlabElements / (z.s * z.c))), offset_(z.depth) {
    slab_ = {z.s, z.shape.strideW,  z.shape.dilationW,      z.shape.padW,
             z.q, lineAligned(z.q), z.slabRows(blockRows_), 0};
    for (int64_t t = 0; t < z.depth; t++) {
      const int64_t c = t / (z.r * z.s), r = t / z.s % z.r, s = t % z.s;
      offset_[t] = ((s * z.c + c) * slab_.rows + r * z.shape.dilationH) * slab_.row;
    }
  }
  int64_t blocks() const { return ceilDivide(z_.p, blockRows_); }
  int64_t firstRow(int64_t block) const { return block * blockRows_; }
  int64_t rows(int64_t block) const { return std::min(blockRows_, z_.p - firstRow(block)); }
  size_t bytes() const { return z_.s * z_.c * slab_.rows * slab_.row * sizeof(T); }

  DirectTaps<T> fill(T* to, int64_t image, int64_t group, int64_t block) const {
    DirectSlab slab = slab_;
    slab.top = firstRow(block) * z_.shape.strideH - z_.shape.padH;
    directKernels<T>().fillSlab(to, imageOf<T, const T>(x_, image, group * z_.c, z_.c), slab);
    return {to, offset_.data(), z_.depth, z_.shape.strideH * slab_.row};
  }

 private:
  const View& x_;
  const ConvSizes& z_;
  const int64_t blockRows_;
  DirectSlab slab_;
  std::vector<int64_t> offset_;
};

int64_t grainOf(double operations) {
  return std::max<int64_t>(1, static_cast<int64_t>(kTaskOperations / (operations + 1)));
}

// The images are cut into parts, by their number alone, and the parts' sums added in order: so the
// bits are the same for any number of threads.
template <class T, class S>
void parametersOf(T* dw, T* dbias, const View& dy, const View& x, const S* y, const ConvSizes& z) {
  const DirectKernels<T>& kernels = directKernels<T>();
  const ImageSlabs<T> slabs(x, z);
  const int64_t wanted = std::max<int64_t>(1, kParts / std::max<int64_t>(1, z.groups));
  const int64_t partImages = ceilDivide(z.n, std::min(z.n, wanted));
  const int64_t parts = ceilDivide(z.n, partImages), sums = z.k * (z.depth + 1);
  Workspace partials(parts * z.groups * sums * sizeof(T));
  parallelFor(parts * z.groups, 1, [&](int64_t begin, int64_t end) {
    Workspace space(slabs.bytes() + sums * kernels.lanes * sizeof(T));
    T* const vectors = space.as<T>();
    T* const slab = vectors + sums * kernels.lanes;
    for (int64_t task = begin; task < end; task++) {
      const int64_t part = task / z.groups, g = task % z.groups;
      std::fill_n(vectors, sums * kernels.lanes, T(0));
      for (int64_t n = part * partImages; n < std::min(z.n, (part + 1) * partImages); n++) {
        for (int64_t block = 0; block < slabs.blocks(); block++) {
          const DirectTaps<T> taps = slabs.fill(slab, n, g, block);
          const int64_t at =
              n * dy.stride[0] + g * z.k * dy.stride[1] + slabs.firstRow(block) * dy.stride[2];
          const DirectGradient<S> gradient = {dy.as<S>() + at,
                                              y ? y + at : nullptr,
                                              dy.stride[1],
                                              dy.stride[2],
                                              z.k,
                                              slabs.rows(block),
                                              z.q};
          if constexpr (std::is_same<T, S>::value) {
            kernels.addProducts(vectors, gradient, taps);
          } else {
            kernels.addBFloat16Products(vectors, gradient, taps);
          }
        }
      }
      kernels.foldSums(partials.as<T>() + task * sums, vectors, sums);
    }
  });
  for (int64_t k = 0; k < z.groups * z.k; k++) {
    const T* from = partials.as<T>() + k * (z.depth + 1);
    for (int64_t t = 0; t <= z.depth; t++) {
      T sum = from[t];
      for (int64_t part = 1; part < parts; part++) sum += from[part * z.groups * sums + t];
      if (t < z.depth) {
        dw[k * z.depth + t] = sum;
      } else if (dbias) {
        dbias[k] = sum;
      }
    }
  }
}

template <class T, class S>
void correlateImages(const View& y, const View& x, const View& weight, const View* bias,
                     const ConvSizes& z, bool relu) {
  const ImageSlabs<T> slabs(x, z);
  std::vector<T> biases(z.groups * z.k);
  for (int64_t k = 0; bias && k < z.groups * z.k; k++) {
    biases[k] = bias->as<T>()[k * bias->stride[0]];
  }
  const int64_t blocks = slabs.blocks();
  const int64_t grain = grainOf(static_cast<double>(z.k) * slabs.rows(0) * z.q * z.depth);
  parallelFor(z.n * z.groups * blocks, grain, [&](int64_t begin, int64_t end) {
    Workspace space(slabs.bytes());
    for (int64_t i = begin; i < end; i++) {
      const int64_t block = i % blocks, g = i / blocks % z.groups, n = i / blocks / z.groups;
      const DirectTaps<T> taps = slabs.fill(space.as<T>(), n, g, block);
      const DirectFilters<T> filters = {weight.as<T>() + g * z.k * z.depth, biases.data() + g * z.k,
                                        z.k, relu};
      const DirectRows<S> rows = {
          imageOf<S>(y, n, g * z.k, z.k).data + slabs.firstRow(block) * y.stride[2], y.stride[1],
          y.stride[2], slabs.rows(block), z.q};
      if constexpr (std::is_same<T, S>::value) {
        directKernels<T>().correlate(rows, taps, filters);
      } else {
        directKernels<T>().correlateToBFloat16(rows, taps, filters);
      }
    }
  });
}

}  // namespace

template <class T>
void convolveDirect(const View& y, const View& x, const View& weight, const View* bias,
                    const ConvSizes& z, bool relu) {
  if (y.dtype == DType::bfloat16) {
    if constexpr (std::is_same<T, float>::value) {
      correlateImages<float, BFloat16>(y, x, weight, bias, z, relu);
    }
  } else {
    correlateImages<T, T>(y, x, weight, bias, z, relu);
  }
}

template <class T>
void directParameters(T* dw, T* dbias, const View& dy, const View& x, const View* y,
                      const ConvSizes& z) {
  if (dy.dtype == DType::bfloat16) {
    if constexpr (std::is_same<T, float>::value) {
      parametersOf<float, BFloat16>(dw, dbias, dy, x, y ? y->as<BFloat16>() : nullptr, z);
    }
  } else {
    parametersOf<T, T>(dw, dbias, dy, x, y ? y->as<T>() : nullptr, z);
  }
}

template void convolveDirect<float>(const View&, const View&, const View&, const View*,
                                    const ConvSizes&, bool);
template void convolveDirect<double>(const View&, const View&, const View&, const View*,
                                     const ConvSizes&, bool);
template void directParameters<float>(float*, float*, const View&, const View&, const View*,
                                      const ConvSizes&);
template void directParameters<double>(double*, double*, const View&, const View&, const View*,
                                       const ConvSizes&);

}  // namespace adjoint::cpu
