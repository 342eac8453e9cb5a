// The twin of native/cuda/conv2d_cudnn.cpp: convolutions on the host, in float64. So that every way
// round the library is gone here too, it fuses bias and ReLU with the channels last alone, and
// refuses dilated windows in groups.
#include <vector>

#include "cuda/conv2d.h"
#include "emulation/emulation.h"
#include "shared/convert.h"

namespace adjoint::cuda {
namespace {

// Whether a tensor lies as the seam promises.
bool isDense(const Conv2dTensor& t, bool channelsLast) {
  const int axes[2][4] = {{0, 1, 2, 3}, {0, 2, 3, 1}};
  int64_t stride = 1;
  for (int i = 3; i >= 0; i--) {
    const int axis = axes[channelsLast][i];
    if (t.size[axis] < 1 || t.stride[axis] != stride) return false;
    stride *= t.size[axis];
  }
  return true;
}

int64_t offsetOf(const Conv2dTensor& t, int64_t i, int64_t j, int64_t k, int64_t l) {
  return i * t.stride[0] + j * t.stride[1] + k * t.stride[2] + l * t.stride[3];
}

// All elements in the order of the axes.
using Values = std::vector<double>;

template <class S, class F>
void forEachElement(const Conv2dTensor& t, F f) {
  size_t index = 0;
  for (int64_t i = 0; i < t.size[0]; i++) {
    for (int64_t j = 0; j < t.size[1]; j++) {
      for (int64_t k = 0; k < t.size[2]; k++) {
        for (int64_t l = 0; l < t.size[3]; l++) {
          f(index++, static_cast<S*>(t.data)[offsetOf(t, i, j, k, l)]);
        }
      }
    }
  }
}
size_t countOf(const Conv2dTensor& t) {
  return static_cast<size_t>(t.size[0] * t.size[1] * t.size[2] * t.size[3]);
}
template <class S>
Values valuesOf(const Conv2dTensor& t) {
  Values values(countOf(t));
  forEachElement<S>(t, [&](size_t i, S& element) { values[i] = convert<double>(element); });
  return values;
}

// Calls f(row of y, its length, row of x, step, element of w): for one element of the filters, the
// pixels of one row that see a pixel with it.
template <class F>
void forEachRow(const Conv2d& c, F f) {
  const backend::Conv2dShape& z = c.shape;
  const int64_t groupC = c.w.size[1], groupK = c.w.size[0] / z.groups, r = c.w.size[2];
  const int64_t s = c.w.size[3], height = c.x.size[2], width = c.x.size[3];
  for (int64_t n = 0; n < c.y.size[0]; n++) {
    for (int64_t k = 0; k < c.y.size[1]; k++) {
      for (int64_t p = 0; p < c.y.size[2]; p++) {
        const int64_t y = ((n * c.y.size[1] + k) * c.y.size[2] + p) * c.y.size[3];
        for (int64_t tap = 0; tap < groupC * r * s; tap++) {
          const int64_t channel = k / groupK * groupC + tap / (r * s);
          const int64_t h = p * z.strideH - z.padH + tap / s % r * z.dilationH;
          if (h < 0 || h >= height) continue;
          const int64_t row = ((n * c.x.size[1] + channel) * height + h) * width;
          const int64_t shift = tap % s * z.dilationW - z.padW;
          // 0 <= q stride + shift < width
          const int64_t first = shift >= 0 ? 0 : (-shift + z.strideW - 1) / z.strideW;
          int64_t last = c.y.size[3];
          while (last > first && (last - 1) * z.strideW + shift >= width) last--;
          f(y + first, last - first, row + first * z.strideW + shift, z.strideW,
            k * groupC * r * s + tap);
        }
      }
    }
  }
}

template <class S>
void convolve(const Conv2d& c) {
  using Index = int64_t;
  const auto at = [](Values& v, Index i) -> double& { return v[static_cast<size_t>(i)]; };
  const bool forward = c.op == Conv2dOp::forward, input = c.op == Conv2dOp::backwardInput;
  Values x = input ? Values(countOf(c.x)) : valuesOf<S>(c.x);
  Values w = forward || input ? valuesOf<S>(c.w) : Values(countOf(c.w));
  Values y = forward ? Values(countOf(c.y)) : valuesOf<S>(c.y);
  forEachRow(c, [&](Index yRow, Index length, Index xRow, Index step, Index filter) {
    double& wTap = at(w, filter);
    for (Index i = 0; i < length; i++) {
      double &yPixel = at(y, yRow + i), &xPixel = at(x, xRow + i * step);
      if (forward) yPixel += xPixel * wTap;
      if (input) xPixel += yPixel * wTap;
      if (!forward && !input) wTap += xPixel * yPixel;
    }
  });
  if (forward) {
    const size_t pixels = static_cast<size_t>(c.y.size[2] * c.y.size[3]);
    forEachElement<S>(c.y, [&](size_t i, S& element) {
      double sum = y[i];
      const size_t k = i / pixels % static_cast<size_t>(c.y.size[1]);
      if (c.bias) sum += convert<double>(static_cast<const S*>(c.bias)[k]);
      if (c.relu && sum <= 0) sum = 0;
      element = convert<S>(sum);
    });
  } else {
    const Values& result = input ? x : w;
    forEachElement<S>(input ? c.x : c.w,
                      [&](size_t i, S& element) { element = convert<S>(result[i]); });
  }
}

}  // namespace

std::string convolutionLibrary() {
  return "the host";
}

bool hasConvolutionLibrary() {
  return true;
}

bool libraryTakes(const Conv2d& c) {
  for (const Conv2dTensor* t : {&c.x, &c.w, &c.y}) {
    if (!isDense(*t, c.channelsLast)) {
      fail(ErrorKind::internal, "conv2d: expected dense tensors of the same order of axes");
    }
  }
  if (!c.channelsLast && (c.bias || c.relu)) return false;
  return c.shape.groups == 1 || (c.shape.dilationH == 1 && c.shape.dilationW == 1);
}

void convolveByLibrary(const Conv2d& c, cudaStream_t stream) {
  bool isFit = libraryTakes(c);
  for (const Conv2dTensor* t : {&c.x, &c.w, &c.y}) {
    isFit = isFit && reinterpret_cast<uintptr_t>(t->data) % 16 == 0;
  }
  if (!isFit) fail(ErrorKind::internal, "conv2d: expected what the library takes");
  emulation::enqueueHost(stream, [c] {
    visitDType(c.dtype, [&](auto tag) { convolve<typename decltype(tag)::type>(c); });
  });
}

}  // namespace adjoint::cuda
