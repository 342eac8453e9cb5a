// Random numbers by Philox: element i depends on the seed and i alone, so any thread may make it.
#include <optional>
#include <vector>

#include "contract.h"
#include "cuda/elements.h"
#include "cuda/graph.h"
#include "cuda/walk.h"
#include "cuda/workspace.h"
#include "shared/philox.h"

namespace adjoint {
namespace cuda {
namespace {

constexpr int kRandomThreads = 256;

// What one counter gives: four numbers from a lane each, or two from two lanes.
template <class T>
struct Draw {
  static constexpr int count = 4;
  using Bits = uint32_t;
  static ADJOINT_DEVICE uint32_t bits(const Philox4& r, int j) { return r.lane[j]; }
};
struct WideDraw {
  static constexpr int count = 2;
  using Bits = uint64_t;
  static ADJOINT_DEVICE uint64_t bits(const Philox4& r, int j) {
    return joinLanes(r.lane[2 * j], r.lane[2 * j + 1]);
  }
};
template <>
struct Draw<double> : WideDraw {};

// Calls body(i, j, numbers of the counter) for the elements i of [0, n), each the j-th of its
// counter; a thread takes a counter at a time.
template <class D, class Body>
ADJOINT_DEVICE void forEachDraw(uint32_t n, backend::RandomState state, const Body& body) {
  const uint64_t threads = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t c = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; c * D::count < n;
       c += threads) {
    const Philox4 numbers = philox(state.seed, state.offset + c);
    for (int j = 0; j < D::count && c * D::count + j < n; j++) {
      body(static_cast<uint32_t>(c * D::count + j), j, numbers);
    }
  }
}

struct RandomTarget {
  Walk<1> walk;
  void* data;
  DType dtype;
  uint32_t n;
  template <class T>
  ADJOINT_DEVICE void store(uint32_t i, T value) const {
    int64_t at[1];
    walk.offsets(i, at);
    storeAs(data, dtype, at[0], value);
  }
};

template <class T>
__global__ void uniformKernel(RandomTarget y, Changing<backend::RandomState> state, T a, T b) {
  forEachDraw<Draw<T>>(y.n, state.get(), [&](uint32_t i, int j, const Philox4& r) {
    y.store(i, uniformOf(Draw<T>::bits(r, j)) * (b - a) + a);
  });
}

template <class T>
__global__ void normalKernel(RandomTarget y, Changing<backend::RandomState> state, T mean,
                             T deviation) {
  forEachDraw<Draw<T>>(y.n, state.get(), [&](uint32_t i, int j, const Philox4& r) {
    T z[2];
    normalPair(uniformOf(Draw<T>::bits(r, j & ~1)), uniformOf(Draw<T>::bits(r, j | 1)), z[0], z[1]);
    y.store(i, mean + deviation * z[j & 1]);
  });
}

template <class T>
__global__ void bernoulliKernel(RandomTarget y, Changing<backend::RandomState> state, T p) {
  forEachDraw<Draw<T>>(y.n, state.get(), [&](uint32_t i, int j, const Philox4& r) {
    y.store(i, uniformOf(Draw<T>::bits(r, j)) < p ? T(1) : T(0));
  });
}

template <class D>
__global__ void randintKernel(RandomTarget y, Changing<backend::RandomState> state, int64_t low,
                              uint64_t range) {
  forEachDraw<D>(y.n, state.get(), [&](uint32_t i, int j, const Philox4& r) {
    y.store(i, plus(low, static_cast<int64_t>(integerBelow(D::bits(r, j), range))));
  });
}

// y[i] = u[i] < p ? 0 : x[i] / (1 - p)
template <class T>
__global__ void dropoutKernel(Walk<2> walk, void* y, DType yType, const void* x, DType xType,
                              uint32_t n, T p, const int64_t* state, int64_t stateStride) {
  const T scale = T(1) / (T(1) - p);
  const backend::RandomState drawn{static_cast<uint64_t>(state[0]),
                                   static_cast<uint64_t>(state[stateStride])};
  forEachDraw<Draw<T>>(n, drawn, [&](uint32_t i, int j, const Philox4& r) {
    int64_t at[2];
    walk.offsets(i, at);
    const T kept = loadAs<T>(x, xType, at[1]) * scale;
    storeAs(y, yType, at[0], uniformOf(Draw<T>::bits(r, j)) < p ? T(0) : kept);
  });
}

__global__ void writeStateKernel(int64_t* state, int64_t stride,
                                 Changing<backend::RandomState> value) {
  const backend::RandomState drawn = value.get();
  state[0] = static_cast<int64_t>(drawn.seed);
  state[stride] = static_cast<int64_t>(drawn.offset);
}

template <int N>
Plan<N> rowMajorPlan(const View* const (&views)[N]) {
  const Plan<N> plan = makePlan<N>(views, AxisOrder::rowMajor);
  if (plan.numel > kMaxIndex) {
    fail(ErrorKind::shape, "random: expected fewer than 2^31 elements, got %lld",
         static_cast<long long>(plan.numel));
  }
  return plan;
}

// float64 numbers take two lanes, all others one.
template <class F>
void visitDraw(DType dtype, const F& f) {
  if (dtype == DType::float64) {
    f(double());
  } else {
    f(float());
  }
}

}  // namespace
}  // namespace cuda

namespace backend {

void random(RandomOp op, const View& y, double a, double b, RandomState state) {
  using namespace cuda;
  const Changing<RandomState> drawn = changing(state);
  if (isRenewing()) return;
  const View* const views[] = {&y};
  const Plan<1> plan = rowMajorPlan(views);
  if (plan.numel == 0) return;
  const RandomTarget target{makeWalk(plan), y.data, y.dtype, static_cast<uint32_t>(plan.numel)};
  const unsigned grid = gridFor(ceilDiv(plan.numel, 4), kRandomThreads);
  const auto run = [&](auto kernel, auto... arguments) {
    launch(grid, kRandomThreads, 0, stream(), kernel, target, drawn, arguments...);
  };
  if (op == RandomOp::randint) {
    const auto low = static_cast<int64_t>(a);
    const uint64_t range =
        static_cast<uint64_t>(static_cast<int64_t>(b)) - static_cast<uint64_t>(low);
    return run(range <= kNarrowRange ? randintKernel<Draw<float>> : randintKernel<WideDraw>, low,
               range);
  }
  visitDraw(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (op == RandomOp::uniform) run(uniformKernel<T>, static_cast<T>(a), static_cast<T>(b));
    if (op == RandomOp::normal) run(normalKernel<T>, static_cast<T>(a), static_cast<T>(b));
    if (op == RandomOp::bernoulli) run(bernoulliKernel<T>, static_cast<T>(a));
  });
}

// A shuffle is a chain of dependent swaps, so the host makes it.
void randperm(const View& y, RandomState state) {
  const int64_t n = y.numel();
  const size_t bytes = static_cast<size_t>(n) * sizeof(int64_t);
  std::vector<int64_t> order(static_cast<size_t>(n));
  shuffledRange(order.data(), n, state.seed, state.offset);
  const void* place = cuda::changingBytes(order.data(), bytes);
  if (cuda::isRenewing() || n == 0) return;
  std::optional<cuda::Workspace> uploaded;
  if (!place) {
    place = uploaded.emplace(bytes).data();
    copyFromHost(uploaded->data(), order.data(), bytes);
  }
  View source = y;
  source.data = const_cast<void*>(place);
  source.dtype = DType::int64;
  source.stride[0] = 1;
  copy(y, source);
}

void writeRandomState(const View& state, RandomState value) {
  const cuda::Changing<RandomState> drawn = cuda::changing(value);
  if (cuda::isRenewing()) return;
  cuda::launch(1, 1, 0, cuda::stream(), cuda::writeStateKernel, state.as<int64_t>(),
               state.stride[0], drawn);
}

void dropout(const View& y, const View& x, double p, const View& state) {
  using namespace cuda;
  if (isRenewing()) return;
  const Plan<2> plan = rowMajorPlan({&y, &x});
  if (plan.numel == 0) return;
  visitDraw(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(gridFor(ceilDiv(plan.numel, Draw<T>::count), kRandomThreads), kRandomThreads, 0,
           stream(), dropoutKernel<T>, makeWalk(plan), y.data, y.dtype, x.data, x.dtype,
           static_cast<uint32_t>(plan.numel), static_cast<T>(p), state.as<int64_t>(),
           state.stride[0]);
  });
}

}  // namespace backend
}  // namespace adjoint
