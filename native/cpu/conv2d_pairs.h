// Convolutions of bfloat16 images on AVX512-BF16, whose products add pairs, without columns.
//
// The image, or its gradient, is a product of pixels with filters: a slab holds the part of the
// padded input that a task sees, pixel by pixel with the channels side by side; a pair of channels
// of a pixel goes to all lanes, a vector holds that pair of 16 filters. Neighbouring pixels of the
// output see pixels of the slab that are evenly spaced, for every tap.
// The gradient of the filters is a product over pixels: there the slab holds the channels one by
// one, a pair of neighbouring pixels under a tap goes to all lanes, and a vector holds that pair of
// dy of 16 filters.
#pragma once
#include "cpu/conv2d.h"
#include "cpu/features/conv2d_pairs.h"

namespace adjoint::cpu {

constexpr int64_t kBlockFilters = kPairVectors * kPairLanes;

// Blocks of up to two vectors of filters, the last one of as many as are left.
class FilterBlocks {
 public:
  explicit FilterBlocks(int64_t filters) : filters_(filters) {}
  int64_t count() const { return ceilDivide(filters_, kBlockFilters); }
  int64_t padded() const { return ceilDivide(filters_, kPairLanes) * kPairLanes; }
  int64_t vectors(int64_t block) const {
    return std::min(kPairVectors, ceilDivide(filters_ - block * kBlockFilters, kPairLanes));
  }
  int64_t filters(int64_t block) const {
    return std::min(kBlockFilters, filters_ - block * kBlockFilters);
  }

 private:
  int64_t filters_;
};

// Channels of image n from `channel` on.
inline Bf16Image bf16ImageOf(const View& x, int64_t n, int64_t channel, int64_t channels) {
  return {x.as<uint16_t>() + n * x.stride[0] + channel * x.stride[1],
          channels,
          x.size[2],
          x.size[3],
          x.stride[1],
          x.stride[2],
          x.stride[3]};
}

// nullptr where the processor has no AVX512-BF16, or has AMX, which is faster.
const Conv2dPairsKernels* conv2dPairs();

// All of bfloat16, any strides; groups, paddings and dilations as the shape says.
void convolvePairs(const Conv2dPairsKernels& kernels, const View& y, const View& x, const View& w,
                   const View* bias, const backend::Conv2dShape& shape);
void convolvePairsInput(const Conv2dPairsKernels& kernels, const View& dx, const View& dy,
                        const View& w, const backend::Conv2dShape& shape);
// dw is float32 and dense. Where x has an infinity or a NaN, all of the gradient of its channel may
// become NaN.
void convolvePairsWeight(const Conv2dPairsKernels& kernels, const View& dw, const View& dy,
                         const View& x, const backend::Conv2dShape& shape);

}  // namespace adjoint::cpu
