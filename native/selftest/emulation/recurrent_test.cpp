// LSTM and GRU over sequences, forward and backward, against plain loops in double precision.
#include "device_tensor.h"
#include "selftest/naive_recurrent.h"

namespace adjoint::test {
namespace {

class RecurrentOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(RecurrentOnDevice);

struct LayerSizes {
  int64_t steps, batch, features, units;
};

// Multiples of 1/64: the same in every dtype.
Values fineValues(int64_t n, double bound, unsigned seed) {
  Values values = randomValues(n, -8 * bound, 8 * bound, DType::float32, seed);
  for (double& v : values) v /= 8;
  return values;
}

// The same elements, the axes in another order in memory.
DeviceTensor stored(DType dtype, const Sizes& sizes, const Values& values,
                    const std::vector<int>& order) {
  Sizes reordered;
  std::vector<int> back(order.size());
  for (size_t i = 0; i < order.size(); i++) {
    reordered.push_back(sizes[static_cast<size_t>(order[i])]);
    back[static_cast<size_t>(order[i])] = static_cast<int>(i);
  }
  const DeviceTensor t = DeviceTensor::empty(dtype, reordered).permuted(back);
  backend::copy(t, DeviceTensor(dtype, sizes, values));
  return t;
}

// What differs between layers, beside their sizes.
struct Variant {
  bool reverse, hasState, hasBias, isStrided;
};
constexpr Variant kVariants[] = {{false, false, true, false},
                                 {true, true, true, true},
                                 {false, true, false, false},
                                 {true, false, true, true}};

struct Layer {
  Layer(DType dtype, const LayerSizes& s, bool isLstm, const Variant& v)
      : dtype(dtype), sizes(s), variant(v), a(makeArrays(s, isLstm, v)) {
    const int64_t rows = a.blocks() * s.units;
    const std::vector<int> rowsLast = v.isStrided ? std::vector<int>{1, 0} : std::vector<int>{0, 1};
    x = stored(dtype, {s.steps, s.batch, s.features}, a.x,
               v.isStrided ? std::vector<int>{2, 1, 0} : std::vector<int>{0, 1, 2});
    wIh = stored(dtype, {rows, s.features}, a.wIh, rowsLast);
    wHh = stored(dtype, {rows, s.units}, a.wHh, rowsLast);
    bIh = DeviceTensor(dtype, {rows}, a.bIh);
    bHh = DeviceTensor(dtype, {rows}, a.bHh);
    dy = stored(dtype, {s.steps, s.batch, s.units}, a.dy,
                v.isStrided ? std::vector<int>{1, 0, 2} : std::vector<int>{0, 1, 2});
    dc = stored(dtype, {s.batch, s.units}, a.dc, rowsLast);
    in = {x, wIh, wHh, nullptr, nullptr, nullptr, nullptr, v.reverse};
    if (v.hasBias) {
      in.bIh = &bIh.view;
      in.bHh = &bHh.view;
    }
    if (v.hasState) {
      h0 = stored(dtype, {s.batch, s.units}, a.h0, rowsLast);
      c0 = stored(dtype, {s.batch, s.units}, a.c0, {0, 1});
      in.h0 = &h0.view;
      if (isLstm) in.c0 = &c0.view;
    }
  }
  static RecurrentArrays makeArrays(const LayerSizes& s, bool isLstm, const Variant& v) {
    RecurrentArrays a{};
    a.steps = s.steps;
    a.batch = s.batch;
    a.features = s.features;
    a.units = s.units;
    a.isLstm = isLstm;
    a.reverse = v.reverse;
    const int64_t rows = a.blocks() * s.units, state = s.batch * s.units;
    const double bound = 1 / std::sqrt(static_cast<double>(s.units));
    a.x = fineValues(s.steps * s.batch * s.features, 1, 1);
    a.wIh = fineValues(rows * s.features, bound, 2);
    a.wHh = fineValues(rows * s.units, bound, 3);
    a.bIh = fineValues(rows, v.hasBias ? bound : 0, 4);
    a.bHh = fineValues(rows, v.hasBias ? bound : 0, 5);
    if (v.hasState) {
      a.h0 = fineValues(state, 1, 6);
      a.c0 = fineValues(state, 1, 7);
    }
    a.dy = fineValues(s.steps * state, 1, 8);
    a.dc = fineValues(state, 1, 9);
    return a;
  }

  DeviceTensor steps(int64_t width) const {
    return DeviceTensor::empty(dtype, {sizes.steps, sizes.batch, width});
  }
  DeviceTensor kept(int64_t width) const {
    return DeviceTensor::empty(computeDType(dtype), {sizes.steps, sizes.batch, width});
  }
  DeviceTensor state() const { return DeviceTensor::empty(dtype, {sizes.batch, sizes.units}); }

  DType dtype;
  LayerSizes sizes;
  Variant variant;
  RecurrentArrays a;
  DeviceTensor x = none(), wIh = none(), wHh = none(), bIh = none(), bHh = none(), h0 = none(),
               c0 = none(), dy = none(), dc = none();
  backend::RecurrentInputs in;

 private:
  static DeviceTensor none() { return DeviceTensor::empty(DType::float32, {0}); }
};

// Of half types: a few of the roundings that states and results go through.
double toleranceOf(DType dtype) {
  return dtype == DType::float64 ? 1e-13 : dtype == DType::float32 ? 4e-6 : 2 * epsilonOf(dtype);
}

void check(const Layer& k) {
  const NaiveRecurrent naive(k.a);
  const int64_t units = k.sizes.units;
  const double tolerance = toleranceOf(k.dtype);
  const double ofSums = tolerance * std::sqrt(static_cast<double>(k.sizes.steps * k.sizes.batch));
  const DeviceTensor y = k.steps(units), gates = k.kept(4 * units), da = k.steps(4 * units);
  const DeviceTensor dh0 = k.state(), dbias = DeviceTensor::empty(k.dtype, {4 * units});
  if (k.a.isLstm) {
    const DeviceTensor cells = k.kept(units), c = k.state(), dc0 = k.state();
    backend::lstm({y, c, gates, cells}, k.in);
    backend::lstmBackward({da, dh0, dc0, dbias}, &k.dy.view, &k.dc.view, k.wHh, k.in.c0, gates,
                          cells, k.variant.reverse);
    expectClose(cells.read(), naive.cells, tolerance);
    const auto last = naive.cells.begin() + k.a.row(k.a.at(k.sizes.steps - 1), 0) * units;
    expectClose(c.read(), {last, last + k.sizes.batch * units}, tolerance);
    expectClose(dc0.read(), naive.dc0, tolerance);
  } else {
    backend::gru(y, gates, k.in);
    backend::gruBackward({da, dh0, dbias}, &k.dy.view, k.wHh, k.in.h0, gates, y, k.variant.reverse);
  }
  expectClose(y.read(), naive.y, tolerance);
  expectClose(gates.read(), naive.gates, tolerance);
  expectClose(da.read(), naive.dgates, tolerance);
  expectClose(dbias.read(), naive.dbias, ofSums);
  expectClose(dh0.read(), naive.dh0, tolerance);
}

TEST_P(RecurrentOnDevice, everySizeDTypeAndLayout) {
  const LayerSizes sizes[] = {{1, 1, 1, 1},  {3, 2, 2, 1}, {4, 1, 2, 33}, {3, 9, 5, 8},
                              {2, 3, 1, 70}, {2, 4, 0, 5}, {2, 0, 3, 4}};
  for (const bool isLstm : {true, false}) {
    for (const DType dtype : kFloats) {
      for (const LayerSizes& s : sizes) {
        for (const Variant& v : kVariants) {
          SCOPED_TRACE(::testing::Message()
                       << (isLstm ? "lstm " : "gru ") << dtypeName(dtype) << " units " << s.units
                       << " variant " << &v - kVariants);
          check(Layer(dtype, s, isLstm, v));
        }
      }
    }
  }
}

// Steps that are long enough for vectors, with rows of dy that lie apart and without.
TEST_P(RecurrentOnDevice, longSteps) {
  for (const bool isLstm : {true, false}) {
    for (const DType dtype : kFloats) {
      SCOPED_TRACE(::testing::Message() << (isLstm ? "lstm " : "gru ") << dtypeName(dtype));
      check(Layer(dtype, {2, 16400, 1, 4}, isLstm, {dtype == DType::float32, true, true, isLstm}));
    }
  }
}

// Without gradients from above but one of the cells.
TEST_P(RecurrentOnDevice, missingGradients) {
  Layer k(DType::float32, {3, 4, 2, 5}, true, {false, false, true, false});
  std::fill(k.a.dy.begin(), k.a.dy.end(), 0);
  const NaiveRecurrent naive(k.a);
  const DeviceTensor y = k.steps(5), gates = k.kept(20), cells = k.kept(5), c = k.state();
  const DeviceTensor da = k.steps(20), dh0 = k.state(), dc0 = k.state();
  const DeviceTensor dbias = DeviceTensor::empty(k.dtype, {20});
  backend::lstm({y, c, gates, cells}, k.in);
  backend::lstmBackward({da, dh0, dc0, dbias}, nullptr, &k.dc.view, k.wHh, nullptr, gates, cells,
                        false);
  expectClose(da.read(), naive.dgates, toleranceOf(k.dtype));
  expectClose(dh0.read(), naive.dh0, toleranceOf(k.dtype));
  backend::lstmBackward({da, dh0, dc0, dbias}, nullptr, nullptr, k.wHh, nullptr, gates, cells,
                        false);
  for (const DeviceTensor* t : {&da, &dh0, &dc0, &dbias}) {
    for (double v : t->read()) ASSERT_EQ(v, 0);
  }
}

TEST_P(RecurrentOnDevice, saturatesWithoutNaN) {
  for (const double size : {1e4, 1e30}) {
    Layer k(DType::float32, {3, 2, 2, 5}, true, {false, true, true, false});
    Values w = k.a.wIh;
    for (double& v : w) v *= size;
    const DeviceTensor weights(k.dtype, {20, 2}, w);
    k.in.wIh = weights;
    const DeviceTensor y = k.steps(5), gates = k.kept(20), cells = k.kept(5), c = k.state();
    backend::lstm({y, c, gates, cells}, k.in);
    for (double v : gates.read()) ASSERT_LE(std::fabs(v), 1);
    for (double v : y.read()) ASSERT_LE(std::fabs(v), 1);
  }
}

TEST_P(RecurrentOnDevice, wrongShapesAndDTypes) {
  Layer k(DType::float32, {2, 3, 4, 5}, false, {false, false, true, false});
  const DeviceTensor y = k.steps(5), gates = k.kept(20);
  backend::gru(y, gates, k.in);
  EXPECT_THROW(backend::gru(gates, gates, k.in), Error);
  k.in.h0 = &k.bIh.view;
  EXPECT_THROW(backend::gru(y, gates, k.in), Error);
  k.in.h0 = nullptr;
  const DeviceTensor half = DeviceTensor::empty(DType::float16, {15, 4});
  k.in.wIh = half;
  EXPECT_THROW(backend::gru(y, gates, k.in), Error);
}

}  // namespace
}  // namespace adjoint::test
