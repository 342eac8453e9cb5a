// The loops of a convolution beside its matrix products: images and columns.
//
// The columns of an image: row k = (c, r, s) holds for each output pixel (p, q) the value of x
// under tap (r, s) of channel c, x[c, p strideH - padH + r dilationH, q strideW - padW + s
// dilationW]. They are never stored as a whole: a block of them is packed straight into panels of a
// product, from a slab: the rows of the image that a task needs, with zeros around.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

struct ConvWindow {
  int64_t kernelH, kernelW, strideH, strideW, dilationH, dilationW;
  int64_t q;                     // pixels in a row of the output
  int64_t slabRow, slabChannel;  // strides of the slab; its columns have stride 1
};

template <class T>
struct ImageView {
  T* data;
  int64_t channels, height, width;
  int64_t channelStride, rowStride, columnStride;
};

template <class T>
struct Conv2dKernels {
  // slab[c, i, j] = x[c, top + i, left + j], or 0 outside, for i < rows and j < slabRow
  void (*fillSlab)(T* slab, const ImageView<const T>& x, const ConvWindow& w, int64_t top,
                   int64_t left, int64_t rows);
  // x[c, i, j] = slab[c, i - top, j - left], or 0 outside
  void (*readSlab)(const ImageView<T>& x, const T* slab, const ConvWindow& w, int64_t top,
                   int64_t left, int64_t rows);
  // offset[i] = where tap k + i = (c, r, s) lies in the slab for pixel 0
  void (*tapOffsets)(int64_t* offset, const ConvWindow& w, int64_t k, int64_t count);
  // Rows of the columns of `count` pixels from `pixel` on, as a panel of b of a product of depth
  // `rows`.
  void (*packColumns)(T* panel, const T* slab, const ConvWindow& w, const int64_t* offset,
                      int64_t rows, int64_t pixel, int64_t count);
  // `count` rows of the columns of the first `pixels` pixels, whole rows of the output, transposed,
  // as a panel of b of a product of depth `pixels`.
  void (*packTransposedColumns)(T* panel, const T* slab, const ConvWindow& w, const int64_t* offset,
                                int64_t count, int64_t pixels);
  // slab += columns: [channels kernelH kernelW, pixels], where the columns' values come from
  void (*addColumns)(T* slab, const T* columns, const ConvWindow& w, int64_t channels,
                     int64_t pixels);
};

// Vectors are read and written beyond the end of a slab, by no more than kConvSlack pixels, and
// written beyond the end of the panels, by no more than kConvSlack pixels of a panel's width: the
// caller has room.
constexpr int64_t kConvSlack = 16;
constexpr int64_t kConvPanel = 32;

struct Conv2dTable {
  Conv2dKernels<float> f32;
  Conv2dKernels<double> f64;
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(Conv2dTable, conv2dTable)
