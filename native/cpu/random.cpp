// Random numbers by Philox: element i depends on the seed and i alone, so any thread may make it.
#include "contract.h"
#include "cpu/pool.h"
#include "shared/convert.h"
#include "shared/iterate.h"
#include "shared/philox.h"

namespace adjoint::backend {
namespace {

constexpr int64_t kBlock = 256;          // a multiple of what one counter gives
constexpr int64_t kGrain = 64 * kBlock;  // about 50 µs

// What one counter gives: four numbers from a lane each, or two from two lanes.
struct NarrowDraw {
  static constexpr int count = 4;
  using Bits = uint32_t;
  static Bits bits(const Philox4& r, int j) { return r.lane[j]; }
};
struct WideDraw {
  static constexpr int count = 2;
  using Bits = uint64_t;
  static Bits bits(const Philox4& r, int j) { return joinLanes(r.lane[2 * j], r.lane[2 * j + 1]); }
};
template <class T>
using DrawOf = std::conditional_t<std::is_same_v<T, double>, WideDraw, NarrowDraw>;

// The bits of elements first .. first + n - 1; first is a multiple of Draw::count.
template <class Draw>
void drawBits(typename Draw::Bits* bits, int64_t first, int64_t n, RandomState state) {
  for (int64_t i = 0; i < n; i += Draw::count) {
    const Philox4 r =
        philox(state.seed, state.offset + static_cast<uint64_t>(first + i) / Draw::count);
    for (int j = 0; j < Draw::count; j++) bits[i + j] = Draw::bits(r, j);
  }
}

// Calls make(block, first, count) for blocks of numbers of type T and stores them to y, row-major.
template <class T, class Make>
void generate(const View& y, const Make& make) {
  const View* views[] = {&y};
  const Plan<1> plan = makePlan<1>(views, AxisOrder::rowMajor);
  const bool dense = plan.isDense(0);
  visitDType(y.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    auto* data = static_cast<Stored*>(plan.data[0]);
    cpu::parallelFor(plan.numel, kGrain, [&](int64_t begin, int64_t end) {
      T block[kBlock];
      for (int64_t first = begin; first < end; first += kBlock) {
        const int64_t count = end - first < kBlock ? end - first : kBlock;
        make(block, first, count);
        for (int64_t i = 0; i < count; i++) {
          data[dense ? first + i : plan.offset(0, first + i)] = convert<Stored>(block[i]);
        }
      }
    });
  });
}

template <class T>
void uniform(const View& y, T a, T b, RandomState state) {
  using Draw = DrawOf<T>;
  generate<T>(y, [&](T* block, int64_t first, int64_t count) {
    typename Draw::Bits bits[kBlock];
    drawBits<Draw>(bits, first, count, state);
    for (int64_t i = 0; i < count; i++) block[i] = uniformOf(bits[i]) * (b - a) + a;
  });
}

template <class T>
void normal(const View& y, T mean, T deviation, RandomState state) {
  using Draw = DrawOf<T>;
  generate<T>(y, [&](T* block, int64_t first, int64_t count) {
    typename Draw::Bits bits[kBlock];
    drawBits<Draw>(bits, first, count, state);
    for (int64_t i = 0; i < count; i += 2) {
      T z0, z1;
      normalPair(static_cast<T>(uniformOf(bits[i])), static_cast<T>(uniformOf(bits[i + 1])), z0,
                 z1);
      block[i] = mean + deviation * z0;
      block[i + 1] = mean + deviation * z1;
    }
  });
}

template <class T>
void bernoulli(const View& y, T p, RandomState state) {
  using Draw = DrawOf<T>;
  generate<T>(y, [&](T* block, int64_t first, int64_t count) {
    typename Draw::Bits bits[kBlock];
    drawBits<Draw>(bits, first, count, state);
    for (int64_t i = 0; i < count; i++) block[i] = uniformOf(bits[i]) < p ? T(1) : T(0);
  });
}

template <class Draw>
void randint(const View& y, int64_t low, uint64_t range, RandomState state) {
  generate<int64_t>(y, [&](int64_t* block, int64_t first, int64_t count) {
    typename Draw::Bits bits[kBlock];
    drawBits<Draw>(bits, first, count, state);
    for (int64_t i = 0; i < count; i++) {
      block[i] = static_cast<int64_t>(static_cast<uint64_t>(low) + integerBelow(bits[i], range));
    }
  });
}

template <class T>
void drop(const View& y, const View& x, double p, RandomState state) {
  using Draw = DrawOf<T>;
  const T keepBelow = static_cast<T>(p);
  const T scale = T(1) / (T(1) - keepBelow);
  const View* views[] = {&y, &x};
  const Plan<2> plan = makePlan<2>(views, AxisOrder::rowMajor);
  const bool dense = plan.isDense(0) && plan.isDense(1);
  visitDType(y.dtype, [&](auto tag) {
    using Stored = typename decltype(tag)::type;
    auto* to = static_cast<Stored*>(plan.data[0]);
    const auto* from = static_cast<const Stored*>(plan.data[1]);
    cpu::parallelFor(plan.numel, kGrain, [&](int64_t begin, int64_t end) {
      typename Draw::Bits bits[kBlock];
      for (int64_t first = begin; first < end; first += kBlock) {
        const int64_t count = end - first < kBlock ? end - first : kBlock;
        drawBits<Draw>(bits, first, count, state);
        for (int64_t i = 0; i < count; i++) {
          const int64_t at = first + i;
          const T kept = convert<T>(from[dense ? at : plan.offset(1, at)]) * scale;
          to[dense ? at : plan.offset(0, at)] =
              convert<Stored>(uniformOf(bits[i]) < keepBelow ? T(0) : kept);
        }
      }
    });
  });
}

}  // namespace

void random(RandomOp op, const View& y, double a, double b, RandomState state) {
  if (y.numel() == 0) return;
  if (op == RandomOp::randint) {
    const auto low = static_cast<int64_t>(a);
    const uint64_t range =
        static_cast<uint64_t>(static_cast<int64_t>(b)) - static_cast<uint64_t>(low);
    return range <= kNarrowRange ? randint<NarrowDraw>(y, low, range, state)
                                 : randint<WideDraw>(y, low, range, state);
  }
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    if (op == RandomOp::uniform) uniform<T>(y, static_cast<T>(a), static_cast<T>(b), state);
    if (op == RandomOp::normal) normal<T>(y, static_cast<T>(a), static_cast<T>(b), state);
    if (op == RandomOp::bernoulli) bernoulli<T>(y, static_cast<T>(a), state);
  };
  y.dtype == DType::float64 ? run(double()) : run(float());
}

void randperm(const View& y, RandomState state) {
  const int64_t n = y.numel();
  if (n == 0) return;
  if (y.isContiguous()) return shuffledRange(y.as<int64_t>(), n, state.seed, state.offset);
  std::vector<int64_t> order(static_cast<size_t>(n));
  shuffledRange(order.data(), n, state.seed, state.offset);
  for (int64_t i = 0; i < n; i++) y.as<int64_t>()[i * y.stride[0]] = order[static_cast<size_t>(i)];
}

void writeRandomState(const View& state, RandomState value) {
  state.as<int64_t>()[0] = static_cast<int64_t>(value.seed);
  state.as<int64_t>()[state.stride[0]] = static_cast<int64_t>(value.offset);
}

void dropout(const View& y, const View& x, double p, const View& state) {
  if (y.numel() == 0) return;
  const RandomState at = {static_cast<uint64_t>(state.as<int64_t>()[0]),
                          static_cast<uint64_t>(state.as<int64_t>()[state.stride[0]])};
  y.dtype == DType::float64 ? drop<double>(y, x, p, at) : drop<float>(y, x, p, at);
}

}  // namespace adjoint::backend
