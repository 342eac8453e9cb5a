// Attention and its gradients against the formula in float64, with the whole matrix of scores.
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class AttentionOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(AttentionOnDevice);

enum class MaskKind { none, boolean, added, causal };
constexpr MaskKind kMasks[] = {MaskKind::none, MaskKind::boolean, MaskKind::added,
                               MaskKind::causal};
// How [B, H, T, D] lies in memory. `packed`: as q, k and v in one [B, T, 3, H, D] tensor;
// `scattered`: every other element of each row, rows beside one another.
enum class Placement { dense, packed, scattered };

struct Case {
  int64_t b, h, tq, tk, d, e;
  MaskKind mask = MaskKind::none;
  DType dtype = DType::float32;
  Placement placement = Placement::dense;
  int64_t width = 0;  // of the scale, if it is not d
  int64_t heads() const { return b * h; }
  double scale() const {
    const int64_t n = width > 0 ? width : d;
    return 1 / std::sqrt(static_cast<double>(n > 0 ? n : 1));
  }
};

std::string describe(const Case& c) {
  std::string text;
  for (int64_t n : {c.b, c.h, c.tq, c.tk, c.d, c.e}) text += std::to_string(n) + " ";
  return text + dtypeName(c.dtype) + ", mask " + std::to_string(static_cast<int>(c.mask)) +
         ", placement " + std::to_string(static_cast<int>(c.placement));
}

DeviceTensor place(const Case& c, int64_t t, int64_t d, const Values* values = nullptr) {
  const Sizes sizes{c.b, c.h, t, d};
  Sizes strides{c.h * t * d, t * d, d, 1};
  int64_t offset = 0, elements = c.heads() * t * d;
  if (c.placement == Placement::packed) {
    strides = {t * 3 * c.h * d, d, 3 * c.h * d, 1};
    offset = c.h * d;
    elements *= 3;
  } else if (c.placement == Placement::scattered) {
    strides = {c.h * d * 2 * t, d * 2 * t, 2, 2 * t};
    offset = 1;
    elements *= 2;
  }
  DeviceTensor x(c.dtype, sizes, strides, elements > 0 ? offset : 0, static_cast<size_t>(elements));
  if (values && elements > 0) backend::copy(x, DeviceTensor(c.dtype, sizes, *values));
  return x;
}

struct Gradients {
  Values dq, dk, dv;
};

// One run of the kernels, and what the formula says.
struct Trial {
  explicit Trial(const Case& c)
      : c(c),
        q(values(c.tq, c.d, 1)),
        k(values(c.tk, c.d, 2)),
        v(values(c.tk, c.e, 3)),
        dy(values(c.tq, c.e, 4)) {
    if (c.mask == MaskKind::boolean) {
      // The second query sees no key.
      for (int64_t i = 0; i < c.tq * c.tk; i++) {
        mask.push_back(i / c.tk != 1 && (i * 7 + i / c.tk) % 3 != 0);
      }
    } else if (c.mask == MaskKind::added) {
      mask = randomValues(c.tq * c.tk, -1, 1, c.dtype, 5);
      for (size_t i = 0; i < mask.size(); i += 5) mask[i] = -INFINITY;
    }
  }
  Values values(int64_t rows, int64_t width, unsigned seed) const {
    return randomValues(c.heads() * rows * width, -1, 1, c.dtype, seed);
  }

  void run() {
    const DeviceTensor qs = place(c, c.tq, c.d, &q), ks = place(c, c.tk, c.d, &k),
                       vs = place(c, c.tk, c.e, &v), dys = place(c, c.tq, c.e, &dy),
                       ys = place(c, c.tq, c.e);
    const DeviceTensor lses = DeviceTensor::empty(
        c.dtype == DType::float64 ? DType::float64 : DType::float32, {c.b, c.h, c.tq});
    // One mask for all heads.
    const DType maskType = c.mask == MaskKind::boolean ? DType::boolean : c.dtype;
    DeviceTensor masks(maskType, {1, 1, c.tq, c.tk}, mask.empty() ? noMask() : mask);
    masks.view.size[0] = c.b;
    masks.view.size[1] = c.h;
    masks.view.stride[0] = masks.view.stride[1] = 0;
    const View* maskView = mask.empty() ? nullptr : &masks.view;
    const bool isCausal = c.mask == MaskKind::causal;
    backend::attention(ys, lses, qs, ks, vs, maskView, c.scale(), isCausal);
    const DeviceTensor dqs = place(c, c.tq, c.d), dks = place(c, c.tk, c.d),
                       dvs = place(c, c.tk, c.e);
    backend::attentionBackward(
        {dqs, dks, dvs, dys, qs, ks, vs, ys, lses, maskView, c.scale(), isCausal});
    y = ys.read();
    lse = lses.read();
    got = {dqs.read(), dks.read(), dvs.read()};
  }
  Values noMask() const { return Values(static_cast<size_t>(c.tq * c.tk)); }

  double score(int64_t head, int64_t i, int64_t j) const {
    if (c.mask == MaskKind::causal && j > i) return -INFINITY;
    const double added = mask.empty() ? 0 : mask[static_cast<size_t>(i * c.tk + j)];
    if (c.mask == MaskKind::boolean && added == 0) return -INFINITY;
    double sum = 0;
    for (int64_t m = 0; m < c.d; m++) {
      sum += at(q, (head * c.tq + i) * c.d + m) * at(k, (head * c.tk + j) * c.d + m);
    }
    return c.scale() * sum + (c.mask == MaskKind::added ? added : 0);
  }
  static double at(const Values& x, int64_t i) { return x[static_cast<size_t>(i)]; }

  struct Wanted {
    Values y, lse;
    Gradients gradients;
  };
  Wanted wanted() const {
    Wanted w{{}, {}, {Values(q.size()), Values(k.size()), Values(v.size())}};
    for (int64_t head = 0; head < c.heads(); head++) {
      for (int64_t i = 0; i < c.tq; i++) expectRow(head, i, w.y, w.lse, w.gradients);
    }
    return w;
  }

  void check() {
    SCOPED_TRACE(describe(c));
    run();
    const auto [wantY, wantLse, want] = wanted();
    // Half types are rounded once on each side, and so is y before it is read for the gradients.
    const double unit = 8 * epsilonOf(c.dtype), root = std::sqrt(static_cast<double>(c.tq) + 1);
    expectClose(lse, wantLse, c.dtype == DType::float64 ? 1e-14 : 1e-6);
    expectClose(y, wantY, unit);
    expectClose(got.dq, want.dq, unit);
    expectClose(got.dk, want.dk, unit * root);
    expectClose(got.dv, want.dv, unit * root);
  }

  void expectRow(int64_t head, int64_t i, Values& wantY, Values& wantLse, Gradients& want) const {
    Values p, dp(static_cast<size_t>(c.tk));
    double most = -INFINITY, sum = 0, mean = 0;
    for (int64_t j = 0; j < c.tk; j++) p.push_back(score(head, i, j));
    for (double s : p) most = std::fmax(most, s);
    const bool isEmpty = most == -INFINITY;
    for (double& s : p) sum += s = isEmpty ? 0 : std::exp(s - most);
    wantLse.push_back(isEmpty ? INFINITY : most + std::log(sum));
    for (double& s : p) s = isEmpty ? 0 : s / sum;
    Values row(static_cast<size_t>(c.e));
    for (int64_t j = 0; j < c.tk; j++) {
      for (int64_t m = 0; m < c.e; m++) {
        const double dyi = at(dy, (head * c.tq + i) * c.e + m), pj = at(p, j);
        const int64_t place = (head * c.tk + j) * c.e + m;
        row[static_cast<size_t>(m)] += pj * at(v, place);
        dp[static_cast<size_t>(j)] += dyi * at(v, place);
        want.dv[static_cast<size_t>(place)] += pj * dyi;
      }
      mean += at(p, j) * at(dp, j);
    }
    wantY.insert(wantY.end(), row.begin(), row.end());
    for (int64_t j = 0; j < c.tk; j++) {
      const double ds = at(p, j) * (at(dp, j) - mean) * c.scale();
      for (int64_t m = 0; m < c.d; m++) {
        const int64_t queryPlace = (head * c.tq + i) * c.d + m;
        const int64_t keyPlace = (head * c.tk + j) * c.d + m;
        want.dq[static_cast<size_t>(queryPlace)] += ds * at(k, keyPlace);
        want.dk[static_cast<size_t>(keyPlace)] += ds * at(q, queryPlace);
      }
    }
  }

  Case c;
  Values q, k, v, dy, mask, y, lse;
  Gradients got;
};

TEST_P(AttentionOnDevice, oddLengths) {
  for (int64_t tq : {1, 65, 130}) {
    for (int64_t tk : {1, 33, 130}) {
      for (MaskKind mask : kMasks) {
        // The longest once alone: the emulation takes its time over whole tiles.
        if (tq < 130 || tk < 130 || mask == MaskKind::causal) {
          Trial({1, 1, tq, tk, 5, 5, mask}).check();
        }
      }
    }
  }
}

TEST_P(AttentionOnDevice, oddWidths) {
  for (int64_t d : {1, 16, 33, 64, 80, 132}) {
    for (int64_t e : {d, int64_t{24}}) {
      Trial({1, 1, 34, 66, d, e, kMasks[(d + e) % 4]}).check();
    }
  }
}

// Half types and float32 have kernels for heads of up to 32, 64 and 128, and the others beyond.
TEST_P(AttentionOnDevice, dtypesAndPlacements) {
  for (DType dtype : kFloats) {
    for (Placement placement : {Placement::dense, Placement::packed, Placement::scattered}) {
      const auto p = static_cast<size_t>(placement);
      for (MaskKind mask : kMasks) Trial({1, 1, 17, 41, 20, 20, mask, dtype, placement}).check();
      Trial({1, 1, 17, 11, 64, 24, kMasks[p], dtype, placement}).check();
    }
    Trial({1, 1, 17, 11, 72, 80, MaskKind::causal, dtype, Placement::packed}).check();
    Trial({1, 1, 5, 7, 130, 8, MaskKind::boolean, dtype}).check();
  }
}

TEST_P(AttentionOnDevice, manyBlocks) {
  for (DType dtype : kFloats) Trial({1, 2, 70, 70, 16, 16, MaskKind::causal, dtype}).check();
  Trial({1, 1, 70, 140, 16, 16, MaskKind::causal, DType::bfloat16}).check();
  Trial({1, 1, 140, 70, 16, 16, MaskKind::none, DType::bfloat16}).check();
  Trial({1, 1, 70, 200, 8, 8, MaskKind::causal}).check();
  Trial({1, 1, 200, 70, 8, 8, MaskKind::causal}).check();
}

// As long as it lives.
struct Deterministic {
  Deterministic() { backend::setDeterministicAlgorithms(true); }
  ~Deterministic() { backend::setDeterministicAlgorithms(false); }
};

#ifdef ADJOINT_REAL_DEVICE
// Large enough for a library's plan, where there is one; a mask that hides nothing gets our own
// kernels. Each way must give the same bits again, but for a gradient of the library that need not.
TEST_P(AttentionOnDevice, libraryAgrees) {
  for (DType dtype : {DType::bfloat16, DType::float16}) {
    for (bool isCausal : {false, true}) {
      for (int64_t width : {64, 128}) {
        Case c{2, 12, 1000, 1100, width, width, MaskKind::none, dtype, Placement::packed};
        if (isCausal) c.mask = MaskKind::causal;
        SCOPED_TRACE(describe(c));
        // Two gradients that need not agree to the last bit, then two that must.
        Trial atomic(c);
        atomic.run();
        const Deterministic deterministic;
        Trial library(c), again = library, own = library;
        own.c.mask = MaskKind::boolean;
        for (int64_t i = 0; i < c.tq * c.tk; i++) {
          own.mask.push_back(!isCausal || i % c.tk <= i / c.tk);
        }
        library.run();
        again.run();
        own.run();
        const double unit = 4 * epsilonOf(dtype), root = std::sqrt(static_cast<double>(c.tq));
        expectClose(library.lse, own.lse, 1e-5);
        expectClose(library.y, own.y, unit);
        expectClose(library.got.dq, own.got.dq, unit);
        expectClose(library.got.dk, own.got.dk, unit * root);
        expectClose(library.got.dv, own.got.dv, unit * root);
        expectClose(atomic.got.dq, own.got.dq, unit);
        expectClose(atomic.got.dk, own.got.dk, unit * root);
        expectClose(atomic.got.dv, own.got.dv, unit * root);
        EXPECT_TRUE(library.y == again.y && library.lse == again.lse);
        EXPECT_TRUE(library.got.dq == again.got.dq && library.got.dk == again.got.dk &&
                    library.got.dv == again.got.dv);
      }
    }
  }
}
#else
TEST_P(AttentionOnDevice, libraryIsToldToBeDeterministic) {
  const Case half{1, 1, 5, 7, 8, 8, MaskKind::none, DType::bfloat16};
  for (int i = 0; i < 2; i++) {
    Trial(half).check();
    EXPECT_FALSE(emulation::lastAttentionWasDeterministic);
    const Deterministic deterministic;
    Trial(half).check();
    EXPECT_TRUE(emulation::lastAttentionWasDeterministic);
  }
}
#endif

TEST_P(AttentionOnDevice, emptySizes) {
  for (const Case& c : {Case{0, 2, 3, 3, 4, 4}, Case{1, 0, 3, 3, 4, 4}, Case{1, 2, 0, 3, 4, 4},
                        Case{1, 2, 3, 0, 4, 4}, Case{1, 2, 3, 3, 4, 0}, Case{1, 2, 3, 3, 0, 4}}) {
    Trial(c).check();
  }
}

// NaN and infinity in a query stay in its row of y and dq, and reach all of dk and dv.
TEST_P(AttentionOnDevice, nanAndInfinityStayInTheirRows) {
  for (DType dtype : {DType::float32, DType::float16}) {
    Trial run({1, 1, 70, 66, 8, 8, MaskKind::none, dtype});
    run.q[3 * 8 + 2] = NAN;
    run.q[60 * 8 + 2] = INFINITY;
    run.run();
    for (size_t i = 0; i < 70; i++) {
      for (size_t m = 0; m < 8; m++) {
        EXPECT_EQ(std::isnan(run.y[i * 8 + m]), i == 3 || i == 60) << "row " << i;
      }
      EXPECT_EQ(std::isnan(run.got.dq[i * 8]), i == 3 || i == 60) << "row " << i;
    }
    EXPECT_TRUE(std::isnan(run.got.dk[0]) && std::isnan(run.got.dv[0]));
  }
}

// What a key holds that no query sees is never met, NaN or not.
TEST_P(AttentionOnDevice, hiddenKeysBringNoNaNToScores) {
  for (DType dtype : {DType::float32, DType::bfloat16}) {
    Trial run({1, 1, 5, 100, 8, 8, MaskKind::causal, dtype});
    for (size_t i = 70 * 8; i < run.k.size(); i++) run.k[i] = NAN;
    run.run();
    for (double x : run.y) EXPECT_FALSE(std::isnan(x));
  }
}

// A later tile whose scores are far larger: what was summed before must vanish, not overflow.
TEST_P(AttentionOnDevice, largeScores) {
  for (int64_t large : {290, 3}) {
    Trial run({1, 1, 3, 300, 4, 4});
    for (double& x : run.q) x = 2;
    for (size_t i = 0; i < run.k.size(); i++) {
      run.k[i] = i / 4 == static_cast<size_t>(large) ? 2e4 : i / 4 == 150 ? 1e4 : -1e4;
    }
    run.run();
    for (size_t i = 0; i < 12; i++) {
      EXPECT_EQ(run.y[i], run.v[static_cast<size_t>(large * 4) + i % 4]);
    }
  }
}

TEST_P(AttentionOnDevice, runsRepeatBitForBit) {
  for (DType dtype : {DType::float32, DType::bfloat16}) {
    Trial first({1, 1, 90, 70, 24, 24, MaskKind::causal, dtype}), second = first;
    first.run();
    second.run();
    EXPECT_EQ(first.y, second.y);
    EXPECT_EQ(first.got.dq, second.got.dq);
    EXPECT_EQ(first.got.dk, second.got.dk);
    EXPECT_EQ(first.got.dv, second.got.dv);
  }
}

class WithProducts {
 public:
  explicit WithProducts(backend::Float32Products products) {
    backend::setFloat32Products(products);
  }
  ~WithProducts() { backend::setFloat32Products(backend::Float32Products::highest); }
};

// The root mean square of the errors, relative to that of what is wanted.
double errorOf(const Values& got, const Values& want) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); i++) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(error / norm);
}

// Heads of 132 columns are beyond the tensor cores' kernels, so the last columns, which are zeros
// there, bring the same problem to the kernels without: three products in TF32 may err four times
// as much as float32 does, one of them by its 11 bits.
TEST_P(AttentionOnDevice, errorsOfProductsInTf32) {
  const int64_t d = 64, wide = 132;
  Case c{1, 1, 70, 150, d, d};
  Trial narrow(c);
  std::mt19937 generator(9);
  std::normal_distribution<float> draw;
  for (Values* x : {&narrow.q, &narrow.k, &narrow.v, &narrow.dy}) {
    for (double& value : *x) value = draw(generator);
  }
  Case beyond = c;
  beyond.d = beyond.e = wide;
  beyond.width = d;
  Trial plain(beyond);
  const auto widen = [&](const Values& x) {
    Values y(x.size() / d * wide);
    for (size_t i = 0; i < x.size(); i++) y[i / d * wide + i % d] = x[i];
    return y;
  };
  plain.q = widen(narrow.q);
  plain.k = widen(narrow.k);
  plain.v = widen(narrow.v);
  plain.dy = widen(narrow.dy);
  plain.run();
  const Trial::Wanted want = narrow.wanted(), wantWide = plain.wanted();
  const bool hasTensorCores = cuda::computeCapability() >= 80;
  for (auto products : {backend::Float32Products::highest, backend::Float32Products::high}) {
    const WithProducts setting(products);
    narrow.run();
    const auto check = [&](const char* what, const Values& got, const Values& wanted,
                           const Values& gotPlain, const Values& wantedPlain) {
      const double error = errorOf(got, wanted), plainError = errorOf(gotPlain, wantedPlain);
      SCOPED_TRACE(what);
      if (products == backend::Float32Products::highest) {
        EXPECT_LE(error, 4 * plainError);
      } else {
        EXPECT_LE(error, 4 * 0x1p-11);
        if (hasTensorCores) {
          EXPECT_GT(error, 4 * plainError) << "one product was not enough";
        }
      }
    };
    check("lse", narrow.lse, want.lse, plain.lse, wantWide.lse);
    check("y", narrow.y, want.y, plain.y, wantWide.y);
    check("dq", narrow.got.dq, want.gradients.dq, plain.got.dq, wantWide.gradients.dq);
    check("dk", narrow.got.dk, want.gradients.dk, plain.got.dk, wantWide.gradients.dk);
    check("dv", narrow.got.dv, want.gradients.dv, plain.got.dv, wantWide.gradients.dv);
  }
}

#ifndef ADJOINT_REAL_DEVICE
// What a card before compute capability 8.0 gets.
TEST_P(AttentionOnDevice, withoutTensorCores) {
  emulation::setDeviceCount(emulation::kOlderDevices + 1);
  backend::useDevice(emulation::kOlderDevices);
  EXPECT_EQ(cuda::computeCapability(), 75);
  for (DType dtype : {DType::float32, DType::bfloat16}) {
    for (Placement placement : {Placement::dense, Placement::packed, Placement::scattered}) {
      for (MaskKind mask : kMasks) Trial({1, 1, 17, 41, 20, 20, mask, dtype, placement}).check();
    }
    Trial({1, 2, 70, 130, 64, 24, MaskKind::causal, dtype}).check();
  }
  backend::useDevice(0);
  emulation::setDeviceCount(1);
}
#endif

// One product in TF32, in each of the widths that there are kernels for.
TEST_P(AttentionOnDevice, oneProductInTf32) {
  const WithProducts setting(backend::Float32Products::high);
  for (int64_t width : {20, 64, 100}) {
    Trial run({1, 1, 33, 70, width, width, MaskKind::causal});
    run.run();
    const Trial::Wanted want = run.wanted();
    expectClose(run.y, want.y, 0x1p-9);
    expectClose(run.got.dq, want.gradients.dq, 0x1p-8);
    expectClose(run.got.dk, want.gradients.dk, 0x1p-8);
    expectClose(run.got.dv, want.gradients.dv, 0x1p-8);
  }
}

// The parts of an infinity in TF32 make a NaN; results are those of float32 all the same.
TEST_P(AttentionOnDevice, infinityIsThatOfFloat32) {
  Trial run({1, 1, 20, 40, 16, 16});
  for (double& x : run.q) x = std::fabs(x) + 0.25;
  for (double& x : run.k) x = std::fabs(x) + 0.25;
  run.v[7 * 16 + 3] = INFINITY;
  run.k[9 * 16 + 5] = -INFINITY;  // its weight is 0
  run.run();
  for (size_t i = 0; i < 20; i++) {
    for (size_t m = 0; m < 16; m++) {
      EXPECT_EQ(std::isinf(run.y[i * 16 + m]), m == 3) << i << ", " << m;
      EXPECT_FALSE(std::isnan(run.y[i * 16 + m])) << i << ", " << m;
    }
  }
}

TEST_P(AttentionOnDevice, argumentsAreChecked) {
  const auto tensor = [](const Sizes& sizes, DType dtype = DType::float32) {
    return DeviceTensor::empty(dtype, sizes);
  };
  const DeviceTensor q = tensor({1, 2, 3, 5}), k = tensor({1, 2, 4, 5}), y = tensor({1, 2, 3, 5}),
                     lse = tensor({1, 2, 3}), wrong = tensor({1, 2, 4, 6}),
                     other = tensor({1, 2, 4, 5}, DType::float64);
  const auto forward = [&](const View& keys, const View& values, const View* mask,
                           const View& statistics) {
    backend::attention(y, statistics, q, keys, values, mask, 1, false);
  };
  EXPECT_THROW(forward(wrong, k, nullptr, lse), Error);
  EXPECT_THROW(forward(other, k, nullptr, lse), Error);
  EXPECT_THROW(forward(k, q, nullptr, lse), Error);
  EXPECT_THROW(forward(k, k, &wrong.view, lse), Error);
  EXPECT_THROW(forward(k, k, nullptr, q), Error);
}

}  // namespace
}  // namespace adjoint::test
