// contract.h's probe: what the card reaches at best, measured now by its own clock.
#include <algorithm>

#include "contract.h"
#include "cuda/launch.h"
#include "cuda/workspace.h"

namespace adjoint {
namespace cuda {
namespace {

constexpr int kRounds = 5;
constexpr int kThreads = 256, kBlocks = 8;  // of a multiprocessor: all that it holds
constexpr int kChains = 8;

// x -> 0.999 x + 0.001 in independent chains.
__global__ void __launch_bounds__(kThreads) multiplyAddKernel(float* y, int steps) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  float chain[kChains], sum = 0;
  for (int k = 0; k < kChains; k++) chain[k] = static_cast<float>(thread + k);
  for (int step = 0; step < steps; step++) {
    for (int k = 0; k < kChains; k++) chain[k] = chain[k] * 0.999f + 0.001f;
  }
  for (int k = 0; k < kChains; k++) sum += chain[k];
  y[thread] = sum;
}

class Clock {
 public:
  Clock() {
    for (cudaEvent_t& event : events_) {
      ADJOINT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDefault));
    }
  }
  ~Clock() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  template <class F>
  double seconds(const F& queue) const {
    ADJOINT_CUDA(cudaEventRecord(events_[0], stream()));
    queue();
    ADJOINT_CUDA(cudaEventRecord(events_[1], stream()));
    ADJOINT_CUDA(cudaEventSynchronize(events_[1]));
    float milliseconds = 0;
    ADJOINT_CUDA(cudaEventElapsedTime(&milliseconds, events_[0], events_[1]));
    return std::max(1e-3 * static_cast<double>(milliseconds), 1e-9);
  }
  // The best of some rounds, after one that does not count.
  template <class F>
  double bestSeconds(const F& queue) const {
    double best = seconds(queue);
    best = seconds(queue);
    for (int round = 1; round < kRounds; round++) best = std::min(best, seconds(queue));
    return best;
  }

 private:
  cudaEvent_t events_[2];
};

double multiplyAddsPerSecond(const Clock& clock) {
  const int blocks = kBlocks * multiprocessors();
  const Workspace y(sizeof(float) * static_cast<size_t>(blocks) * kThreads);
  int steps = 64;
  const auto run = [&] {
    launch(static_cast<unsigned>(blocks), kThreads, 0, stream(), multiplyAddKernel,
           static_cast<float*>(y.data()), steps);
  };
  // Long enough that starting it is nothing.
  while (clock.seconds(run) < 1e-3 && steps < 1 << 24) steps *= 2;
  return 2.0 * kChains * steps * blocks * kThreads / clock.bestSeconds(run);
}

// The products of a matrix multiplication that fills the card: what it has units for is in NVIDIA's
// library.
double bf16OperationsPerSecond(const Clock& clock) {
  const int64_t edge = std::min(64 * multiprocessors(), 8448);
  const size_t bytes = static_cast<size_t>(edge * edge) * itemSize(DType::bfloat16);
  const Workspace blocks[3] = {Workspace(bytes), Workspace(bytes), Workspace(bytes)};
  View matrices[3];
  for (int k = 0; k < 3; k++) {
    View& v = matrices[k];
    v.data = blocks[k].data();
    v.dtype = DType::bfloat16;
    v.ndim = 2;
    v.size[0] = v.size[1] = v.stride[0] = edge;
    v.stride[1] = 1;
    if (k > 0) backend::random(RandomOp::uniform, v, -1, 1, {1, static_cast<uint64_t>(k) << 40});
  }
  const double seconds =
      clock.bestSeconds([&] { backend::matmul(matrices[0], matrices[1], matrices[2], nullptr); });
  return 2.0 * static_cast<double>(edge * edge * edge) / seconds;
}

double copiedBytesPerSecond(const Clock& clock) {
  const size_t bytes = static_cast<size_t>(multiprocessors()) << 21;  // beyond the caches
  const Workspace source(bytes), target(bytes);
  const double seconds = clock.bestSeconds([&] {
    ADJOINT_CUDA(
        cudaMemcpyAsync(target.data(), source.data(), bytes, cudaMemcpyDeviceToDevice, stream()));
  });
  return 2.0 * static_cast<double>(bytes) / seconds;
}

}  // namespace
}  // namespace cuda

void backend::probe(const View& rates) {
  const cuda::Clock clock;
  const double values[3] = {cuda::multiplyAddsPerSecond(clock),
                            cuda::bf16OperationsPerSecond(clock),
                            cuda::copiedBytesPerSecond(clock)};
  copyFromHost(rates.data, values, sizeof values);
}

}  // namespace adjoint
