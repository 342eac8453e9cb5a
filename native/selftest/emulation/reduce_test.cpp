// Reductions and softmax against float64, over rows along and across memory, short and long.
#include "device_tensor.h"
#include "shared/functors.h"

namespace adjoint::test {
namespace {

class ReduceOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(ReduceOnDevice);

struct Shape {
  Sizes sizes;
  std::vector<int> order;  // of the axes in memory
  unsigned reduced;        // bit i: axis i goes
};

// Calls visit(row, value) over x [sizes] in row-major order; rows are numbered as y's elements.
void forEachElement(const Shape& s, const Values& x,
                    const std::function<void(size_t, double)>& visit) {
  std::vector<int64_t> index(s.sizes.size(), 0);
  for (double value : x) {
    size_t row = 0;
    for (size_t axis = 0; axis < s.sizes.size(); axis++) {
      if (s.reduced >> axis & 1) continue;
      row = row * static_cast<size_t>(s.sizes[axis]) + static_cast<size_t>(index[axis]);
    }
    visit(row, value);
    for (size_t axis = s.sizes.size(); axis-- > 0 && ++index[axis] == s.sizes[axis];) {
      index[axis] = 0;
    }
  }
}

// x with its axes laid out in memory as `order` says.
DeviceTensor laidOut(DType dtype, const Shape& s, const Values& values) {
  Sizes strides(s.sizes.size());
  int64_t stride = 1;
  for (size_t i = s.order.size(); i-- > 0;) {
    strides[static_cast<size_t>(s.order[i])] = stride;
    stride *= s.sizes[static_cast<size_t>(s.order[i])];
  }
  DeviceTensor source(dtype, s.sizes, values);
  DeviceTensor x(dtype, s.sizes, strides, 0, values.size());
  backend::copy(x, source);
  return x;
}

double reduceReference(ReduceOp op, const Values& row) {
  double sum = 0, product = 1, high = -INFINITY, low = INFINITY, any = 0, all = 1;
  for (double x : row) {
    sum += x;
    product *= x;
    high = maximumOf(high, x);
    low = minimumOf(low, x);
    any = any != 0 || x != 0;
    all = all != 0 && x != 0;
  }
  switch (op) {
    case ReduceOp::sum:
      return sum;
    case ReduceOp::mean:
      return sum / static_cast<double>(row.size());
    case ReduceOp::prod:
      return product;
    case ReduceOp::amax:
      return high;
    case ReduceOp::amin:
      return low;
    case ReduceOp::any:
      return any;
    default:
      return all;
  }
}

std::vector<Values> rowsOf(const Shape& s, const Values& x, size_t count) {
  std::vector<Values> rows(count);
  forEachElement(s, x, [&](size_t row, double value) { rows[row].push_back(value); });
  return rows;
}

const Shape kShapes[] = {
    {{}, {}, 0},                 // one element
    {{5}, {0}, 1},               //
    {{3, 33}, {0, 1}, 2},        // rows along memory
    {{33, 3}, {0, 1}, 1},        // rows across memory
    {{7, 5, 9}, {2, 0, 1}, 5},   // two axes of a permuted view
    {{2, 1, 70}, {0, 1, 2}, 3},  // an axis of one element
    {{5000}, {0}, 1},            // two passes
    {{2, 70001}, {0, 1}, 2},     // three passes
    {{3000, 2}, {0, 1}, 1},      // long rows across memory
    {{20, 1100}, {0, 1}, 1},     // several rounds a block across memory
    {{300, 11}, {0, 1}, 2},      // many rows
    {{4, 6}, {0, 1}, 0},         // nothing reduced
    {{4, 0}, {0, 1}, 2},         // rows of nothing
    {{0, 4}, {0, 1}, 2},         // no rows
};

Sizes reducedSizes(const Shape& s) {
  Sizes sizes = s.sizes;
  for (size_t i = 0; i < sizes.size(); i++) {
    if (s.reduced >> i & 1) sizes[i] = 1;
  }
  return sizes;
}
size_t countOf(const Sizes& sizes) {
  int64_t n = 1;
  for (int64_t s : sizes) n *= s;
  return static_cast<size_t>(n);
}

TEST_P(ReduceOnDevice, reductions) {
  for (const Shape& shape : kShapes) {
    for (DType dtype :
         {DType::float32, DType::float64, DType::bfloat16, DType::int32, DType::boolean}) {
      const Values x = randomValues(static_cast<int64_t>(countOf(shape.sizes)), -2, 3, dtype);
      const DeviceTensor input = laidOut(dtype, shape, x);
      const Sizes sizes = reducedSizes(shape);
      const auto rows = rowsOf(shape, x, countOf(sizes));
      for (int o = 0; o < static_cast<int>(ReduceOp::count); o++) {
        const auto op = static_cast<ReduceOp>(o);
        const bool extremum = op == ReduceOp::amax || op == ReduceOp::amin;
        const bool truth = op == ReduceOp::any || op == ReduceOp::all;
        if (extremum && (x.empty() || dtype == DType::boolean)) continue;
        if (op == ReduceOp::prod && x.size() > 100) continue;
        SCOPED_TRACE(std::string(dtypeName(dtype)) + ", op " + std::to_string(o) + ", shape " +
                     std::to_string(&shape - kShapes));
        const DType result = truth                           ? DType::boolean
                             : isFloating(dtype) || extremum ? dtype
                             : op == ReduceOp::mean          ? DType::float32
                                                             : DType::int64;
        DeviceTensor y = DeviceTensor::empty(result, sizes);
        backend::reduce(op, y, input);
        Values want;
        for (const Values& row : rows) want.push_back(reduceReference(op, row));
        expectClose(y.read(), want, 4 * epsilonOf(result));
      }
    }
  }
}

TEST_P(ReduceOnDevice, extremaAndNaN) {
  DeviceTensor x(DType::float32, {3, 3}, {1, NAN, 3, -INFINITY, -INFINITY, -INFINITY, 5, 2, 5});
  DeviceTensor y = DeviceTensor::empty(DType::float32, {3, 1});
  backend::reduce(ReduceOp::amax, y, x);
  expectClose(y.read(), {NAN, -INFINITY, 5}, 0);
  DeviceTensor index = DeviceTensor::empty(DType::int64, {3, 1});
  backend::argReduce(ArgOp::argmax, index, x, 1);
  EXPECT_EQ(index.read(), (Values{1, 0, 0}));
  backend::argReduce(ArgOp::argmin, index, x, 1);
  EXPECT_EQ(index.read(), (Values{1, 0, 1}));
}

TEST_P(ReduceOnDevice, indicesOfExtrema) {
  for (const Shape& shape :
       {Shape{{4, 999}, {0, 1}, 2}, Shape{{999, 4}, {0, 1}, 1}, Shape{{1, 9000}, {0, 1}, 2},
        Shape{{3, 17, 5}, {1, 2, 0}, 2}, Shape{{3, 1}, {0, 1}, 2}}) {
    for (DType dtype : {DType::float32, DType::int64}) {
      const Values x = randomValues(static_cast<int64_t>(countOf(shape.sizes)), -9, 9, dtype);
      const Sizes sizes = reducedSizes(shape);
      DeviceTensor y = DeviceTensor::empty(DType::int64, sizes);
      for (ArgOp op : {ArgOp::argmax, ArgOp::argmin}) {
        backend::argReduce(op, y, laidOut(dtype, shape, x), shape.reduced == 1 ? 0 : 1);
        Values want;
        for (const Values& row : rowsOf(shape, x, countOf(sizes))) {
          const auto at = op == ArgOp::argmax ? std::max_element(row.begin(), row.end())
                                              : std::min_element(row.begin(), row.end());
          want.push_back(static_cast<double>(at - row.begin()));
        }
        EXPECT_EQ(y.read(), want);
      }
    }
  }
}

// A long float32 sum keeps to a few units of the last place, as a pairwise one does.
TEST_P(ReduceOnDevice, longSumsAreAccurate) {
  const int64_t n = 1 << 19;
  Values x(static_cast<size_t>(n));
  double want = 0;
  for (size_t i = 0; i < x.size(); i++) {
    x[i] = static_cast<float>(0.1 + 1e-3 * static_cast<double>(i % 7));
    want += x[i];
  }
  DeviceTensor y = DeviceTensor::empty(DType::float32, {1});
  backend::reduce(ReduceOp::sum, y, DeviceTensor(DType::float32, {n}, x));
  expectClose(y.read(), {want}, 4 * epsilonOf(DType::float32), 0);
}

// ---------------------------------------------------------------- softmax
const Shape kSoftmaxShapes[] = {
    {{}, {}, 1},             //
    {{5, 1}, {0, 1}, 2},     //
    {{7, 3}, {0, 1}, 2},     // narrow rows
    {{3, 1000}, {0, 1}, 2},  // wide rows
    {{37, 6}, {0, 1}, 1},    // across memory
    {{4, 9, 5}, {0, 1, 2}, 2},
    {{300, 10}, {1, 0}, 2},
    {{20, 1100}, {0, 1}, 1},
    {{2, 0}, {0, 1}, 2},
};

TEST_P(ReduceOnDevice, softmaxAndItsGradient) {
  for (const Shape& shape : kSoftmaxShapes) {
    for (DType dtype : kFloats) {
      for (bool logarithm : {false, true}) {
        SCOPED_TRACE(std::string(dtypeName(dtype)) + (logarithm ? " log, " : ", ") +
                     std::to_string(&shape - kSoftmaxShapes));
        const auto n = static_cast<int64_t>(countOf(shape.sizes));
        const int axis = shape.reduced == 2 ? 1 : 0;
        const Values x = randomValues(n, -6, 6), dy = randomValues(n, -2, 2, dtype, 5);
        const size_t rows = countOf(reducedSizes(shape));
        std::vector<double> high(rows, -INFINITY), sums(rows, 0), dots(rows, 0);
        Values y, dx;
        forEachElement(shape, x, [&](size_t r, double v) { high[r] = std::max(high[r], v); });
        forEachElement(shape, x, [&](size_t r, double v) { sums[r] += std::exp(v - high[r]); });
        forEachElement(shape, x, [&](size_t r, double v) {
          const double p = std::exp(v - high[r]) / sums[r];
          y.push_back(logarithm ? v - high[r] - std::log(sums[r]) : p);
        });
        DeviceTensor out = DeviceTensor::empty(dtype, shape.sizes);
        backend::softmax(out, laidOut(dtype, shape, x), axis, logarithm);
        expectClose(out.read(), y, 8 * epsilonOf(dtype));

        // The gradient sees y as the device holds it.
        const Values held = out.read();
        size_t i = 0;
        forEachElement(shape, dy, [&](size_t r, double v) {
          dots[r] += logarithm ? v : v * held[i];
          i++;
        });
        i = 0;
        forEachElement(shape, dy, [&](size_t r, double v) {
          const double yi = held[i++];
          dx.push_back(logarithm ? v - std::exp(yi) * dots[r] : yi * (v - dots[r]));
        });
        DeviceTensor gradient = DeviceTensor::empty(dtype, shape.sizes);
        backend::softmaxBackward(gradient, laidOut(dtype, shape, dy), out, axis, logarithm);
        expectClose(gradient.read(), dx, 16 * epsilonOf(dtype), 4);
      }
    }
  }
}

TEST_P(ReduceOnDevice, softmaxOfInfinities) {
  DeviceTensor x(DType::float32, {4, 3},
                 {-INFINITY, 0, 0, -INFINITY, -INFINITY, -INFINITY, INFINITY, 1, 2, NAN, 1, 2});
  DeviceTensor y = DeviceTensor::empty(DType::float32, {4, 3});
  backend::softmax(y, x, 1, false);
  expectClose(y.read(), {0, 0.5, 0.5, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN}, 1e-6);
  backend::softmax(x, x, 1, true);  // in place
  const double half = std::log(0.5);
  expectClose(x.read(), {-INFINITY, half, half, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN}, 1e-6);
}

}  // namespace
}  // namespace adjoint::test
