// Convolutions whose filters see few values: too few products for a matrix product, so each tap is
// a vector of pixels times a weight.
//
// What an image's filters see lies in a slab: for each column s of the window its own copy of the
// image as that column sees it, so that every tap of a vector of pixels is aligned, whatever the
// stride. Rows are whole vectors, with zeros beyond their end.
#pragma once
#include "cpu/kernels/conv2d.h"
#include "shared/convert.h"

namespace adjoint::cpu {

// slab[s, c, i, j] = x[c, top + i, j strideW + s dilationW - padW], or 0 outside and for j >= q
struct DirectSlab {
  int64_t kernelW, strideW, dilationW, padW;
  int64_t q;     // pixels in a row of the output
  int64_t row;   // elements in a row of the slab: whole lines
  int64_t rows;  // in a channel
  int64_t top;
};

// Tap t of pixel (i, j) lies at slab + offset[t] + i * row + j.
template <class T>
struct DirectTaps {
  const T* slab;
  const int64_t* offset;
  int64_t count, row;
};

// The weights of `count` filters, one after the other, and a bias of each.
template <class T>
struct DirectFilters {
  const T *weight, *bias;
  int64_t count;
  bool relu;  // what becomes of the sums
};

// Rows of the output, `row` apart, of one filter and of the next, `filter` further. The columns
// have unit stride.
template <class S>
struct DirectRows {
  S* data;
  int64_t filter, row;
  int64_t rows, q;
};

// The gradient of such rows of so many filters; with y that of what they were before they became y,
// rectified.
template <class S>
struct DirectGradient {
  const S *dy, *y;  // y nullptr: not rectified
  int64_t filter, row;
  int64_t filters, rows, q;
};

template <class T>
struct DirectKernels {
  void (*fillSlab)(T* slab, const ImageView<const T>& x, const DirectSlab& s);
  // y[k, i, j] = bias[k] + sum over taps of weight[k, t] * tap t of pixel (i, j)
  void (*correlate)(const DirectRows<T>& y, const DirectTaps<T>& x, const DirectFilters<T>& w);
  void (*correlateToBFloat16)(const DirectRows<BFloat16>& y, const DirectTaps<T>& x,
                              const DirectFilters<T>& w);
  // A vector of `lanes` sums for each tap of each filter, and one more for the filter's bias, takes
  // products over all pixels: sums[k, t] += dy[k, i, j] * tap t, sums[k, taps] += dy[k, i, j].
  int64_t lanes;
  void (*addProducts)(T* sums, const DirectGradient<T>& y, const DirectTaps<T>& x);
  void (*addBFloat16Products)(T* sums, const DirectGradient<BFloat16>& y, const DirectTaps<T>& x);
  // Of `count` vectors
  void (*foldSums)(T* y, const T* sums, int64_t count);
};

struct DirectTable {
  DirectKernels<float> f32;
  DirectKernels<double> f64;  // none from or to bfloat16
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(DirectTable, directTable)
