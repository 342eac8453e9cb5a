// Random numbers, permutations and dropout. Element i depends on the seed and i alone, so chunks
// may be made in any order.
#include "cpu/kernels/random.h"

#include <vector>

#include "contract.h"
#include "cpu/blocks.h"
#include "shared/convert.h"
#include "shared/philox.h"

namespace adjoint::cpu {
namespace {

using backend::RandomState;

static_assert(kBlock <= kRandomBlock, "a block of elements must fit one of random numbers");

// Writes numbers of type T to all of y; draw(values, first, n) makes those of some elements.
template <class T, class F>
void writeNumbers(const View& y, Compute compute, F draw) {
  const Plan<1> plan = makePlan<1>({&y}, AxisOrder::rowMajor);
  parallelFor(plan.numel, kGrainExpensive, [&](int64_t begin, int64_t end) {
    Writer writer(plan, 0, y.dtype, compute);
    forEachBlock(plan, begin, end, false, [&](const Cursor& at, int64_t n) {
      void* target = writer.target(at, n);
      draw(static_cast<T*>(target), at.linear(), n);
      writer.commit(at, n, target);
    });
  });
}

double highestBelow(DType dtype, double x) {
  double highest = x;
  visitDType(dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if constexpr (!std::is_same<S, Boolean>::value) highest = largestBelow<S>(x);
  });
  return highest;
}

void randint(const View& y, double a, double b, RandomState state) {
  const auto low = convert<int64_t>(a), high = convert<int64_t>(b);
  if (low >= high) fail(ErrorKind::argument, "randint: expected low < high, got %g and %g", a, b);
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  const auto integers = range <= kNarrowRange ? randomTable().integers32 : randomTable().integers64;
  writeNumbers<int64_t>(y, Compute::i64, [=](int64_t* values, int64_t first, int64_t n) {
    integers(values, {state.seed, state.offset, first, n}, low, range);
  });
}

// The kernels of float64, and of float32 for all other dtypes.
template <class T>
struct Kernels {
  static constexpr bool wide = std::is_same<T, double>::value;
  static constexpr Compute compute = wide ? Compute::f64 : Compute::f32;
  template <class A, class B>
  static auto choose(A narrow, B forDouble) {
    if constexpr (wide) {
      return forDouble;
    } else {
      return narrow;
    }
  }
};

template <class T>
void realNumbers(RandomOp op, const View& y, double a, double b, RandomState state) {
  using K = Kernels<T>;
  const RandomTable& table = randomTable();
  const auto uniform = K::choose(table.uniform32, table.uniform64);
  const auto normal = K::choose(table.normal32, table.normal64);
  const auto bernoulli = K::choose(table.bernoulli32, table.bernoulli64);
  const T ta = static_cast<T>(a), tb = static_cast<T>(b);
  const T highest = b > a ? static_cast<T>(highestBelow(y.dtype, b)) : ta;
  writeNumbers<T>(y, K::compute, [=](T* values, int64_t first, int64_t n) {
    const Draw draw{state.seed, state.offset, first, n};
    if (op == RandomOp::normal) return normal(values, draw, ta, tb);
    if (op == RandomOp::uniform) return uniform(values, draw, ta, tb, highest);
    bernoulli(values, draw, ta);
  });
}

// y[i] = u[i] < p ? 0 : x[i] / (1 - p)
template <class T>
void dropoutOf(const View& y, const View& x, double p, RandomState state) {
  using K = Kernels<T>;
  const auto loop = K::choose(randomTable().dropout32, randomTable().dropout64);
  const T bound = static_cast<T>(p), scale = T(1) / (T(1) - bound);
  const Plan<2> plan = makePlan<2>({&y, &x}, AxisOrder::rowMajor);
  parallelFor(plan.numel, kGrainExpensive, [&](int64_t begin, int64_t end) {
    Writer writer(plan, 0, y.dtype, K::compute);
    Reader reader(plan, 1, x.dtype, K::compute);
    forEachBlock(plan, begin, end, false, [&](const Cursor& at, int64_t n) {
      void* target = writer.target(at, n);
      loop(static_cast<T*>(target), static_cast<const T*>(reader.read(at, n)),
           {state.seed, state.offset, at.linear(), n}, bound, scale);
      writer.commit(at, n, target);
    });
  });
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void random(RandomOp op, const View& y, double a, double b, RandomState state) {
  if (op == RandomOp::randint) return randint(y, a, b, state);
  if (y.dtype == DType::float64) return realNumbers<double>(op, y, a, b, state);
  realNumbers<float>(op, y, a, b, state);
}

void randperm(const View& y, RandomState state) {
  if (y.dtype != DType::int64 || y.ndim != 1) {
    fail(ErrorKind::dtype, "randperm: expected an int64 vector, got %d axes of %s", y.ndim,
         dtypeName(y.dtype));
  }
  if (y.isContiguous()) return shuffledRange(y.as<int64_t>(), y.numel(), state.seed, state.offset);
  std::vector<int64_t> order(static_cast<size_t>(y.numel()));
  shuffledRange(order.data(), y.numel(), state.seed, state.offset);
  for (int64_t i = 0; i < y.numel(); i++) {
    y.as<int64_t>()[i * y.stride[0]] = order[static_cast<size_t>(i)];
  }
}

void writeRandomState(const View& state, RandomState value) {
  if (state.dtype != DType::int64 || state.numel() != 2) {
    fail(ErrorKind::internal, "writeRandomState: expected int64 [2]");
  }
  state.as<int64_t>()[0] = static_cast<int64_t>(value.seed);
  state.as<int64_t>()[state.stride[0]] = static_cast<int64_t>(value.offset);
}

void dropout(const View& y, const View& x, double p, const View& state) {
  if (!isFloating(y.dtype)) {
    fail(ErrorKind::dtype, "dropout: expected a floating-point dtype, got %s", dtypeName(y.dtype));
  }
  if (state.dtype != DType::int64 || state.numel() != 2) {
    fail(ErrorKind::internal, "dropout: expected a random state int64 [2]");
  }
  const RandomState at{static_cast<uint64_t>(state.as<int64_t>()[0]),
                       static_cast<uint64_t>(state.as<int64_t>()[state.stride[0]])};
  if (y.dtype == DType::float64) return dropoutOf<double>(y, x, p, at);
  dropoutOf<float>(y, x, p, at);
}

}  // namespace adjoint::backend
