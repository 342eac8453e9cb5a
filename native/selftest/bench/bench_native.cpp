// Rates of the CPU kernels beside the processor's probed limit:
//   bench_native [name-substring]; ADJOINT_SIMD chooses the level.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "contract.h"
#include "cpu/kernels/probe.h"
#include "cpu/pool.h"
#include "cpu/simd.h"

namespace adjoint {
namespace {

// Processor time where there is one thread, so that neighbours disturb little; else wall time.
double now() {
  timespec t;
  clock_gettime(cpu::poolThreads() == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

volatile float sink;

// Independent multiply-adds on all threads of the pool; returns how many operations they are.
double probe() {
  constexpr int64_t kSteps = 1 << 16;
  const cpu::ProbeTable& table = cpu::probeTable();
  const int chunks = 4 * cpu::poolThreads();
  cpu::parallelFor(chunks, 1, [&](int64_t, int64_t) { sink = table.multiplyAdds(kSteps); });
  return table.operationsPerStep * kSteps * chunks;
}

// ---- what is measured
class Buffer {
 public:
  explicit Buffer(std::vector<int64_t> shape, DType dtype = DType::float32) {
    view_.dtype = dtype;
    view_.ndim = static_cast<int>(shape.size());
    int64_t n = 1;
    for (int i = view_.ndim - 1; i >= 0; i--) {
      view_.size[i] = shape[i];
      view_.stride[i] = n;
      n *= shape[i];
    }
    view_.data = nullptr;
    bytes_ = std::max<size_t>(1, n * itemSize(dtype));
  }
  ~Buffer() {
    if (view_.data) backend::release(view_.data, bytes_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  // Filled when it is first asked for: rows that the filter leaves out take no memory.
  const View& view() const {
    if (!view_.data) fill();
    return view_;
  }
  View transposed() const {
    View v = view();
    std::swap(v.size[0], v.size[1]);
    std::swap(v.stride[0], v.stride[1]);
    return v;
  }

 private:
  void fill() const {
    view_.data = backend::allocate(bytes_);
    std::memset(view_.data, 0, bytes_);
    if (view_.dtype != DType::float32) return;
    for (int64_t i = 0; i < view_.numel(); i++) {
      view_.as<float>()[i] = static_cast<float>(i % 97) / 97 - 0.5f;
    }
  }
  mutable View view_;
  size_t bytes_;
};

double timed(int64_t calls, const std::function<void()>& call) {
  const double start = now();
  for (int64_t i = 0; i < calls; i++) call();
  return now() - start;
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

// Rounds of the call and of the probe take turns: the clock of a processor sinks under vector
// work, so a rate counts beside the probe of the same moment. Medians of both are printed.
class Report {
 public:
  explicit Report(const char* filter) : filter_(filter) {
    std::printf("%s, %d threads\n", cpu::simdLevelName(cpu::simdLevel()), cpu::poolThreads());
  }
  void row(const std::string& name, double operations, const std::function<void()>& call) {
    constexpr double kTotal = 0.4, kRound = 4e-3;
    if (name.find(filter_) == std::string::npos) return;
    int64_t calls = 1;
    while (timed(calls, call) < kRound / 2) calls *= 2;
    std::vector<double> seconds, peaks;
    for (double total = 0; total < kTotal || seconds.size() < 5;) {
      seconds.push_back(timed(calls, call) / calls);
      double done = 0;
      const double probed = timed(4, [&] { done += probe(); });
      peaks.push_back(done / probed / 1e9);
      total += seconds.back() * calls + probed;
    }
    const double middle = median(seconds);
    std::printf("%-46s %10.4f ms", name.c_str(), middle * 1e3);
    if (operations > 0) {
      const double rate = operations / middle / 1e9, peak = median(peaks);
      std::printf(" %8.1f of %5.0f GFLOP/s, %5.1f %%", rate, peak, 100 * rate / peak);
    }
    std::printf("\n");
  }

 private:
  const char* filter_;
};

void products(Report& report) {
  struct Shape {
    int64_t m, n, k;
  };
  for (auto [m, n, k] :
       {Shape{1, 10, 10},  {8, 10, 128},       {64, 10, 128},     {64, 64, 64},
        {64, 65, 65},      {64, 256, 784},     {64, 128, 256},    {64, 128, 21632},
        {64, 21632, 128},  {128, 21632, 64},   {96, 96, 96},      {128, 128, 128},
        {256, 256, 256},   {512, 512, 512},    {768, 768, 768},   {1024, 1024, 1024},
        {2048, 128, 128},  {2048, 384, 128},   {2048, 512, 128},  {2048, 128, 512},
        {128, 512, 2048},  {512, 128, 2048},   {384, 128, 2048},  {128, 128, 2048},
        {128, 1024, 2048}, {384, 1536, 2048},  {1152, 384, 2048}, {1024, 1024, 2048},
        {64, 784, 256},    {64, 256, 128},     {64, 128, 3136},   {64, 3136, 128},
        {256, 784, 64},    {256, 1024, 1024},  {128, 4096, 2048}, {512, 256, 64},
        {2048, 384, 1536}, {2048, 2048, 2048}, {1, 1024, 1024},   {1024, 1, 1024}}) {
    const Buffer a({m, k}), b({k, n}), aT({k, m}), bT({n, k}), y({m, n});
    const std::string size = std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n);
    const double operations = 2.0 * m * n * k;
    report.row("matmul NN " + size, operations,
               [&] { backend::matmul(y.view(), a.view(), b.view(), nullptr); });
    report.row("matmul NT " + size, operations,
               [&] { backend::matmul(y.view(), a.view(), bT.transposed(), nullptr); });
    report.row("matmul TN " + size, operations,
               [&] { backend::matmul(y.view(), aT.transposed(), b.view(), nullptr); });
  }
}

void convolutions(Report& report) {
  struct Shape {
    int64_t n, c, h, k, r, stride, pad, groups = 1;
  };
  for (auto [n, c, h, k, r, stride, pad, groups] : {Shape{64, 1, 28, 32, 3, 1, 0},
                                                    {64, 1, 28, 32, 3, 1, 1},
                                                    {64, 32, 14, 64, 3, 1, 1},
                                                    {64, 3, 32, 16, 3, 1, 1},
                                                    {64, 16, 32, 16, 3, 1, 1},
                                                    {64, 16, 32, 32, 3, 2, 1},
                                                    {64, 32, 16, 32, 3, 1, 1},
                                                    {64, 64, 8, 64, 3, 1, 1},
                                                    {64, 16, 32, 32, 1, 2, 0},
                                                    {32, 64, 32, 64, 3, 1, 1},
                                                    {32, 256, 8, 256, 3, 1, 1},
                                                    {32, 64, 56, 64, 3, 1, 1},
                                                    {32, 64, 56, 256, 1, 1, 0},
                                                    {32, 64, 28, 64, 3, 1, 1, 64}}) {
    const int64_t p = (h + 2 * pad - r) / stride + 1;
    const backend::Conv2dShape shape{stride, stride, pad, pad, 1, 1, groups};
    const Buffer x({n, c, h, h}), w({k, c / groups, r, r}), bias({k}), y({n, k, p, p});
    const std::string size = "n" + std::to_string(n) + " c" + std::to_string(c) + " h" +
                             std::to_string(h) + " k" + std::to_string(k) + " r" +
                             std::to_string(r) + " s" + std::to_string(stride) + " g" +
                             std::to_string(groups);
    const double operations = 2.0 * n * k * p * p * c / groups * r * r;
    report.row("conv2d " + size, operations,
               [&] { backend::conv2d(y.view(), x.view(), w.view(), &bias.view(), shape); });
    report.row("conv2dBackwardInput " + size, operations,
               [&] { backend::conv2dBackwardInput(x.view(), y.view(), w.view(), shape); });
    report.row("conv2dBackwardWeight " + size, operations,
               [&] { backend::conv2dBackwardWeight(w.view(), y.view(), x.view(), shape); });
  }
}

void pooling(Report& report) {
  for (auto [c, dtype] : {std::pair<int64_t, DType>{32, DType::float32},
                          {64, DType::float32},
                          {32, DType::bfloat16},
                          {64, DType::bfloat16}}) {
    const int64_t h = c == 32 ? 28 : 14;
    const Buffer x({64, c, h, h}, dtype), y({64, c, h / 2, h / 2}, dtype);
    const Buffer tap({64, c, h / 2, h / 2}, DType::uint8);
    const backend::Pool2dShape shape{2, 2, 2, 2, 0, 0, 1, 1};
    const std::string size =
        "n64 c" + std::to_string(c) + " h" + std::to_string(h) + " " + dtypeName(dtype);
    report.row("maxPool2d 2x2 " + size, 0,
               [&] { backend::maxPool2d(y.view(), tap.view(), x.view(), shape); });
    report.row("maxPool2dBackward 2x2 " + size, 0,
               [&] { backend::maxPool2dBackward(x.view(), y.view(), tap.view(), shape); });
  }
  const Buffer x({32, 64, 56, 56}), y({32, 64, 28, 28}), tap({32, 64, 28, 28}, DType::uint8);
  report.row("maxPool2d 3x3 s2 n32 c64 h56", 0, [&] {
    backend::maxPool2d(y.view(), tap.view(), x.view(), {3, 3, 2, 2, 1, 1, 1, 1});
  });
}

void batchNorms(Report& report) {
  for (auto [n, c, h] : {std::array<int64_t, 3>{64, 32, 28}, {64, 64, 14}, {32, 64, 56}}) {
    const Buffer x({n, c, h, h}), y({n, c, h, h}), dx({n, c, h, h}), mean({c}), rstd({c});
    const Buffer weight({c}), bias({c}), dweight({c}), dbias({c});
    const std::string size =
        "n" + std::to_string(n) + " c" + std::to_string(c) + " h" + std::to_string(h);
    report.row("batchNorm " + size, 0, [&] {
      backend::batchNorm({y.view(), mean.view(), rstd.view(), x.view(), &weight.view(),
                          &bias.view(), nullptr, nullptr, 0.1, 1e-5, true});
    });
    report.row("batchNormBackward " + size, 0, [&] {
      backend::batchNormBackward({dx.view(), dweight.view(), dbias.view(), y.view(), x.view(),
                                  &weight.view(), &bias.view(), mean.view(), rstd.view(), true});
    });
  }
}

// q, k and v are views of one [B, T, 3, H, D] tensor, y and the gradients lie as [B, T, H, D]. The
// operations are those of the products that the mask does not hide.
void attentions(Report& report) {
  struct Shape {
    int64_t b, h, t, d;
    bool isCausal;
  };
  for (auto [b, h, t, d, isCausal] : {Shape{8, 6, 256, 64, true},
                                      {16, 4, 128, 32, true},
                                      {8, 6, 256, 64, false},
                                      {1, 2, 2048, 64, true},
                                      {4, 8, 1024, 64, true},
                                      {64, 8, 16, 64, true},
                                      {2, 8, 512, 80, false}}) {
    const Buffer qkv({b, t, 3, h, d}), y({b, t, h, d}), dq({b, t, h, d}), dk({b, t, h, d}),
        dv({b, t, h, d}), lse({b, h, t});
    const auto headsOf = [&](const View& x, int64_t part) {
      View v = x;
      const int64_t row = x.stride[1];
      v.ndim = 4;
      v.data = x.as<float>() + part * h * d;
      v.size[1] = h;
      v.size[2] = t;
      v.size[3] = d;
      v.stride[1] = d;
      v.stride[2] = row;
      v.stride[3] = 1;
      return v;
    };
    const View q = headsOf(qkv.view(), 0), k = headsOf(qkv.view(), 1), v = headsOf(qkv.view(), 2);
    const View out = headsOf(y.view(), 0);
    const double scale = 1 / std::sqrt(static_cast<double>(d));
    const double seen = isCausal ? t * (t + 1.0) / 2 : 1.0 * t * t;
    const double product = 2.0 * b * h * seen * d;
    const std::string size = std::to_string(b) + "x" + std::to_string(h) + "x" + std::to_string(t) +
                             "x" + std::to_string(d) + (isCausal ? " causal" : "");
    report.row("attention " + size, 2 * product, [&, causal = isCausal] {
      backend::attention(out, lse.view(), q, k, v, nullptr, scale, causal);
    });
    report.row("attentionBackward " + size, 5 * product, [&, causal = isCausal] {
      backend::attentionBackward({headsOf(dq.view(), 0), headsOf(dk.view(), 0),
                                  headsOf(dv.view(), 0), out, q, k, v, out, lse.view(), nullptr,
                                  scale, causal});
    });
  }
}

// The operations are those of the products, of which backward's own is the state's.
void recurrentLayers(Report& report) {
  struct Shape {
    int64_t steps, batch, features, units;
  };
  for (auto [t, n, i, h] : {Shape{64, 32, 64, 256},
                            {64, 32, 256, 256},
                            {64, 1, 256, 256},
                            {64, 8, 256, 256},
                            {64, 128, 256, 256},
                            {64, 32, 64, 64},
                            {64, 32, 100, 100},
                            {64, 32, 512, 512}}) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
      const Buffer x({t, n, i}, dtype), wIh({4 * h, i}, dtype), wHh({4 * h, h}, dtype),
          bias({4 * h}, dtype), y({t, n, h}, dtype), c({n, h}, dtype), dh0({n, h}, dtype),
          dgates({t, n, 4 * h}, dtype), gates({t, n, 4 * h}), cells({t, n, h});
      const std::string size = std::to_string(t) + "x" + std::to_string(n) + "x" +
                               std::to_string(i) + "x" + std::to_string(h) + " " + dtypeName(dtype);
      const double product = 8.0 * t * n * h;
      report.row("lstm " + size, product * (i + h), [&] {
        backend::lstm({y.view(), c.view(), gates.view(), cells.view()},
                      {x.view(), wIh.view(), wHh.view(), &bias.view(), &bias.view(), nullptr,
                       nullptr, false});
      });
      report.row("lstmBackward " + size, product * h, [&] {
        backend::lstmBackward({dgates.view(), dh0.view(), c.view(), bias.view()}, &y.view(),
                              nullptr, wHh.view(), nullptr, gates.view(), cells.view(), false);
      });
    }
  }
}

void optimizers(Report& report) {
  const Buffer p({2800000}), g({2800000}), m({2800000}), v({2800000});
  report.row("adamw 2.8M", 0, [&] {
    backend::adam({{p.view(), g.view(), m.view(), v.view(), View{}}},
                  {1e-3, 0.9, 0.999, 1e-8, 0.01, 100, true, false});
  });
  report.row("sgd with momentum 2.8M", 0, [&] {
    backend::sgd({{p.view(), g.view(), m.view()}}, {1e-3, 0.9, 0, 0, false, false, false});
  });
}

}  // namespace
}  // namespace adjoint

int main(int argc, char** argv) {
  using namespace adjoint;
  backend::startup();
  Report report(argc > 1 ? argv[1] : "");
  products(report);
  convolutions(report);
  pooling(report);
  batchNorms(report);
  attentions(report);
  recurrentLayers(report);
  optimizers(report);
  backend::shutdown();
}
