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
  int64_t heads() const { return b * h; }
  double scale() const { return 1 / std::sqrt(static_cast<double>(d > 0 ? d : 1)); }
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

  void check() {
    SCOPED_TRACE(describe(c));
    run();
    Values wantY, wantLse;
    Gradients want{Values(q.size()), Values(k.size()), Values(v.size())};
    for (int64_t head = 0; head < c.heads(); head++) {
      for (int64_t i = 0; i < c.tq; i++) expectRow(head, i, wantY, wantLse, want);
    }
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
      for (MaskKind mask : kMasks) Trial({1, 1, tq, tk, 5, 5, mask}).check();
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

// Half types have kernels for heads of up to 32, 64 and 128, and the others beyond.
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
