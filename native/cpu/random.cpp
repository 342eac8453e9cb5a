// Random numbers, permutations and dropout. Element i depends on the seed and i alone, so chunks
// may be made in any order.
#include "cpu/kernels/random.h"

#include <vector>

#include "contract.h"
#include "cpu/blocks.h"
#include "cpu/kernels/elementwise.h"
#include "shared/convert.h"
#include "shared/philox.h"

namespace adjoint::cpu {
namespace {

using backend::RandomState;

static_assert(kBlock + 3 <= kRandomBlock, "a block and the lanes before it must fit");

// Numbers of type T for elements [first, first + n), which need not start at a counter of their
// own. draw(y, counter, n) makes the numbers from a counter on.
template <class T>
class Numbers {
 public:
  // perCounter: elements of a counter, 4 or 2
  Numbers(uint64_t offset, int64_t perCounter) : offset_(offset), perCounter_(perCounter) {}

  template <class F>
  const T* draw(int64_t first, int64_t n, F draw) {
    const int64_t skipped = first % perCounter_;
    draw(values_, offset_ + static_cast<uint64_t>(first / perCounter_), skipped + n);
    return values_ + skipped;
  }

 private:
  uint64_t offset_;
  int64_t perCounter_;
  alignas(64) T values_[kRandomBlock];
};

// Writes numbers of type T to all of y; draw(values, counter, n).
template <class T, class F>
void writeNumbers(const View& y, Compute compute, uint64_t offset, int64_t perCounter, F draw) {
  const Plan<1> plan = makePlan<1>({&y}, AxisOrder::rowMajor);
  parallelFor(plan.numel, kGrainExpensive, [&](int64_t begin, int64_t end) {
    Writer writer(plan, 0, y.dtype, compute);
    Numbers<T> numbers(offset, perCounter);
    forEachBlock(plan, begin, end, false, [&](const Cursor& at, int64_t n) {
      const T* values = numbers.draw(at.linear(), n, draw);
      void* target = writer.target(at, n);
      const bool sameType = y.dtype == storedAs(compute);
      if (sameType) std::memcpy(target, values, static_cast<size_t>(n) * sizeof(T));
      writer.commit(at, n, sameType ? target : values);
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
  const bool narrow = range <= kNarrowRange;
  const auto integers = narrow ? randomTable().integers32 : randomTable().integers64;
  writeNumbers<int64_t>(y, Compute::i64, state.offset, narrow ? 4 : 2,
                        [=](int64_t* values, uint64_t counter, int64_t n) {
                          integers(values, state.seed, counter, n, low, range);
                        });
}

// T is double for float64 and float for all others.
template <class T>
void realNumbers(RandomOp op, const View& y, double a, double b, RandomState state) {
  constexpr bool wide = std::is_same<T, double>::value;
  const RandomTable& table = randomTable();
  const auto uniform = [&] {
    if constexpr (wide)
      return table.uniform64;
    else
      return table.uniform32;
  }();
  const auto normal = [&] {
    if constexpr (wide)
      return table.normal64;
    else
      return table.normal32;
  }();
  const T ta = static_cast<T>(a), tb = static_cast<T>(b);
  const T highest = b > a ? static_cast<T>(highestBelow(y.dtype, b)) : ta;
  const auto draw = [=](T* values, uint64_t counter, int64_t n) {
    if (op == RandomOp::normal) return normal(values, state.seed, counter, n, ta, tb);
    if (op == RandomOp::uniform) {
      return uniform(values, state.seed, counter, n, ta, tb, highest);
    }
    uniform(values, state.seed, counter, n, 0, 1, 1);
    for (int64_t i = 0; i < n; i++) values[i] = values[i] < ta ? T(1) : T(0);
  };
  writeNumbers<T>(y, wide ? Compute::f64 : Compute::f32, state.offset, wide ? 2 : 4, draw);
}

// y[i] = u[i] < p ? 0 : x[i] / (1 - p)
template <class T>
void dropoutOf(const View& y, const View& x, double p, uint64_t seed, uint64_t offset) {
  constexpr bool wide = std::is_same<T, double>::value;
  constexpr Compute compute = wide ? Compute::f64 : Compute::f32;
  const T bound = static_cast<T>(p), scale = T(1) / (T(1) - bound);
  const auto draw = [&](T* values, uint64_t counter, int64_t n) {
    if constexpr (wide) {
      randomTable().uniform64(values, seed, counter, n, 0, 1, 1);
    } else {
      randomTable().uniform32(values, seed, counter, n, 0, 1, 1);
    }
  };
  const Plan<2> plan = makePlan<2>({&y, &x}, AxisOrder::rowMajor);
  parallelFor(plan.numel, kGrainExpensive, [&](int64_t begin, int64_t end) {
    Writer writer(plan, 0, y.dtype, compute);
    Reader reader(plan, 1, x.dtype, compute);
    Numbers<T> numbers(offset, wide ? 2 : 4);
    forEachBlock(plan, begin, end, false, [&](const Cursor& at, int64_t n) {
      const T* u = numbers.draw(at.linear(), n, draw);
      const T* values = static_cast<const T*>(reader.read(at, n));
      T* target = static_cast<T*>(writer.target(at, n));
      for (int64_t i = 0; i < n; i++) target[i] = u[i] < bound ? T(0) : values[i] * scale;
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
  const auto seed = static_cast<uint64_t>(state.as<int64_t>()[0]);
  const auto offset = static_cast<uint64_t>(state.as<int64_t>()[state.stride[0]]);
  if (y.dtype == DType::float64) return dropoutOf<double>(y, x, p, seed, offset);
  dropoutOf<float>(y, x, p, seed, offset);
}

}  // namespace adjoint::backend
