// LSTM and GRU over sequences, forward and backward, against plain loops in double precision.
#include "cpu/features.h"
#include "kernel_test.h"

namespace adjoint::test {
namespace {

class Recurrent : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Recurrent);

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

struct Sizes {
  int64_t steps, batch, features, units;
};

// A layer's inputs, and what the naive loops make of them; arrays as the kernels have them.
struct Case {
  Case(DType dtype, const Sizes& sizes, bool isLstm, bool reverse, bool hasState, bool isStrided)
      : s(sizes),
        dtype(dtype),
        isLstm(isLstm),
        reverse(reverse),
        blocks(isLstm ? 4 : 3),
        x(dtype, {s.features * (isStrided ? 2 : 1), s.batch, s.steps}),
        wIh(dtype, {s.features, blocks * s.units}),
        wHh(dtype, isStrided ? std::vector<int64_t>{s.units, blocks * s.units}
                             : std::vector<int64_t>{blocks * s.units, s.units}),
        bIh(dtype, {blocks * s.units}),
        bHh(dtype, {blocks * s.units}, 1),
        h0(dtype, {s.batch, s.units}),
        c0(dtype, {s.units, s.batch}),
        dy(dtype, isStrided ? std::vector<int64_t>{s.batch, s.steps, s.units}
                            : std::vector<int64_t>{s.steps, s.batch, s.units}),
        dc(dtype, {s.batch, s.units}) {
    const double scale = 1 / std::sqrt(double(s.units));
    if (isStrided) {
      x.slice(0, 1, 2);
      wHh.transpose(0, 1);
      dy.transpose(0, 1);
    }
    x.transpose(0, 2).fillRandom(1);
    wIh.transpose(0, 1).fillRandom(2, -scale, scale);
    wHh.fillRandom(3, -scale, scale);
    bIh.fillRandom(4, -scale, scale);
    bHh.fillRandom(5, -scale, scale);
    h0.fillRandom(6, -1, 1);
    c0.transpose(0, 1).fillRandom(7);
    dy.fillRandom(8, -1, 1);
    dc.fillRandom(9, -1, 1);
    in = {x.view, wIh.view, wHh.view, &bIh.view, &bHh.view, nullptr, nullptr, reverse};
    if (hasState) {
      in.h0 = &h0.view;
      if (isLstm) in.c0 = &c0.view;
    }
  }

  Tensor steps(int64_t width) const { return Tensor(dtype, {s.steps, s.batch, width}); }
  // In the dtype that is computed in.
  Tensor kept(int64_t width) const {
    const bool isDouble = dtype == DType::float64;
    return Tensor(isDouble ? dtype : DType::float32, {s.steps, s.batch, width});
  }
  Tensor state() const { return Tensor(dtype, {s.batch, s.units}); }
  int64_t row(int64_t t, int64_t n) const { return t * s.batch + n; }
  int64_t at(int64_t step) const { return reverse ? s.steps - 1 - step : step; }

  Sizes s;
  DType dtype;
  bool isLstm, reverse;
  int64_t blocks;
  Tensor x, wIh, wHh, bIh, bHh, h0, c0, dy, dc;
  backend::RecurrentInputs in;
};

// One row of the batch at a time; gates are kept as the kernels keep them.
struct Naive {
  explicit Naive(const Case& k)
      : y(k.s.steps * k.s.batch * k.s.units),
        cells(y.size()),
        gates(4 * y.size()),
        dgates(gates.size()),
        dbias(4 * k.s.units),
        dh0(k.s.batch * k.s.units),
        dc0(dh0.size()) {
    for (int64_t n = 0; n < k.s.batch; n++) {
      forward(k, n);
      backward(k, n);
    }
  }

  void forward(const Case& k, int64_t n) {
    const int64_t units = k.s.units;
    for (int64_t step = 0; step < k.s.steps; step++) {
      const int64_t r = k.row(k.at(step), n);
      for (int64_t u = 0; u < units; u++) {
        double a[4], m[4];
        for (int64_t b = 0; b < k.blocks; b++) {
          a[b] = k.bIh.get(b * units + u);
          m[b] = k.bHh.get(b * units + u);
          for (int64_t i = 0; i < k.s.features; i++) {
            a[b] += k.wIh.get((b * units + u) * k.s.features + i) * k.x.get(r * k.s.features + i);
          }
          for (int64_t i = 0; i < units; i++) {
            m[b] += k.wHh.get((b * units + u) * units + i) * before(k, y, k.in.h0, step, n, i);
          }
        }
        double* g = &gates[r * 4 * units + u];
        if (k.isLstm) {
          for (int64_t b = 0; b < 4; b++) {
            g[b * units] = b == 2 ? std::tanh(a[b] + m[b]) : sigmoid(a[b] + m[b]);
          }
          const double c = before(k, cells, k.in.c0, step, n, u);
          cells[r * units + u] = g[units] * c + g[0] * g[2 * units];
          y[r * units + u] = g[3 * units] * std::tanh(cells[r * units + u]);
        } else {
          g[units] = sigmoid(a[0] + m[0]);
          g[2 * units] = sigmoid(a[1] + m[1]);
          g[3 * units] = m[2];
          g[0] = std::tanh(a[2] + g[units] * m[2]);
          y[r * units + u] =
              (1 - g[2 * units]) * g[0] + g[2 * units] * before(k, y, k.in.h0, step, n, u);
        }
      }
    }
  }

  void backward(const Case& k, int64_t n) {
    const int64_t units = k.s.units;
    std::vector<double> dh(units), dc(units);
    for (int64_t u = 0; u < units; u++) dc[u] = k.dc.get(n * units + u);
    for (int64_t step = k.s.steps - 1; step >= 0; step--) {
      const int64_t r = k.row(k.at(step), n);
      std::vector<double> sent(units);
      for (int64_t u = 0; u < units; u++) {
        const double* g = &gates[r * 4 * units + u];
        double* d = &dgates[r * 4 * units + u];
        const double total = dh[u] + k.dy.get(r * units + u);
        if (k.isLstm) {
          const double i = g[0], f = g[units], c = g[2 * units], o = g[3 * units];
          const double t = std::tanh(cells[r * units + u]);
          const double toCell = dc[u] + total * o * (1 - t * t);
          d[0] = toCell * c * i * (1 - i);
          d[units] = toCell * before(k, cells, k.in.c0, step, n, u) * f * (1 - f);
          d[2 * units] = toCell * i * (1 - c * c);
          d[3 * units] = total * t * o * (1 - o);
          dc[u] = toCell * f;
        } else {
          const double c = g[0], reset = g[units], z = g[2 * units], m = g[3 * units];
          d[0] = total * (1 - z) * (1 - c * c);
          d[units] = d[0] * m * reset * (1 - reset);
          d[2 * units] = total * (before(k, y, k.in.h0, step, n, u) - c) * z * (1 - z);
          d[3 * units] = d[0] * reset;
          sent[u] = total * z;
        }
      }
      for (int64_t i = 0; i < 4 * units; i++) dbias[i] += dgates[r * 4 * units + i];
      for (int64_t u = 0; u < units; u++) {
        for (int64_t b = 0; b < k.blocks; b++) {
          const int64_t block = k.isLstm ? b : b + 1;
          for (int64_t i = 0; i < units; i++) {
            sent[i] += dgates[(r * 4 + block) * units + u] * k.wHh.get((b * units + u) * units + i);
          }
        }
      }
      dh = sent;
    }
    std::copy(dh.begin(), dh.end(), dh0.begin() + n * units);
    std::copy(dc.begin(), dc.end(), dc0.begin() + n * units);
  }

  // The state before a step.
  static double before(const Case& k, const std::vector<double>& values, const View* initial,
                       int64_t step, int64_t n, int64_t u) {
    if (step > 0) return values[k.row(k.at(step - 1), n) * k.s.units + u];
    if (!initial) return 0;
    return getDouble(initial->as<char>() + (n * initial->stride[0] + u * initial->stride[1]) *
                                               static_cast<int64_t>(itemSize(k.dtype)),
                     k.dtype);
  }

  std::vector<double> y, cells, gates, dgates, dbias, dh0, dc0;
};

void expectNear(const char* what, const Tensor& t, const std::vector<double>& expected,
                double tolerance) {
  for (int64_t i = 0; i < t.numel(); i++) {
    ASSERT_NEAR(t.get(i), expected[i], tolerance * (1 + std::fabs(expected[i])))
        << what << " " << i << " of " << t.numel();
  }
  EXPECT_TRUE(t.isIntact()) << what;
}

// Of half types: a few of the roundings that weights, states and results go through.
double toleranceOf(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return 1e-13;
    case DType::bfloat16:
      return 4 * 0x1p-8;
    case DType::float16:
      return 4 * 0x1p-11;
    default:
      return 4e-6;
  }
}

void check(const Case& k) {
  const Naive naive(k);
  const double tolerance = toleranceOf(k.dtype);
  Tensor y = k.steps(k.s.units), gates = k.kept(4 * k.s.units), da = k.steps(4 * k.s.units);
  Tensor dh0 = k.state(), dc0 = k.state(), dbias(k.dtype, {4 * k.s.units});
  if (k.isLstm) {
    Tensor cells = k.kept(k.s.units), c = k.state();
    backend::lstm({y.view, c.view, gates.view, cells.view}, k.in);
    expectNear("cells", cells, naive.cells, tolerance);
    const int64_t last = k.row(k.at(k.s.steps - 1), 0) * k.s.units;
    expectNear("c", c, {naive.cells.begin() + last, naive.cells.end()}, tolerance);
    backend::lstmBackward({da.view, dh0.view, dc0.view, dbias.view}, &k.dy.view, &k.dc.view,
                          k.wHh.view, k.in.c0, gates.view, cells.view, k.reverse);
    expectNear("dc0", dc0, naive.dc0, tolerance);
  } else {
    backend::gru(y.view, gates.view, k.in);
    backend::gruBackward({da.view, dh0.view, dbias.view}, &k.dy.view, k.wHh.view, k.in.h0,
                         gates.view, y.view, k.reverse);
  }
  expectNear("y", y, naive.y, tolerance);
  expectNear("gates", gates, naive.gates, tolerance);
  expectNear("da", da, naive.dgates, tolerance);
  expectNear("dbias", dbias, naive.dbias, tolerance * std::sqrt(double(k.s.steps * k.s.batch)));
  expectNear("dh0", dh0, naive.dh0, tolerance);
}

TEST_P(Recurrent, EverySizeDTypeAndLayout) {
  const Sizes sizes[] = {{1, 1, 1, 1}, {3, 2, 2, 1},   {1, 5, 3, 7},  {4, 1, 2, 33},
                         {3, 9, 5, 8}, {2, 31, 3, 17}, {2, 3, 1, 70}, {2, 0, 3, 4}};
  for (const bool isLstm : {true, false}) {
    for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
      for (const Sizes& s : sizes) {
        for (const int variant : {0, 1, 2, 3}) {
          SCOPED_TRACE(::testing::Message() << (isLstm ? "lstm " : "gru ") << dtypeName(dtype)
                                            << " units " << s.units << " variant " << variant);
          check(Case(dtype, s, isLstm, variant & 1, variant & 2, variant == 1 || variant == 2));
        }
      }
    }
  }
}

// The depth of the backward product takes several blocks.
TEST_P(Recurrent, ManyUnits) {
  check(Case(DType::float32, {2, 3, 4, 300}, true, false, true, false));
  check(Case(DType::float32, {2, 3, 4, 300}, false, true, true, false));
  check(Case(DType::bfloat16, {2, 3, 4, 300}, true, true, true, false));
}

// The forms of bfloat16 products, and none.
TEST(RecurrentBf16, EveryForm) {
  using cpu::Feature;
  const bool had[] = {hasFeature(Feature::avx512Bf16), hasFeature(Feature::amxBf16)};
  for (const bool withAmx : {true, false}) {
    for (const bool withBf16 : {true, false}) {
      setFeature(Feature::avx512Bf16, had[0] && withBf16);
      setFeature(Feature::amxBf16, had[1] && withAmx);
      SCOPED_TRACE(::testing::Message() << "AMX " << withAmx << " AVX512-BF16 " << withBf16);
      for (const Sizes& s : {Sizes{3, 40, 5, 33}, {2, 70, 3, 20}, {5, 7, 40, 31}}) {
        check(Case(DType::bfloat16, s, true, false, true, false));
        check(Case(DType::bfloat16, s, false, true, false, true));
      }
    }
  }
  setFeature(Feature::avx512Bf16, had[0]);
  setFeature(Feature::amxBf16, had[1]);
}

TEST_P(Recurrent, SaturatesWithoutNaN) {
  for (const double size : {1e4, 1e30}) {
    Case k(DType::float32, {3, 2, 2, 5}, true, false, true, false);
    k.wIh.fillRandom(2, -size, size);
    Tensor y = k.steps(5), gates = k.steps(20), cells = k.steps(5), c = k.state();
    backend::lstm({y.view, c.view, gates.view, cells.view}, k.in);
    for (int64_t i = 0; i < gates.numel(); i++) ASSERT_LE(std::fabs(gates.get(i)), 1);
    for (int64_t i = 0; i < y.numel(); i++) ASSERT_LE(std::fabs(y.get(i)), 1);
  }
}

TEST_P(Recurrent, TheSameForAnyNumberOfThreads) {
  const Case k(DType::float32, {5, 50, 6, 40}, true, false, true, false);
  Tensor gates = k.steps(160), cells = k.steps(40), c = k.state();
  expectSameForAnyThreads([&] {
    Tensor y = k.steps(40);
    backend::lstm({y.view, c.view, gates.view, cells.view}, k.in);
    return y;
  });
  const Case low(DType::bfloat16, {5, 50, 6, 40}, true, false, true, false);
  expectSameForAnyThreads([&] {
    Tensor y = low.steps(40), lastCells = low.state();
    backend::lstm({y.view, lastCells.view, gates.view, cells.view}, low.in);
    return y;
  });
  expectSameForAnyThreads([&] {
    Tensor da = k.steps(160), dh0 = k.state(), dc0 = k.state(), dbias(k.dtype, {160});
    backend::lstmBackward({da.view, dh0.view, dc0.view, dbias.view}, &k.dy.view, nullptr,
                          k.wHh.view, nullptr, gates.view, cells.view, false);
    return da;
  });
  expectSameForAnyThreads([&] {
    Tensor da = low.steps(160), dh0 = low.state(), dc0 = low.state(), dbias(low.dtype, {160});
    backend::lstmBackward({da.view, dh0.view, dc0.view, dbias.view}, &low.dy.view, nullptr,
                          low.wHh.view, nullptr, gates.view, cells.view, false);
    return dbias;
  });
}

TEST(RecurrentErrors, WrongShapesAndDTypes) {
  Case k(DType::float32, {2, 3, 4, 5}, false, false, true, false);
  Tensor y = k.steps(5), gates = k.steps(20);
  backend::gru(y.view, gates.view, k.in);
  EXPECT_THROW(backend::gru(gates.view, gates.view, k.in), Error);
  k.in.h0 = &k.bIh.view;
  EXPECT_THROW(backend::gru(y.view, gates.view, k.in), Error);
  k.in.h0 = nullptr;
  const Tensor half(DType::float16, {15, 4});
  k.in.wIh = half.view;
  EXPECT_THROW(backend::gru(y.view, gates.view, k.in), Error);
}

}  // namespace
}  // namespace adjoint::test
