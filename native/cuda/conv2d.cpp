// Convolutions: in which order of axes the library computes, and what it leaves to us.
#include "cuda/conv2d.h"

#include <optional>

#include "cuda/dense.h"
#include "cuda/gemm.h"
#include "cuda/workspace.h"

namespace adjoint {
namespace cuda {
namespace {

using backend::Conv2dShape;

constexpr int kChannelsLast[] = {0, 2, 3, 1};

// What the library asks of an address.
bool isAligned(const View& v) {
  return reinterpret_cast<uintptr_t>(v.data) % 16 == 0;
}

// The same axes, dense in one of the two orders.
View orderedLike(const View& v, bool channelsLast) {
  return denseLike(v, v.dtype, channelsLast ? kChannelsLast : nullptr);
}

bool isDense(const View& v, bool channelsLast) {
  const View dense = orderedLike(v, channelsLast);
  for (int axis = 0; axis < 4; axis++) {
    if (v.size[axis] != 1 && v.stride[axis] != dense.stride[axis]) return false;
  }
  return true;
}

// A tensor as the library takes it.
Stand standFor(const View& v, bool channelsLast, bool isRead) {
  if (isAligned(v) && isDense(v, channelsLast)) return Stand(v);
  return Stand(v, orderedLike(v, channelsLast), isRead);
}

Conv2dTensor tensorOf(const View& v) {
  Conv2dTensor t{};
  t.data = v.data;
  for (int axis = 0; axis < 4; axis++) {
    t.size[axis] = v.size[axis];
    t.stride[axis] = v.stride[axis];
  }
  return t;
}

// float32 as TF32, which tensor cores multiply
bool isTf32(DType dtype) {
  return dtype == DType::float32 && float32Products() != backend::Float32Products::highest;
}

// cuDNN's kernels for tensor cores want the channels last, and make copies of their own otherwise.
bool wantsChannelsLast(DType dtype) {
  if (!hasConvolutionLibrary()) return false;
  if (dtype == DType::float16) return true;
  return (dtype == DType::bfloat16 || isTf32(dtype)) && computeCapability() >= 80;
}

// Images in the order that cuDNN copies less of (selftest_plans). For tensor cores, where both lie
// in the order of the axes, it turns them as well as we could.
bool prefersChannelsLast(const View& x, const View& y) {
  if (!wantsChannelsLast(x.dtype)) return false;
  const bool areInOrder = isDense(x, false) && isDense(y, false);
  return !areInOrder || (isDense(x, true) && isDense(y, true));
}

// y = max(y + bias [K], 0), or one of the two
void addBias(const View& y, const View* bias, bool relu) {
  if (bias) {
    View channels = y;
    channels.data = bias->data;
    for (int axis = 0; axis < 4; axis++) {
      channels.stride[axis] = axis == 1 ? bias->stride[0] : 0;
      if (axis != 1) channels.size[axis] = 1;
    }
    backend::binary(BinaryOp::add, y, {false, y, {}}, {false, channels, {}}, y.dtype);
  }
  if (relu) backend::unary(UnaryOp::relu, y, y, y.dtype);
}

// The library's convolution, if it has one in this order of axes.
bool convolveDense(Conv2dOp op, const View& x, const View& w, const View& y, const View* bias,
                   const Conv2dShape& s, bool relu, bool channelsLast) {
  Conv2d c{};
  c.op = op;
  c.dtype = x.dtype;
  c.shape = s;
  c.channelsLast = channelsLast;
  c.x = tensorOf(orderedLike(x, channelsLast));
  c.w = tensorOf(orderedLike(w, channelsLast));
  c.y = tensorOf(orderedLike(y, channelsLast));
  c.bias = bias ? bias->data : nullptr;
  c.relu = relu;
  c.tf32 = isTf32(c.dtype);
  const bool isFused = libraryTakes(c);
  if (!isFused) {
    if (!bias && !relu) return false;
    c.bias = nullptr;
    c.relu = false;
    if (!libraryTakes(c)) return false;
  }
  const Stand image = standFor(x, channelsLast, op != Conv2dOp::backwardInput);
  const Stand filters = standFor(w, channelsLast, op != Conv2dOp::backwardWeight);
  const Stand result = standFor(y, channelsLast, op != Conv2dOp::forward);
  c.x.data = image.view().data;
  c.w.data = filters.view().data;
  c.y.data = result.view().data;
  convolveByLibrary(c, stream());
  if (!isFused) addBias(result.view(), bias, relu);
  if (op == Conv2dOp::forward) result.finish();
  if (op == Conv2dOp::backwardInput) image.finish();
  if (op == Conv2dOp::backwardWeight) filters.finish();
  return true;
}

void convolve(Conv2dOp op, const View& x, const View& w, const View& y, const View* bias,
              const Conv2dShape& s, bool relu) {
  std::optional<Workspace> space;
  View denseBias;
  if (bias) {
    denseBias = *bias;
    denseBias.stride[0] = 1;
    if (!bias->isContiguous() || !isAligned(*bias)) {
      space.emplace(static_cast<size_t>(bias->numel()) * itemSize(bias->dtype));
      denseBias.data = space->data();
      backend::copy(denseBias, *bias);
    }
    bias = &denseBias;
  }
  if (x.numel() > 0 && w.numel() > 0 && y.numel() > 0) {
    const bool last = prefersChannelsLast(x, y);
    for (bool channelsLast : {last, !last}) {
      if (convolveDense(op, x, w, y, bias, s, relu, channelsLast)) return;
    }
  }
  Conv2d c{};
  c.op = op;
  c.dtype = x.dtype;
  c.shape = s;
  c.x = tensorOf(x);
  c.w = tensorOf(w);
  c.y = tensorOf(y);
  c.bias = bias ? bias->data : nullptr;
  c.relu = relu;
  convolveDirectly(c, stream());
}

}  // namespace
}  // namespace cuda

namespace backend {

bool convolvesChannelsLast(DType dtype) {
  return cuda::wantsChannelsLast(dtype);
}

void conv2d(const View& y, const View& x, const View& w, const View* bias, const Conv2dShape& s,
            bool relu) {
  if (y.numel() == 0) return;
  cuda::convolve(cuda::Conv2dOp::forward, x, w, y, bias, s, relu);
}

void conv2dBackwardInput(const View& dx, const View& dy, const View& w, const Conv2dShape& s) {
  if (dx.numel() == 0) return;
  if (dy.numel() == 0) return fill(dx, Scalar::of(0.0));
  cuda::convolve(cuda::Conv2dOp::backwardInput, dx, w, dy, nullptr, s, false);
}

void conv2dBackwardWeight(const View& dw, const View& dy, const View& x, const Conv2dShape& s) {
  if (dw.numel() == 0) return;
  if (dy.numel() == 0) return fill(dw, Scalar::of(0.0));
  cuda::convolve(cuda::Conv2dOp::backwardWeight, x, dw, dy, nullptr, s, false);
}

void conv2dBackwardParameters(const View& dw, const View& dbias, const View& dy, const View& x,
                              const View* y, const Conv2dShape& s) {
  std::optional<cuda::Workspace> space;
  View g = dy;
  if (y) {
    space.emplace(static_cast<size_t>(dy.numel()) * itemSize(dy.dtype));
    g = cuda::orderedLike(dy, cuda::isDense(dy, true) && !cuda::isDense(dy, false));
    g.data = space->data();
    binary(BinaryOp::reluBackward, g, {false, dy, {}}, {false, *y, {}}, dy.dtype);
  }
  conv2dBackwardWeight(dw, g, x, s);
  // dbias [K] as [1, K, 1, 1]
  View sums = dbias;
  sums.ndim = 4;
  for (int axis = 0; axis < 4; axis++) {
    sums.size[axis] = axis == 1 ? dbias.size[0] : 1;
    sums.stride[axis] = axis == 1 ? dbias.stride[0] : 1;
  }
  reduce(ReduceOp::sum, sums, g);
}

}  // namespace backend
}  // namespace adjoint
