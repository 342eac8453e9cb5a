// How many bytes of device memory the memory-bound kernels move, against the least possible: every
// operand once. The rows of the table in docs/cuda-kernels.md.
#include "emulation/races/traffic.h"

#include <algorithm>
#include <cstdio>

#include "selftest/emulation/device_tensor.h"

namespace adjoint::test {
namespace {

// What an operation reads and writes, made by name(sizes): dense, of the dtype of the row or of
// another one. Values are zeros, which every operand admits.
class Traffic {
 public:
  Traffic(const char* name, DType dtype) : name_(name), dtype_(dtype) {}

  const View& make(const Sizes& sizes) { return make(sizes, dtype_); }
  const View& make(const Sizes& sizes, DType dtype) {
    int64_t n = 1;
    for (int64_t size : sizes) n *= size;
    tensors_.push_back(std::make_unique<DeviceTensor>(dtype, sizes, Values(size_t(n), 0)));
    return tensors_.back()->view;
  }
  // Images [N, C, H, W], channels last.
  const View& makeLast(const Sizes& sizes) { return makeLast(sizes, dtype_); }
  const View& makeLast(const Sizes& sizes, DType dtype) {
    make(sizes, dtype);
    View& v = tensors_.back()->view;
    const int64_t c = sizes[1], w = sizes[3];
    const int64_t strides[] = {sizes[2] * w * c, 1, w * c, c};
    std::copy(strides, strides + 4, v.stride);
    return v;
  }
  // Read and written.
  const View& update(const Sizes& sizes) {
    const View& view = make(sizes);
    updated_ += bytesOf(view);
    return view;
  }
  // Written once to memory that the operation asks for.
  void temporary(int64_t elements) { updated_ += static_cast<size_t>(elements) * itemSize(dtype_); }
  Operand operand(const Sizes& sizes) {
    Operand o;
    o.view = make(sizes);
    return o;
  }

  // Prints the row; what `body` queues must move at most `most` times the least possible.
  template <class F>
  void expect(double most, const F& body) {
    backend::synchronize();
    std::vector<emulation::MemoryRange> ranges;
    for (const auto& t : tensors_) {
      const char* begin = static_cast<const char*>(t->view.data);
      ranges.push_back({begin, begin + bytesOf(t->view)});
    }
    ranges.push_back({});
    emulation::countTraffic(&ranges);
    body();
    backend::synchronize();
    emulation::countTraffic(nullptr);
    size_t largest = 0;
    for (const auto& t : tensors_) largest = std::max(largest, bytesOf(t->view));
    double least = static_cast<double>(updated_),
           moved = static_cast<double>(ranges.back().read + ranges.back().written);
    for (size_t i = 0; i < tensors_.size(); i++) {
      const size_t size = bytesOf(tensors_[i]->view);
      size_t asked = ranges[i].read + ranges[i].written;
      // What is small beside the rest stays in the caches after its first use.
      if (size * 16 <= largest) asked = std::min(asked, size);
      least += static_cast<double>(size);
      moved += static_cast<double>(asked);
    }
    std::string shape;
    for (int i = 0; i < tensors_[0]->view.ndim; i++) {
      shape += (i > 0 ? " x " : "") + std::to_string(tensors_[0]->view.size[i]);
    }
    std::printf("| %s | %s | %s | %.0f | %.0f | %.2f |\n", name_, dtypeName(dtype_), shape.c_str(),
                least / 1024, moved / 1024, moved / least);
    EXPECT_LE(moved, most * least) << name_ << ", " << dtypeName(dtype_);
    EXPECT_GE(moved, 0.99 * least) << name_ << ": not all was counted";
  }

 private:
  static size_t bytesOf(const View& v) {
    return static_cast<size_t>(v.numel()) * itemSize(v.dtype);
  }
  const char* name_;
  DType dtype_;
  std::vector<std::unique_ptr<DeviceTensor>> tensors_;
  size_t updated_ = 0;
};

constexpr DType kTypes[] = {DType::float32, DType::bfloat16};
constexpr double kOnce = 1.0;

TEST(TrafficOfKernels, elementwise) {
  for (DType dtype : kTypes) {
    Traffic unary("unary", dtype);
    const View &y = unary.make({64, 1024}), &x = unary.make({64, 1024});
    unary.expect(kOnce, [&] { backend::unary(UnaryOp::relu, y, x, dtype); });
    Traffic binary("binary", dtype);
    const View& sum = binary.make({64, 1024});
    const Operand a = binary.operand({64, 1024}), b = binary.operand({64, 1024});
    binary.expect(kOnce, [&] { backend::binary(BinaryOp::add, sum, a, b, dtype); });
    Traffic copy("conversion to float64", dtype);
    const View &from = copy.make({64, 1024}), &to = copy.make({64, 1024}, DType::float64);
    copy.expect(kOnce, [&] { backend::copy(to, from); });
    Traffic dropout("dropout", dtype);
    const View &in = dropout.make({64, 1024}), &out = dropout.make({64, 1024});
    const View& state = dropout.make({2}, DType::int64);
    dropout.expect(kOnce, [&] { backend::dropout(out, in, 0.5, state); });
  }
}

TEST(TrafficOfKernels, rows) {
  for (DType dtype : kTypes) {
    const Sizes whole = {64, 1024};
    Traffic sum("sum of rows", dtype);
    const View &all = sum.make(whole), &total = sum.make({64, 1});
    sum.expect(1.01, [&] { backend::reduce(ReduceOp::sum, total, all); });
    Traffic softmax("softmax", dtype);
    const View &y = softmax.make(whole), &x = softmax.make(whole);
    softmax.expect(kOnce, [&] { backend::softmax(y, x, 1, false); });
    Traffic gradient("softmax backward", dtype);
    const View &dx = gradient.make(whole), &dy = gradient.make(whole), &p = gradient.make(whole);
    gradient.expect(kOnce, [&] { backend::softmaxBackward(dx, dy, p, 1, false); });
    Traffic loss("cross-entropy", dtype);
    const View &logits = loss.make({16, 4096}), &target = loss.make({16}, DType::int64);
    const View &each = loss.make({16}), &lse = loss.make({16}, DType::float32);
    loss.expect(1.01, [&] { backend::crossEntropy(each, lse, logits, target, -100); });
    Traffic back("cross-entropy backward", dtype);
    const View &dlogits = back.make({16, 4096}), &again = back.make({16, 4096}),
               &d = back.make({16}), &kept = back.make({16}, DType::float32),
               &which = back.make({16}, DType::int64);
    back.expect(1.01, [&] { backend::crossEntropyBackward(dlogits, d, again, kept, which, -100); });
  }
}

TEST(TrafficOfKernels, norms) {
  for (DType dtype : kTypes) {
    Traffic layer("layer norm", dtype);
    const View &x = layer.make({128, 768}), &y = layer.make({128, 768});
    const View &mean = layer.make({128}, DType::float32), &rstd = layer.make({128}, DType::float32);
    const View &weight = layer.make({768}), &bias = layer.make({768});
    layer.expect(kOnce, [&] { backend::layerNorm({y, rstd, x, &mean, &weight, &bias, 1e-5}); });
    Traffic back("layer norm backward", dtype);
    const View &bx = back.make({512, 768}), &bdy = back.make({512, 768}),
               &bdx = back.make({512, 768});
    const View &bmean = back.make({512}, DType::float32), &brstd = back.make({512}, DType::float32);
    const View &bweight = back.make({768}), &dweight = back.make({768}), &dbias = back.make({768});
    // So few rows are cut into many chunks, whose sums of columns are large beside them.
    back.expect(dtype == DType::float32 ? 1.4 : 1.7, [&] {
      backend::layerNormBackward({bdx, dweight, bdy, bx, brstd, &dbias, &bweight, &bmean});
    });
    const Sizes images = {8, 32, 32, 32};
    Traffic batch("batch norm", dtype);
    const View &u = batch.make(images), &v = batch.make(images);
    const View &bm = batch.make({32}, DType::float32), &br = batch.make({32}, DType::float32);
    const View &bw = batch.make({32}), &bb = batch.make({32});
    batch.expect(1.6, [&] {
      backend::batchNorm({v, bm, br, u, &bw, &bb, nullptr, nullptr, 0.1, 1e-5, true});
    });
    Traffic batchBack("batch norm backward", dtype);
    const View &cx = batchBack.make(images), &cdy = batchBack.make(images),
               &cdx = batchBack.make(images);
    const View &cm = batchBack.make({32}, DType::float32),
               &cr = batchBack.make({32}, DType::float32);
    const View &cw = batchBack.make({32}), &cb = batchBack.make({32}), &cdw = batchBack.make({32}),
               &cdb = batchBack.make({32});
    batchBack.expect(1.8, [&] {
      backend::batchNormBackward({cdx, cdw, cdb, cdy, cx, &cw, &cb, cm, cr, true});
    });
  }
}

// What follows a convolution for tensor cores, forward and backward.
TEST(TrafficOfKernels, channelsLast) {
  const Sizes images = {8, 32, 32, 32}, pooled = {8, 32, 16, 16};
  const backend::Pool2dShape three = {3, 3, 2, 2, 1, 1, 1, 1};
  for (DType dtype : kTypes) {
    Traffic slope("ReLU's slope, channels last", dtype);
    const View& dz = slope.makeLast(images);
    const Operand g{false, slope.makeLast(images), {}}, kept{false, slope.makeLast(images), {}};
    slope.expect(kOnce, [&] { backend::binary(BinaryOp::reluBackward, dz, g, kept, dtype); });
    Traffic norm("batch norm, channels last", dtype);
    const View &x = norm.makeLast(images), &y = norm.makeLast(images);
    const View &mean = norm.make({32}, DType::float32), &rstd = norm.make({32}, DType::float32);
    const View &weight = norm.make({32}), &bias = norm.make({32});
    // Each thread reads what it needs of its channels, from the caches: in small images it has few.
    norm.expect(dtype == DType::float32 ? 1.95 : 2.3, [&] {
      backend::batchNorm({y, mean, rstd, x, &weight, &bias, nullptr, nullptr, 0.1, 1e-5, true});
    });
    Traffic back("batch norm backward, channels last", dtype);
    const View &bx = back.makeLast(images), &dy = back.makeLast(images),
               &dx = back.makeLast(images);
    const View &bMean = back.make({32}, DType::float32), &bRstd = back.make({32}, DType::float32);
    const View &bWeight = back.make({32}), &bBias = back.make({32}), &dw = back.make({32}),
               &db = back.make({32});
    back.expect(dtype == DType::float32 ? 2.1 : 2.6, [&] {
      backend::batchNormBackward({dx, dw, db, dy, bx, &bWeight, &bBias, bMean, bRstd, true});
    });
    Traffic sum("sums of channels, channels last", dtype);
    const View &dbias = sum.make({1, 32, 1, 1}), &from = sum.makeLast(images);
    sum.expect(1.05, [&] { backend::reduce(ReduceOp::sum, dbias, from); });
    Traffic pool("max pooling 3 x 3, channels last", dtype);
    const View &px = pool.makeLast(images), &py = pool.makeLast(pooled);
    const View& tap = pool.makeLast(pooled, DType::uint8);
    pool.expect(2, [&] { backend::maxPool2d(py, tap, px, three); });
  }
}

// dz, which the products read, and the bias's gradient, of partial sums for each 64 rows.
TEST(TrafficOfKernels, slopesOfLinearLayers) {
  for (DType dtype : kTypes) {
    Traffic slopes("GELU's slope with sums", dtype);
    const Sizes sizes = {512, 256};
    backend::LinearBackwardArgs a{};
    a.dy = slopes.make(sizes);
    a.kept = &slopes.make(sizes);
    a.dbias = &slopes.make({256});
    a.activation = Activation::gelu;
    slopes.temporary(512 * 256);
    slopes.expect(1.03, [&] { backend::linearBackward(a); });
  }
}

TEST(TrafficOfKernels, windowsIndicesAndOptimizers) {
  for (DType dtype : kTypes) {
    const backend::Pool2dShape two = {2, 2, 2, 2, 0, 0, 1, 1};
    Traffic pool("max pooling", dtype);
    const View &x = pool.make({4, 16, 32, 32}), &y = pool.make({4, 16, 16, 16});
    const View& tap = pool.make({4, 16, 16, 16}, DType::uint8);
    pool.expect(kOnce, [&] { backend::maxPool2d(y, tap, x, two); });
    Traffic poolBack("max pooling backward", dtype);
    const View &dx = poolBack.make({4, 16, 32, 32}), &dy = poolBack.make({4, 16, 16, 16});
    const View& taps = poolBack.make({4, 16, 16, 16}, DType::uint8);
    poolBack.expect(2.1, [&] { backend::maxPool2dBackward(dx, dy, taps, two); });
    Traffic lookup("embedding", dtype);
    const View &rows = lookup.make({256, 128}), &table = lookup.make({1, 128});
    const View& at = lookup.make({256}, DType::int64);
    lookup.expect(1.05, [&] { backend::embedding(rows, table, at); });
  }
  Traffic adam("AdamW", DType::float32);
  backend::AdamEntry entry{};
  entry.param = adam.update({65536});
  entry.grad = adam.make({65536});
  entry.m = adam.update({65536});
  entry.v = adam.update({65536});
  adam.expect(kOnce, [&] {
    backend::adam({entry}, {0.1, 0.9, 0.999, 1e-8, 0.01, 1, true, false});
  });
  Traffic sgd("SGD with momentum", DType::float32);
  backend::SgdEntry step{};
  step.param = sgd.update({65536});
  step.grad = sgd.make({65536});
  step.momentum = sgd.update({65536});
  sgd.expect(kOnce, [&] { backend::sgd({step}, {0.1, 0.9, 0, 0, false, false, false}); });
}

}  // namespace
}  // namespace adjoint::test
