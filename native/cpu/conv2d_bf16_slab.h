// The part of a padded bfloat16 image that a block of rows of the output sees, channel by channel,
// in which the pixels of a tap lie side by side.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/conv2d.h"
#include "cpu/kernels/gemm_bf16.h"

namespace adjoint::cpu {

inline int64_t roundUpTo(int64_t n, int64_t step) {
  return ceilDivide(n, step) * step;
}

// Where the pixels of a block of rows of the output lie: pixel (p, q) of tap (c, r, s) at
// p width + q + offset[(c, r, s)].
class Bf16Slab {
 public:
  Bf16Slab(const ConvSizes& z, int64_t rows)
      : z_(z),
        width_(z.q + (z.s - 1) * z.shape.dilationW / z.shape.strideW),
        height_(rows + (z.r - 1) * z.shape.dilationH / z.shape.strideH),
        plane_(width_ * height_),
        channel_(plane_ * z.shape.strideH * z.shape.strideW),
        offset_(z.depth) {
    size_t i = 0;
    for (int64_t c = 0; c < z.c; c++) {
      for (int64_t r = 0; r < z.r; r++) {
        for (int64_t s = 0; s < z.s; s++) {
          const int64_t row = r * z.shape.dilationH, column = s * z.shape.dilationW;
          offset_[i++] = c * channel_ + planeOf(row, column) + row / z.shape.strideH * width_ +
                         column / z.shape.strideW;
        }
      }
    }
  }

  int64_t width() const { return width_; }
  int64_t height() const { return height_; }
  const int64_t* offset() const { return offset_.data(); }
  // Whole tiles are read from the last pixel and the last tap on.
  int64_t size() const {
    return roundUpTo(z_.c * channel_ + width_ + kTileDepth + kBlockSide, kTileDepth);
  }

  // Calls fill(plane, image, top, left) for each channel and remainder of positions, from row p of
  // the output of image n and group g on: plane[i, j] = image[top + i strideH, left + j strideW].
  template <class F>
  void forEachPlane(uint16_t* slab, const View& x, int64_t n, int64_t g, int64_t p,
                    const F& fill) const {
    const auto& shape = z_.shape;
    for (int64_t c = 0; c < z_.c; c++) {
      const uint16_t* image = x.as<uint16_t>() + n * x.stride[0] + (g * z_.c + c) * x.stride[1];
      uint16_t* plane = slab + c * channel_;
      for (int64_t phaseH = 0; phaseH < shape.strideH; phaseH++) {
        for (int64_t phase = 0; phase < shape.strideW; phase++, plane += plane_) {
          fill(plane, image, p * shape.strideH - shape.padH + phaseH, phase - shape.padW);
        }
      }
    }
  }

  void fill(uint16_t* slab, const View& x, int64_t n, int64_t g, int64_t p) const {
    std::fill_n(slab, size(), uint16_t{0});
    forEachPlane(slab, x, n, g, p,
                 [&](uint16_t* plane, const uint16_t* image, int64_t top, int64_t left) {
                   for (int64_t i = 0; i < height_; i++) {
                     const int64_t h = top + i * z_.shape.strideH;
                     if (h < 0 || h >= z_.h) continue;
                     fillRow(plane + i * width_, image + h * x.stride[2], x.stride[3], left);
                   }
                 });
  }

 private:
  int64_t planeOf(int64_t row, int64_t column) const {
    return (row % z_.shape.strideH * z_.shape.strideW + column % z_.shape.strideW) * plane_;
  }
  // to[j] = x[first + j strideW] within the image
  void fillRow(uint16_t* to, const uint16_t* x, int64_t stride, int64_t first) const {
    const int64_t step = z_.shape.strideW;
    const int64_t begin = first >= 0 ? 0 : ceilDivide(-first, step);
    const int64_t end = first >= z_.w ? 0 : std::min(width_, ceilDivide(z_.w - first, step));
    if (begin >= end) return;
    if (step * stride == 1) {
      std::memcpy(to + begin, x + begin + first, (end - begin) * sizeof(uint16_t));
    } else {
      for (int64_t j = begin; j < end; j++) to[j] = x[(j * step + first) * stride];
    }
  }

  const ConvSizes& z_;
  const int64_t width_, height_, plane_, channel_;
  std::vector<int64_t> offset_;
};

}  // namespace adjoint::cpu
