// Convolution as a product of the weights with the columns of the image
// (native/cpu/kernels/conv2d.h).
#include "cpu/conv2d.h"

#include "cpu/compute_view.h"
#include "cpu/conv2d_bf16.h"
#include "cpu/pool.h"
#include "cpu/winograd.h"

namespace adjoint::cpu {
namespace {

// With one tap, unit strides and no padding the image is its own columns.
template <class T>
void convolvePointwise(const View& y, const View& x, const View& weight, const View* bias,
                       const ConvSizes& z, bool relu) {
  forEachProduct(z.n * z.groups, 2.0 * z.k * z.c * z.p * z.q, [&](int64_t i) {
    const int64_t n = i / z.groups, g = i % z.groups;
    Product<T> product;
    product.m = z.k;
    product.n = z.p * z.q;
    product.k = z.c;
    product.a = weight.as<T>() + g * z.k * weight.stride[0];
    product.aRow = weight.stride[0];
    product.aK = weight.stride[1];
    product.b = imageOf<T>(x, n, g * z.c, z.c).data;
    product.bK = x.stride[1];
    product.bColumn = x.stride[3];
    product.c = imageOf<T>(y, n, g * z.k, z.k).data;
    product.cRow = y.stride[1];
    product.cColumn = y.stride[3];
    if (bias) {
      product.bias = bias->as<T>() + g * z.k * bias->stride[0];
      product.biasRow = bias->stride[0];
    }
    product.rectify = relu;
    gemm(product);
  });
}

template <class T>
class Convolution {
 public:
  Convolution(const View& y, const View& x, const View& weight, const View* bias,
              const ConvSizes& z, bool relu)
      : y_(y),
        x_(x),
        z_(z),
        gemm_(gemmKernels<T>()),
        kernels_(conv2dKernels<T>()),
        depth_(z.depth, DepthBlocks::kInL1),
        panelRows_(ceilDivide(z.k, ceilDivide(z.k, gemm_.rows))),
        packedRows_(ceilDivide(z.k, panelRows_) * panelRows_),
        blockRows_(z.blockRows(kBlockPixels)),
        window_(z.window(blockRows_)),
        isDirect_(y.stride[3] == 1 && hasFlatPixels(y)),
        rectify_(relu),
        packed_(z.groups * (packedRows_ * z.depth + z.k * gemm_.columns) * sizeof(T)) {
    weights_ = packed_.template as<T>();
    bias_ = weights_ + z.groups * packedRows_ * z.depth;
    packWeights(weight);
    for (int64_t k = 0; k < z.groups * z.k; k++) {
      const T value = bias ? bias->as<T>()[k * bias->stride[0]] : T(0);
      std::fill_n(bias_ + k * gemm_.columns, gemm_.columns, value);
    }
  }

  void run() {
    const int64_t blocks = ceilDivide(z_.p, blockRows_);
    const double operations = 2.0 * z_.k * z_.depth * blockRows_ * z_.q + 1;
    const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(kTaskOperations / operations));
    parallelFor(z_.n * z_.groups * blocks, grain, [&](int64_t begin, int64_t end) {
      Workspace space((slabSize() + panelSize() + resultSize()) * sizeof(T));
      T* slab = space.template as<T>();
      for (int64_t i = begin; i < end; i++) {
        const int64_t p = i % blocks * blockRows_;
        block(i / blocks / z_.groups, i / blocks % z_.groups, p, std::min(z_.p, p + blockRows_),
              slab);
      }
    });
  }

 private:
  static constexpr double kTaskOperations = 1e6;
  static constexpr int64_t kBlockPixels = 384, kPackGrain = 1 << 15;

  int64_t blockPixels() const {
    return ceilDivide(blockRows_ * z_.q, gemm_.columns) * gemm_.columns;
  }
  int64_t slabSize() const { return lineAligned(z_.c * window_.slabChannel + z_.slabSlack()); }
  int64_t panelSize() const { return (depth_.size + kConvSlack) * gemm_.columns; }
  int64_t resultSize() const { return isDirect_ ? 0 : z_.k * blockPixels(); }

  // The rows of each group, whole, as panels of a: block after block of the depth.
  void packWeights(const View& weight) {
    const T* w = weight.as<T>();
    const int64_t panels = packedRows_ / panelRows_;
    const int64_t grain = std::max<int64_t>(1, kPackGrain / (panelRows_ * z_.depth + 1));
    parallelFor(z_.groups * panels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t g = i / panels, row = i % panels * panelRows_;
        for (int64_t d = 0; d < depth_.count; d++) {
          const int64_t k = depth_.begin(d), size = depth_.end(d) - k;
          gemm_.pack(packedWeights(g, k) + row * size, panelRows_,
                     w + (g * z_.k + row) * z_.depth + k, z_.depth, 1,
                     std::min(panelRows_, z_.k - row), size);
        }
      }
    });
  }
  T* packedWeights(int64_t group, int64_t k) const {
    return weights_ + packedRows_ * (group * z_.depth + k);
  }

  // Rows p..pEnd of the output of one image and group.
  void block(int64_t n, int64_t g, int64_t p, int64_t pEnd, T* slab) const {
    T* panel = slab + slabSize();
    const int64_t pixels = (pEnd - p) * z_.q;
    const ImageView<const T> image = imageOf<T, const T>(x_, n, g * z_.c, z_.c);
    kernels_.fillSlab(slab, image, window_, p * z_.shape.strideH - z_.shape.padH, -z_.shape.padW,
                      z_.slabRows(pEnd - p));
    T* y = imageOf<T>(y_, n, g * z_.k, z_.k).data + p * y_.stride[2];

    GemmBlock<T> product;
    product.m = z_.k;
    product.aRow = 1;
    product.aK = product.panelRows = panelRows_;
    product.b = product.bEdge = panel;
    product.bPanel = 0;
    product.bRow = gemm_.columns;
    T* c = isDirect_ ? y : panel + panelSize();
    product.cRow = isDirect_ ? y_.stride[1] : blockPixels();
    for (int64_t d = 0; d < depth_.count; d++) {
      const int64_t k = depth_.begin(d);
      int64_t offset[DepthBlocks::kInL1];
      product.k = depth_.end(d) - k;
      product.a = packedWeights(g, k);
      product.aPanel = panelRows_ * product.k;
      product.rectify = rectify_ && d + 1 == depth_.count;
      kernels_.tapOffsets(offset, window_, k, product.k);
      for (int64_t j = 0; j < pixels; j += gemm_.columns) {
        product.n = std::min(gemm_.columns, pixels - j);
        kernels_.packColumns(panel, slab, window_, offset, product.k, j, product.n);
        product.c = c + j;
        product.init = d == 0 ? bias_ + g * z_.k * gemm_.columns : product.c;
        product.initRow = d == 0 ? gemm_.columns : product.cRow;
        product.initColumn = 0;
        gemm_.multiply(product);
      }
    }
    if (isDirect_) return;
    for (int64_t row = 0; row < pEnd - p; row++) {
      gemm_.store(y + row * y_.stride[2], y_.stride[1], y_.stride[3], c + row * z_.q, product.cRow,
                  z_.k, z_.q);
    }
  }

  const View &y_, &x_;
  const ConvSizes& z_;
  const GemmKernels<T>& gemm_;
  const Conv2dKernels<T>& kernels_;
  const DepthBlocks depth_;
  const int64_t panelRows_, packedRows_, blockRows_;
  const ConvWindow window_;
  const bool isDirect_;
  const bool rectify_;
  Workspace packed_;
  T *weights_, *bias_;
};

}  // namespace

template <class T>
void convolve(const View& y, const View& x, const View& weight, const View* bias,
              const backend::Conv2dShape& shape, bool relu) {
  const ConvSizes sizes(x, weight, y, shape);
  const bool isPointwise = sizes.r == 1 && sizes.s == 1 && shape.strideH == 1 &&
                           shape.strideW == 1 && shape.padH == 0 && shape.padW == 0;
  if (isPointwise && hasFlatPixels(x) && hasFlatPixels(y)) {
    convolvePointwise<T>(y, x, weight, bias, sizes, relu);
  } else if (isDirect(sizes, kFewTapsForward) && y.stride[3] == 1) {
    convolveDirect<T>(y, x, weight, bias, sizes, relu);
  } else {
    Convolution<T>(y, x, weight, bias, sizes, relu).run();
  }
}

template void convolve<float>(const View&, const View&, const View&, const View*,
                              const backend::Conv2dShape&, bool);
template void convolve<double>(const View&, const View&, const View&, const View*,
                               const backend::Conv2dShape&, bool);

}  // namespace adjoint::cpu

namespace adjoint::backend {

void conv2d(const View& y, const View& x, const View& w, const View* bias, const Conv2dShape& s,
            bool relu) {
  using namespace cpu;
  if (y.numel() == 0) return;
  const ConvSizes sizes(x, w, y, s);
  const bool keepsBFloat16 = y.dtype == DType::bfloat16 && isDirect(sizes) && y.stride[3] == 1;
  if (!keepsBFloat16 && hasBf16Convolution(w.dtype, w, s)) {
    convolveBf16(y, x, w, bias, s);
    if (relu) unary(UnaryOp::relu, y, y, y.dtype);
    return;
  }
  const ComputeInput computeW(w, Layout::dense), computeBias(bias ? *bias : View{});
  const View* b = bias ? &computeBias.view() : nullptr;
  const View& weight = computeW.view();
  if (keepsBFloat16) {
    return convolveDirect<float>(y, ComputeInput(x).view(), weight, b, sizes, relu);
  }
  if (takesWinograd(y.dtype) && !isDirect(sizes, kFewTapsForward) && gainsByWinograd(sizes)) {
    const WinogradFilters filters{weight.as<float>(), weight.stride[0], weight.stride[1], false};
    const ComputeInput imageX(x, Layout::any, winogradForm(x.dtype));
    ComputeOutput imageY(y, Layout::any, winogradForm(y.dtype));
    winogradConvolve(imageY.view(), imageX.view(), filters, b, s.padH, s.padW);
    if (relu) unary(UnaryOp::relu, imageY.view(), imageY.view(), imageY.view().dtype);
    return imageY.finish();
  }
  const ComputeInput computeX(x);
  ComputeOutput computeY(y);
  visitFloat(y.dtype, [&](auto tag) {
    convolve<typename decltype(tag)::type>(computeY.view(), computeX.view(), weight, b, s, relu);
  });
  computeY.finish();
}

}  // namespace adjoint::backend
