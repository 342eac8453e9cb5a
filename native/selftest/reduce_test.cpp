// Reductions over any axes and layouts against naive sums in double precision, at every SIMD level.
#include "kernel_test.h"

namespace adjoint::test {
namespace {

class Reduce : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Reduce);

constexpr ReduceOp kOps[] = {ReduceOp::sum,  ReduceOp::mean, ReduceOp::prod, ReduceOp::amax,
                             ReduceOp::amin, ReduceOp::any,  ReduceOp::all};

double start(ReduceOp op) {
  switch (op) {
    case ReduceOp::prod:
    case ReduceOp::all:
      return 1;
    case ReduceOp::amax:
      return -INFINITY;
    case ReduceOp::amin:
      return INFINITY;
    default:
      return 0;
  }
}
// Wider than what is tested, so that the reference has no error of its own.
long double step(ReduceOp op, long double a, double x) {
  switch (op) {
    case ReduceOp::prod:
      return a * x;
    case ReduceOp::amax:
      return std::isnan(x) || x > a ? x : a;
    case ReduceOp::amin:
      return std::isnan(x) || x < a ? x : a;
    case ReduceOp::any:
      return a != 0 || x != 0;
    case ReduceOp::all:
      return a != 0 && x != 0;
    default:
      return a + x;
  }
}

// The number of the output that element i of x goes to.
int64_t outputOf(const View& x, const View& y, int64_t i) {
  int64_t index = 0, factor = 1;
  for (int axis = x.ndim - 1; axis >= 0; axis--) {
    const int64_t coordinate = i % x.size[axis];
    i /= x.size[axis];
    if (y.size[axis] != 1) index += coordinate * factor;
    factor *= y.size[axis];
  }
  return index;
}

// Compares one reduction with the naive one. The tolerance is relative to the sum of |x|.
void check(ReduceOp op, Tensor& y, const Tensor& x, double tolerance) {
  const auto outputs = static_cast<size_t>(y.numel());
  std::vector<long double> expected(outputs, start(op));
  std::vector<double> size(outputs, 0);
  for (int64_t i = 0; i < x.numel(); i++) {
    const auto o = static_cast<size_t>(outputOf(x.view, y.view, i));
    expected[o] = step(op, expected[o], x.get(i));
    size[o] += std::fabs(x.get(i));
  }
  backend::reduce(op, y.view, x.view);
  const double count = static_cast<double>(x.numel()) / static_cast<double>(outputs);
  for (size_t o = 0; o < outputs; o++) {
    if (op == ReduceOp::mean) {
      expected[o] /= static_cast<long double>(count);
      size[o] /= count;
    }
    const bool sums = op == ReduceOp::sum || op == ReduceOp::mean;
    // A product rounds at every factor.
    const double scale = sums ? size[o]
                         : op == ReduceOp::prod
                             ? static_cast<double>(std::fabs(expected[o])) * std::sqrt(count)
                             : 0;
    const double rounded = op == ReduceOp::mean && !isFloating(x.view.dtype)
                               ? static_cast<double>(static_cast<float>(expected[o]))
                               : static_cast<double>(expected[o]);
    ASSERT_NEAR(y.get(static_cast<int64_t>(o)), rounded, tolerance * scale)
        << "op " << static_cast<int>(op) << " output " << o << " " << dtypeName(x.view.dtype);
  }
  ASSERT_TRUE(y.isIntact());
}

double toleranceOf(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return 2e-7;
    case DType::float64:
      return 1e-15;
    case DType::bfloat16:
      return 1.0 / 200;
    case DType::float16:
      return 1.0 / 1500;
    default:
      return 0;
  }
}

DType resultType(ReduceOp op, DType dtype) {
  if (op == ReduceOp::any || op == ReduceOp::all) return DType::boolean;
  if (op == ReduceOp::amax || op == ReduceOp::amin || isFloating(dtype)) return dtype;
  return op == ReduceOp::mean ? DType::float32 : DType::int64;
}

// Values near 1 keep products finite; a few zeros tell any and all apart.
void fillFor(ReduceOp op, Tensor& x) {
  x.fill([&](int64_t i) {
    const auto h = static_cast<double>((i * 2654435761u) % 1000) / 1000;
    if (op == ReduceOp::any) return i % 97 == 96 ? 1.0 : 0.0;
    if (op == ReduceOp::all) return i % 101 == 100 ? 0.0 : 1.0;
    if (!isFloating(x.view.dtype)) return op == ReduceOp::prod ? (i % 50 ? 1.0 : 2.0) : h * 5;
    return op == ReduceOp::prod ? 0.95 + 0.1 * h : h * 4 - 1;
  });
}

// Every subset of axes of several layouts.
TEST_P(Reduce, EverySubsetOfAxes) {
  const std::vector<std::vector<int64_t>> shapes = {{5},     {1},        {7, 37},     {3, 5, 4},
                                                    {40, 3}, {2, 1, 70}, {4, 3, 5, 6}};
  for (DType dtype : {DType::float32, DType::float64, DType::int64, DType::bfloat16}) {
    for (ReduceOp op : kOps) {
      for (const auto& shape : shapes) {
        const int ndim = static_cast<int>(shape.size());
        for (int axes = 0; axes < 1 << ndim; axes++) {
          for (int layout = 0; layout < 3; layout++) {
            std::vector<int64_t> memory = shape;
            if (layout == 2) memory.back() *= 2;
            if (layout == 1) std::swap(memory.front(), memory.back());
            Tensor x(dtype, memory);
            if (layout == 1) x.transpose(0, ndim - 1);
            if (layout == 2) x.slice(ndim - 1, 1, 2);
            fillFor(op, x);
            std::vector<int64_t> result = shape;
            for (int axis = 0; axis < ndim; axis++) {
              if (axes >> axis & 1) result[static_cast<size_t>(axis)] = 1;
            }
            Tensor y(resultType(op, dtype), result);
            check(op, y, x, toleranceOf(dtype));
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST_P(Reduce, EveryLengthAndMisalignment) {
  for (ReduceOp op : kOps) {
    for (int64_t n = 1; n <= 2 * 64 + 3; n++) {
      Tensor x(DType::float32, {3, n}, n % 16), rows(resultType(op, DType::float32), {3, 1}),
          columns(resultType(op, DType::float32), {1, n}, n % 3);
      fillFor(op, x);
      check(op, rows, x, 2e-7);
      check(op, columns, x, 2e-7);
    }
  }
}

TEST_P(Reduce, EveryDType) {
  for (DType dtype : kAllDTypes) {
    for (ReduceOp op : kOps) {
      if (dtype == DType::boolean && (op == ReduceOp::amax || op == ReduceOp::amin)) continue;
      Tensor x(dtype, {6, 530}), rows(resultType(op, dtype), {6, 1}),
          columns(resultType(op, dtype), {1, 530});
      fillFor(op, x);
      check(op, rows, x, toleranceOf(dtype));
      check(op, columns, x, toleranceOf(dtype));
    }
  }
}

TEST_P(Reduce, LargeSumsStayAccurate) {
  constexpr int64_t n = 400000;
  for (DType dtype : {DType::float32, DType::float64}) {
    Tensor x(dtype, {n}), y(dtype, {1}), tall(dtype, {n / 4, 4}), sums(dtype, {1, 4});
    x.fillRandom(7, 0, 1);
    tall.fillRandom(8, -1, 1);
    check(ReduceOp::sum, y, x, toleranceOf(dtype) * 2);
    check(ReduceOp::mean, y, x, toleranceOf(dtype) * 2);
    check(ReduceOp::sum, sums, tall, toleranceOf(dtype) * 2);
  }
  Tensor ones(DType::float32, {1 << 25}), sum(DType::float32, {1});
  backend::fill(ones.view, Scalar::of(1.0));
  backend::reduce(ReduceOp::sum, sum.view, ones.view);
  EXPECT_EQ(sum.get(0), 1 << 25);
}

TEST_P(Reduce, SpecialValues) {
  for (DType dtype : {DType::float32, DType::float64, DType::float16}) {
    for (int64_t n : {1, 5, 40, 600}) {
      Tensor x(dtype, {n, 2}), y(dtype, {1, 2}), all(dtype, {1, 1});
      for (int64_t at = 0; at < n; at += 1 + n / 7) {
        x.fillRandom(1);
        x.set(2 * at, NAN);
        for (ReduceOp op : {ReduceOp::amax, ReduceOp::amin, ReduceOp::sum, ReduceOp::prod}) {
          backend::reduce(op, y.view, x.view);
          EXPECT_TRUE(std::isnan(y.get(0)));
          EXPECT_FALSE(std::isnan(y.get(1)));
          backend::reduce(op, all.view, x.view);
          EXPECT_TRUE(std::isnan(all.get(0)));
        }
        x.fillRandom(2);
        x.set(2 * at, INFINITY);
        backend::reduce(ReduceOp::sum, all.view, x.view);
        EXPECT_EQ(all.get(0), INFINITY);
      }
    }
  }
}

TEST_P(Reduce, Empty) {
  Tensor x(DType::float32, {3, 0}), y(DType::float32, {3, 1}), truth(DType::boolean, {3, 1});
  backend::reduce(ReduceOp::sum, y.view, x.view);
  EXPECT_EQ(y.get(2), 0);
  backend::reduce(ReduceOp::prod, y.view, x.view);
  EXPECT_EQ(y.get(2), 1);
  backend::reduce(ReduceOp::mean, y.view, x.view);
  EXPECT_TRUE(std::isnan(y.get(2)));
  backend::reduce(ReduceOp::any, truth.view, x.view);
  EXPECT_EQ(truth.get(2), 0);
  backend::reduce(ReduceOp::all, truth.view, x.view);
  EXPECT_EQ(truth.get(2), 1);
  EXPECT_THROW(backend::reduce(ReduceOp::amax, y.view, x.view), Error);
  EXPECT_THROW(backend::reduce(ReduceOp::amin, y.view, x.view), Error);
  Tensor none(DType::float32, {0, 3}), left(DType::float32, {0, 1});
  backend::reduce(ReduceOp::sum, left.view, none.view);
  Tensor index(DType::int64, {3, 1});
  EXPECT_THROW(backend::argReduce(ArgOp::argmax, index.view, x.view, 1), Error);
}

void checkArg(ArgOp op, const Tensor& x, int axis) {
  std::vector<int64_t> sizes(x.view.size, x.view.size + x.view.ndim);
  sizes[static_cast<size_t>(axis)] = 1;
  Tensor y(DType::int64, sizes);
  std::vector<double> best(static_cast<size_t>(y.numel()));
  std::vector<int64_t> expected(best.size(), -1);
  int64_t inner = 1;
  for (int a = axis + 1; a < x.view.ndim; a++) inner *= x.view.size[a];
  for (int64_t i = 0; i < x.numel(); i++) {
    const int64_t k = i / inner % x.view.size[axis];
    const auto o = static_cast<size_t>(outputOf(x.view, y.view, i));
    const double v = x.get(i);
    const bool better = op == ArgOp::argmax ? v > best[o] : v < best[o];
    if (expected[o] < 0 || better || (std::isnan(v) && !std::isnan(best[o]))) {
      best[o] = v;
      expected[o] = k;
    }
  }
  backend::argReduce(op, y.view, x.view, axis);
  for (size_t o = 0; o < best.size(); o++) {
    ASSERT_EQ(y.integer(static_cast<int64_t>(o)), expected[o]) << "output " << o;
  }
  ASSERT_TRUE(y.isIntact());
}

TEST_P(Reduce, ArgTakesTheFirstOfEqualsAndNaN) {
  for (ArgOp op : {ArgOp::argmax, ArgOp::argmin}) {
    for (DType dtype : kAllDTypes) {
      for (const auto& shape : std::vector<std::vector<int64_t>>{
               {1}, {33}, {7, 5}, {3, 600}, {600, 3}, {4, 70, 5}, {2, 40000}, {40000, 2}}) {
        for (int axis = 0; axis < static_cast<int>(shape.size()); axis++) {
          Tensor x(dtype, shape);
          x.fill([](int64_t i) { return static_cast<double>((i * 7919) % 23); });
          checkArg(op, x, axis);
          if (isFloating(dtype) && x.numel() > 40) {
            x.set(x.numel() / 2, NAN);
            x.set(x.numel() - 1, NAN);
            checkArg(op, x, axis);
          }
        }
      }
    }
    Tensor x(DType::float32, {30, 20});
    x.fillRandom(5).transpose(0, 1).slice(0, 0, 2);
    checkArg(op, x, 0);
    checkArg(op, x, 1);
  }
  Tensor scalar(DType::float32, {}), y(DType::int64, {});
  backend::argReduce(ArgOp::argmax, y.view, scalar.view, 0);
  EXPECT_EQ(y.integer(0), 0);
}

TEST_P(Reduce, SameBitsForAnyNumberOfThreads) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {1000000}, {70000, 9}, {9, 70000}, {300, 1000}, {1000, 300}, {5, 400, 300}}) {
    for (int axis = 0; axis < static_cast<int>(shape.size()); axis++) {
      for (ReduceOp op : {ReduceOp::sum, ReduceOp::prod}) {
        expectSameForAnyThreads([&] {
          std::vector<int64_t> result = shape;
          result[static_cast<size_t>(axis)] = 1;
          Tensor x(DType::float32, shape), y(DType::float32, result);
          fillFor(op, x);
          backend::reduce(op, y.view, x.view);
          return y;
        });
      }
    }
  }
}

}  // namespace
}  // namespace adjoint::test
