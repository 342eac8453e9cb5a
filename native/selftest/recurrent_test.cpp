// LSTM and GRU over sequences, forward and backward, against plain loops in double precision.
#include "cpu/features.h"
#include "kernel_test.h"
#include "naive_recurrent.h"

namespace adjoint::test {
namespace {

class Recurrent : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Recurrent);

struct Sizes {
  int64_t steps, batch, features, units;
};

// A layer's inputs as the kernels have them.
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
  RecurrentArrays arrays() const {
    const auto values = [](const Tensor& t) {
      std::vector<double> all(static_cast<size_t>(t.numel()));
      for (int64_t i = 0; i < t.numel(); i++) all[i] = t.get(i);
      return all;
    };
    RecurrentArrays a{s.steps,     s.batch,   s.features,  s.units,     isLstm,
                      reverse,     values(x), values(wIh), values(wHh), values(bIh),
                      values(bHh), {},        {},          values(dy),  values(dc)};
    if (in.h0) a.h0 = values(h0);
    if (in.c0) a.c0 = values(c0);
    return a;
  }

  Sizes s;
  DType dtype;
  bool isLstm, reverse;
  int64_t blocks;
  Tensor x, wIh, wHh, bIh, bHh, h0, c0, dy, dc;
  backend::RecurrentInputs in;
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
  const NaiveRecurrent naive(k.arrays());
  const double tolerance = toleranceOf(k.dtype);
  Tensor y = k.steps(k.s.units), gates = k.kept(4 * k.s.units), da = k.steps(4 * k.s.units);
  Tensor dh0 = k.state(), dc0 = k.state(), dbias(k.dtype, {4 * k.s.units});
  if (k.isLstm) {
    Tensor cells = k.kept(k.s.units), c = k.state();
    backend::lstm({y.view, c.view, gates.view, cells.view}, k.in);
    expectNear("cells", cells, naive.cells, tolerance);
    const int64_t last = (k.reverse ? 0 : k.s.steps - 1) * k.s.batch * k.s.units;
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
  forEachBf16Form([](bool amx, bool avx512) {
    SCOPED_TRACE(::testing::Message() << "AMX " << amx << " AVX512-BF16 " << avx512);
    for (const Sizes& s : {Sizes{3, 40, 5, 33}, {2, 70, 3, 20}, {5, 7, 40, 31}}) {
      check(Case(DType::bfloat16, s, true, false, true, false));
      check(Case(DType::bfloat16, s, false, true, false, true));
    }
  });
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
