// The gradients of a convolution, as products with its columns and with its weights.
#include <optional>
#include <vector>

#include "cpu/compute_view.h"
#include "cpu/conv2d.h"
#include "cpu/conv2d_bf16.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/pool.h"
#include "cpu/row_sums.h"
#include "cpu/winograd.h"

namespace adjoint::cpu {
namespace {

// ---- the weights: dw [k, depth] = sum over images of dy [k, pixels] columns^T [pixels, depth]
// With `bias` its gradient too, from the same pass, and with y the gradient of the rectified y:
// both ask for dense dy and y.
template <class T>
class WeightGradient {
 public:
  WeightGradient(T* dw, const View& dy, const View& x, const ConvSizes& z, T* bias = nullptr,
                 const T* y = nullptr)
      : dw_(dw),
        bias_(bias),
        y_(y),
        dy_(dy),
        x_(x),
        z_(z),
        gemm_(gemmKernels<T>()),
        kernels_(conv2dKernels<T>()),
        panelRows_(ceilDivide(z.k, ceilDivide(z.k, gemm_.rows))),
        blockRows_(z.blockRows(kBlockPixels)),
        window_(z.window(blockRows_)) {
    const int64_t cuts = ceilDivide(z.depth, kTaskDepth);
    taskDepth_ = ceilDivide(ceilDivide(z.depth, cuts), gemm_.columns) * gemm_.columns;
    depthCuts_ = ceilDivide(z.depth, taskDepth_);
    // Images are shared out where the weights alone do not make enough tasks.
    const double partialBytes = static_cast<double>(weightCount()) * sizeof(T);
    const int64_t affordable = static_cast<int64_t>(kPartialBytes / (partialBytes + 1)) + 1;
    const int64_t wanted =
        std::min(affordable, ceilDivide(kTasks, std::max<int64_t>(1, z.groups * depthCuts_)));
    taskImages_ = ceilDivide(z.n, std::min(wanted, z.n));
    imageCuts_ = ceilDivide(z.n, taskImages_);
  }

  void run() {
    Workspace partials(imageCuts_ > 1 ? imageCuts_ * weightCount() * sizeof(T) : 0);
    T* sums = imageCuts_ > 1 ? partials.template as<T>() : dw_;
    rowSums_.assign(imageCuts_, RowSums<T>(bias_ ? z_.groups * z_.k : 0));
    parallelFor(imageCuts_ * z_.groups * depthCuts_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t images = i / (z_.groups * depthCuts_);
        task(sums + images * weightCount(), images * taskImages_, i / depthCuts_ % z_.groups,
             i % depthCuts_ * taskDepth_);
      }
    });
    if (imageCuts_ > 1) combine(sums);
    if (bias_) combineRowSums();
  }

 private:
  static constexpr int64_t kTasks = 16, kTaskDepth = 576, kBlockPixels = 224;
  static constexpr double kPartialBytes = 64e6;

  int64_t weightCount() const { return z_.groups * z_.k * z_.depth; }

  // Adds up the partial sums in the order of the images.
  void combine(const T* partials) const {
    const int64_t count = weightCount();
    parallelFor(count, 1 << 14, [&](int64_t begin, int64_t end) {
      std::copy(partials + begin, partials + end, dw_ + begin);
      for (int64_t t = 1; t < imageCuts_; t++) {
        const T* from = partials + t * count;
        for (int64_t i = begin; i < end; i++) dw_[i] += from[i];
      }
    });
  }

  void combineRowSums() {
    for (int64_t t = 1; t < imageCuts_; t++) rowSums_[0].merge(rowSums_[t]);
    rowSums_[0].write(bias_);
  }

  // Rows of dy: `step` apart, elements `pixel` apart.
  struct Rows {
    const T* data;
    int64_t step, pixel;
  };

  // Rows of group g of an image from row p of the output on, `pixels` of each; rectified where y is
  // there, to `space`.
  Rows rowsOf(int64_t n, int64_t g, int64_t p, int64_t pixels, T* space) const {
    const T* dy = imageOf<T>(dy_, n, g * z_.k, z_.k).data + p * dy_.stride[2];
    if (!y_) return {dy, dy_.stride[1], dy_.stride[3]};
    const auto rectify =
        elementwiseTable()
            .binary[static_cast<int>(kComputeOf<T>)][static_cast<int>(BinaryOp::reluBackward)];
    const T* y = y_ + (dy - dy_.as<T>());
    for (int64_t row = 0; row < z_.k; row++) {
      rectify(space + row * pixels, dy + row * dy_.stride[1], y + row * dy_.stride[1], pixels);
    }
    return {space, pixels, 1};
  }

  void addRows(RowSums<T>& sums, int64_t g, const Rows& rows, int64_t pixels) const {
    for (int64_t row = 0; row < z_.k; row++) {
      sums.add(g * z_.k + row, rows.data + row * rows.step, pixels);
    }
  }

  // dw[g, :, k..] over some images
  void task(T* sums, int64_t image, int64_t g, int64_t k) {
    const int64_t kEnd = std::min(z_.depth, k + taskDepth_);
    const int64_t taps = z_.r * z_.s, channel = k / taps;
    const int64_t channels = ceilDivide(kEnd, taps) - channel;
    const int64_t pixels = blockRows_ * z_.q;
    // Many panels of columns read dy again and again: then it is packed.
    const bool packs = kEnd - k > 2 * gemm_.columns;
    const int64_t slabSize = lineAligned(channels * window_.slabChannel + z_.slabSlack());
    const int64_t panelSize = (pixels + kConvSlack) * gemm_.columns;
    const int64_t rowsSize = packs ? ceilDivide(z_.k, panelRows_) * panelRows_ * pixels : 0;
    const int64_t rectifiedSize = y_ ? z_.k * pixels : 0;
    Workspace space((slabSize + panelSize + rowsSize + rectifiedSize) * sizeof(T));
    T* slab = space.template as<T>();
    T* panel = slab + slabSize;
    T* packed = panel + panelSize;
    T* rectified = packed + rowsSize;
    RowSums<T>& rowSums = rowSums_[image / taskImages_];
    const bool sumsRows = bias_ && k == 0;
    alignas(64) static const T zeros[64] = {};
    std::vector<int64_t> offset(kEnd - k);
    kernels_.tapOffsets(offset.data(), window_, k - channel * taps, kEnd - k);

    GemmBlock<T> product;
    product.m = z_.k;
    product.panelRows = panelRows_;
    product.b = product.bEdge = panel;
    product.bPanel = 0;
    product.bRow = gemm_.columns;
    product.cRow = z_.depth;
    product.initColumn = 0;
    bool isFirst = true;
    for (int64_t n = image; n < std::min(z_.n, image + taskImages_); n++) {
      const ImageView<const T> x = imageOf<T, const T>(x_, n, g * z_.c + channel, channels);
      for (int64_t p = 0; p < z_.p; p += blockRows_) {
        const int64_t pEnd = std::min(z_.p, p + blockRows_);
        kernels_.fillSlab(slab, x, window_, p * z_.shape.strideH - z_.shape.padH, -z_.shape.padW,
                          z_.slabRows(pEnd - p));
        product.k = (pEnd - p) * z_.q;
        const Rows rows = rowsOf(n, g, p, product.k, rectified);
        if (sumsRows) addRows(rowSums, g, rows, product.k);
        setRows(product, rows, packs ? packed : nullptr);
        for (int64_t j = k; j < kEnd; j += gemm_.columns) {
          product.n = std::min(gemm_.columns, kEnd - j);
          kernels_.packTransposedColumns(panel, slab, window_, offset.data() + j - k, product.n,
                                         product.k);
          product.c = sums + g * z_.k * z_.depth + j;
          product.init = isFirst ? zeros : product.c;
          product.initRow = isFirst ? 0 : product.cRow;
          gemm_.multiply(product);
        }
        isFirst = false;
      }
    }
  }

  // a: the rows of dy, packed or in place
  void setRows(GemmBlock<T>& product, const Rows& rows, T* packed) const {
    if (!packed) {
      product.a = rows.data;
      product.aRow = rows.step;
      product.aK = rows.pixel;
      product.aPanel = panelRows_ * product.aRow;
      return;
    }
    for (int64_t row = 0; row < z_.k; row += panelRows_) {
      gemm_.pack(packed + row * product.k, panelRows_, rows.data + row * rows.step, rows.step,
                 rows.pixel, std::min(panelRows_, z_.k - row), product.k);
    }
    product.a = packed;
    product.aRow = 1;
    product.aK = panelRows_;
    product.aPanel = panelRows_ * product.k;
  }

  T *dw_, *bias_;
  const T* y_;
  std::vector<RowSums<T>> rowSums_;  // of each task's images
  const View &dy_, &x_;
  const ConvSizes& z_;
  const GemmKernels<T>& gemm_;
  const Conv2dKernels<T>& kernels_;
  const int64_t panelRows_, blockRows_;
  const ConvWindow window_;
  int64_t taskDepth_, depthCuts_, taskImages_, imageCuts_;
};

}  // namespace

template <class T>
void convolveWeightGradient(const View& dw, const View& dy, const View& x,
                            const backend::Conv2dShape& shape) {
  const ConvSizes sizes(x, dw, dy, shape);
  WeightGradient<T>(dw.as<T>(), dy, x, sizes).run();
}

template void convolveWeightGradient<float>(const View&, const View&, const View&,
                                            const backend::Conv2dShape&);
template void convolveWeightGradient<double>(const View&, const View&, const View&,
                                             const backend::Conv2dShape&);

namespace {

// ---- the input, any stride: columns [depth, pixels] = w^T dy, added where they come from. A task
// has some channels of one image to itself.
template <class T>
void scatterInputGradient(const View& dx, const View& dy, const View& weight, const ConvSizes& z) {
  constexpr int64_t kTaskDepth = 256, kBlockPixels = 384;
  const Conv2dKernels<T>& kernels = conv2dKernels<T>();
  const int64_t taps = z.r * z.s;
  const int64_t taskChannels = std::min(z.c, std::max<int64_t>(1, kTaskDepth / taps));
  const int64_t cuts = ceilDivide(z.c, taskChannels);
  const int64_t blockRows = z.blockRows(kBlockPixels);
  const ConvWindow window = z.window(z.p);
  parallelFor(z.n * z.groups * cuts, 1, [&](int64_t begin, int64_t end) {
    const int64_t slabSize = lineAligned(taskChannels * window.slabChannel + z.slabSlack());
    Workspace space((slabSize + taskChannels * taps * blockRows * z.q) * sizeof(T));
    T* slab = space.template as<T>();
    T* columns = slab + slabSize;
    for (int64_t i = begin; i < end; i++) {
      const int64_t n = i / cuts / z.groups, g = i / cuts % z.groups;
      const int64_t channel = i % cuts * taskChannels;
      const int64_t channels = std::min(taskChannels, z.c - channel);
      std::fill_n(slab, slabSize, T(0));
      for (int64_t p = 0; p < z.p; p += blockRows) {
        const int64_t pixels = std::min(blockRows, z.p - p) * z.q;
        Product<T> product;
        product.m = channels * taps;
        product.n = pixels;
        product.k = z.k;
        product.a = weight.as<T>() + g * z.k * z.depth + channel * taps;
        product.aRow = 1;
        product.aK = z.depth;
        product.b = imageOf<T>(dy, n, g * z.k, z.k).data + p * dy.stride[2];
        product.bK = dy.stride[1];
        product.bColumn = dy.stride[3];
        product.c = columns;
        product.cRow = pixels;
        product.cColumn = 1;
        gemm(product);
        kernels.addColumns(slab + p * z.shape.strideH * window.slabRow, columns, window, channels,
                           pixels);
      }
      kernels.readSlab(imageOf<T>(dx, n, g * z.c + channel, channels), slab, window, -z.shape.padH,
                       -z.shape.padW, z.slabRows(z.p));
    }
  });
}

}  // namespace

template <class T>
void convolveInputGradient(const View& dx, const View& dy, const View& weight,
                           const backend::Conv2dShape& forward) {
  const ConvSizes z(dx, weight, dy, forward);
  Workspace space(z.groups * z.k * z.depth * sizeof(T));
  T* turned = space.template as<T>();
  const T* w = weight.as<T>();
  const int64_t taps = z.r * z.s;
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / (z.k * taps));
  parallelFor(z.groups * z.c, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t g = i / z.c, c = i % z.c;
      for (int64_t k = 0; k < z.k; k++) {
        T* to = turned + (i * z.k + k) * taps;
        const T* from = w + ((g * z.k + k) * z.c + c) * taps;
        for (int64_t t = 0; t < taps; t++) to[t] = from[taps - 1 - t];
      }
    }
  });
  View turnedView = weight;
  turnedView.data = turned;
  turnedView.size[0] = z.groups * z.c;
  turnedView.size[1] = z.k;
  turnedView.stride[0] = z.k * taps;
  turnedView.stride[1] = taps;
  turnedView.stride[2] = z.s;
  turnedView.stride[3] = 1;
  backend::Conv2dShape shape = forward;
  shape.padH = (z.r - 1) * shape.dilationH - shape.padH;
  shape.padW = (z.s - 1) * shape.dilationW - shape.padW;
  convolve<T>(dx, dy, turnedView, nullptr, shape);
}

template void convolveInputGradient<float>(const View&, const View&, const View&,
                                           const backend::Conv2dShape&);
template void convolveInputGradient<double>(const View&, const View&, const View&,
                                            const backend::Conv2dShape&);

}  // namespace adjoint::cpu

namespace adjoint::cpu {
namespace {

// Where isDirect: dy and y of bfloat16 are read as they are.
void directGradients(const View& dw, const View* dbias, const View& dy, const View& x,
                     const View* y, const backend::Conv2dShape& s) {
  const DType stored = dy.dtype == DType::bfloat16 ? dy.dtype : computeDType(dy.dtype);
  const bool isDense = y || dy.stride[3] != 1;
  const ComputeInput inputDy(dy, isDense ? Layout::dense : Layout::any, stored), computeX(x);
  const ComputeInput inputY(y ? *y : View{}, Layout::dense, y ? stored : DType::float32);
  ComputeOutput computeDw(dw, Layout::dense);
  std::optional<ComputeOutput> computeBias;
  if (dbias) computeBias.emplace(*dbias, Layout::dense);
  const ConvSizes sizes(computeX.view(), dw, inputDy.view(), s);
  visitFloat(dw.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    directParameters<T>(computeDw.view().as<T>(), dbias ? computeBias->view().as<T>() : nullptr,
                        inputDy.view(), computeX.view(), y ? &inputY.view() : nullptr, sizes);
  });
  computeDw.finish();
  if (dbias) computeBias->finish();
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

void conv2dBackwardInput(const View& dx, const View& dy, const View& w, const Conv2dShape& s) {
  using namespace cpu;
  if (dx.numel() == 0) return;
  if (dy.numel() == 0) return fill(dx, Scalar::of(0.0));
  if (hasBf16Convolution(w.dtype, w, s) && convolveBf16Input(dx, dy, w, s)) return;
  const ComputeInput computeW(w, Layout::dense);
  const View& weight = computeW.view();
  const ConvSizes z(dx, weight, dy, s);
  if (takesWinograd(dx.dtype) && isTurnedConvolution(z) && gainsByWinograd(z)) {
    const ComputeInput imageDy(dy, Layout::any, winogradForm(dy.dtype));
    ComputeOutput imageDx(dx, Layout::any, winogradForm(dx.dtype));
    winogradInputGradient(imageDx.view(), imageDy.view(), weight, s);
    return imageDx.finish();
  }
  const ComputeInput computeDy(dy, hasFlatPixels(dy) ? Layout::any : Layout::dense);
  ComputeOutput computeDx(dx);
  visitFloat(dx.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (isTurnedConvolution(z)) {
      convolveInputGradient<T>(computeDx.view(), computeDy.view(), weight, s);
    } else {
      scatterInputGradient<T>(computeDx.view(), computeDy.view(), weight, z);
    }
  });
  computeDx.finish();
}

void conv2dBackwardWeight(const View& dw, const View& dy, const View& x, const Conv2dShape& s) {
  using namespace cpu;
  if (dw.numel() == 0) return;
  if (dy.numel() == 0) return fill(dw, Scalar::of(0.0));
  if (hasBf16Convolution(dy.dtype, dw, s)) return convolveBf16Weight(dw, dy, x, s);
  if (isDirect(ConvSizes(x, dw, dy, s))) return directGradients(dw, nullptr, dy, x, nullptr, s);
  ComputeOutput computeDw(dw, Layout::dense);
  if (takesWinograd(x.dtype) && gainsByWinograd(ConvSizes(x, dw, dy, s))) {
    const ComputeInput imageDy(dy, Layout::any, winogradForm(dy.dtype));
    const ComputeInput imageX(x, Layout::any, winogradForm(x.dtype));
    winogradWeightGradient(computeDw.view().as<float>(), imageDy.view(), imageX.view(), s.padH,
                           s.padW);
    return computeDw.finish();
  }
  const ComputeInput computeDy(dy, hasFlatPixels(dy) ? Layout::any : Layout::dense), computeX(x);
  visitFloat(dw.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    convolveWeightGradient<T>(computeDw.view(), computeDy.view(), computeX.view(), s);
  });
  computeDw.finish();
}

void conv2dBackwardParameters(const View& dw, const View& dbias, const View& dy, const View& x,
                              const View* y, const Conv2dShape& s) {
  using namespace cpu;
  const ConvSizes sizes(x, dw, dy, s);
  const bool isEmpty = dw.numel() == 0 || dy.numel() == 0;
  if (!isEmpty && isDirect(sizes)) return directGradients(dw, &dbias, dy, x, y, s);
  if (!isEmpty && !hasBf16Convolution(dy.dtype, dw, s) &&
      !(takesWinograd(x.dtype) && gainsByWinograd(sizes))) {
    const ComputeInput computeDy(dy, Layout::dense), computeX(x);
    const ComputeInput computeY(y ? *y : View{}, Layout::dense);
    ComputeOutput computeDw(dw, Layout::dense), computeBias(dbias, Layout::dense);
    visitFloat(dw.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const ConvSizes z(computeX.view(), computeDw.view(), computeDy.view(), s);
      WeightGradient<T>(computeDw.view().template as<T>(), computeDy.view(), computeX.view(), z,
                        computeBias.view().template as<T>(),
                        y ? computeY.view().template as<T>() : nullptr)
          .run();
    });
    computeDw.finish();
    return computeBias.finish();
  }
  Workspace space(y ? static_cast<size_t>(dy.numel()) * itemSize(dy.dtype) : 0);
  View rectified = y ? detail::denseLike(dy, dy.dtype, true) : dy;
  if (y) {
    rectified.data = space.as<void>();
    binary(BinaryOp::reluBackward, rectified, {false, dy, {}}, {false, *y, {}}, dy.dtype);
  }
  conv2dBackwardWeight(dw, rectified, x, s);
  View sums = dbias;
  sums.ndim = 4;
  for (int i = 0; i < 4; i++) sums.size[i] = 1;
  sums.size[1] = dbias.size[0];
  for (int i = 0; i < 4; i++) sums.stride[i] = i == 1 ? dbias.stride[0] : 1;
  reduce(ReduceOp::sum, sums, rectified);
}

}  // namespace adjoint::backend
