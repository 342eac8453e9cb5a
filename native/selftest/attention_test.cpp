// Attention and its gradients at every SIMD level, against the formula in double precision with the
// whole matrix of scores.
#include "cpu/features.h"
#include "kernel_test.h"

namespace adjoint::test {
namespace {

class Attention : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Attention);

enum class MaskKind { none, boolean, added, causal };
// `packed`: q, k and v are views of one [B, T, 3, H, D] tensor; `scattered`: every other element.
enum class Placement { dense, packed, scattered };

struct Case {
  int64_t b, h, tq, tk, d, dv;
  MaskKind mask = MaskKind::none;
  Placement placement = Placement::dense;
  DType dtype = DType::float32;
};

// [B, H, T, D] in memory as the case says.
Tensor place(const Case& c, int64_t t, int64_t d, unsigned seed) {
  std::vector<int64_t> memory{c.b, c.h, t, d};
  if (c.placement == Placement::packed) memory = {c.b, t, 3 * c.h, d};
  if (c.placement == Placement::scattered) memory = {c.b, c.h, d, 2 * t};
  Tensor x(c.dtype, memory, 1);
  x.fillRandom(seed, -1, 1);
  if (c.placement == Placement::packed) {
    x.transpose(1, 2).slice(1, seed % 3 * c.h, 1);
    x.view.size[1] = c.h;
  }
  if (c.placement == Placement::scattered) x.transpose(2, 3).slice(2, 0, 2);
  return x;
}

// Everything of one run of the kernels, and what the formula says.
struct Trial {
  explicit Trial(const Case& c)
      : c(c),
        scale(1 / std::sqrt(static_cast<double>(std::max<int64_t>(1, c.d)))),
        q(place(c, c.tq, c.d, 3)),
        k(place(c, c.tk, c.d, 4)),
        v(place(c, c.tk, c.dv, 5)),
        dy(place(c, c.tq, c.dv, 6)),
        mask(c.mask == MaskKind::boolean ? DType::boolean : c.dtype, {c.tq, c.tk}),
        y(place(c, c.tq, c.dv, 1)),
        lse(c.dtype == DType::float64 ? DType::float64 : DType::float32, {c.b, c.h, c.tq}),
        dq(place(c, c.tq, c.d, 7)),
        dk(place(c, c.tk, c.d, 8)),
        dv(place(c, c.tk, c.dv, 9)) {
    if (c.mask == MaskKind::boolean) {
      // The second query sees no key.
      mask.fill([&](int64_t i) { return i / c.tk == 1 ? 0 : (i * 7 + i / c.tk) % 3 != 0; });
    } else {
      mask.fillRandom(11);
    }
  }

  const View* maskView() {
    if (c.mask == MaskKind::none || c.mask == MaskKind::causal) return nullptr;
    expanded = mask.view;
    expanded.ndim = 4;
    const int64_t size[] = {c.b, c.h, c.tq, c.tk};
    const int64_t stride[] = {0, 0, c.tk, 1};
    std::copy_n(size, 4, expanded.size);
    std::copy_n(stride, 4, expanded.stride);
    return &expanded;
  }
  void forward() {
    backend::attention(y.view, lse.view, q.view, k.view, v.view, maskView(), scale, isCausal());
  }
  void backward() {
    backend::attentionBackward({dq.view, dk.view, dv.view, dy.view, q.view, k.view, v.view, y.view,
                                lse.view, maskView(), scale, isCausal()});
  }
  bool isCausal() const { return c.mask == MaskKind::causal; }

  double score(int64_t head, int64_t i, int64_t j) const {
    if (isCausal() && j > i) return -INFINITY;
    const int64_t m = i * c.tk + j;
    if (c.mask == MaskKind::boolean && mask.get(m) == 0) return -INFINITY;
    double sum = 0;
    for (int64_t e = 0; e < c.d; e++) {
      sum += q.get((head * c.tq + i) * c.d + e) * k.get((head * c.tk + j) * c.d + e);
    }
    return scale * sum + (c.mask == MaskKind::added ? mask.get(m) : 0);
  }
  // p [Tq, Tk] of a head; rows without a key are 0.
  std::vector<double> probabilities(int64_t head) const {
    std::vector<double> p(static_cast<size_t>(c.tq * c.tk));
    for (int64_t i = 0; i < c.tq; i++) {
      double* row = p.data() + i * c.tk;
      double most = -INFINITY, sum = 0;
      for (int64_t j = 0; j < c.tk; j++) most = std::fmax(most, row[j] = score(head, i, j));
      for (int64_t j = 0; j < c.tk; j++) {
        sum += row[j] = std::isinf(most) ? 0 : std::exp(row[j] - most);
      }
      for (int64_t j = 0; j < c.tk; j++) row[j] /= sum == 0 ? 1 : sum;
    }
    return p;
  }

  void checkForward(double tolerance) {
    for (int64_t head = 0; head < c.b * c.h; head++) {
      const std::vector<double> p = probabilities(head);
      for (int64_t i = 0; i < c.tq; i++) {
        for (int64_t e = 0; e < c.dv; e++) {
          double sum = 0;
          for (int64_t j = 0; j < c.tk; j++) {
            sum += p[i * c.tk + j] * v.get((head * c.tk + j) * c.dv + e);
          }
          const int64_t at = (head * c.tq + i) * c.dv + e;
          ASSERT_NEAR(y.get(at), sum, tolerance) << "head " << head << " row " << i;
        }
      }
    }
    ASSERT_TRUE(y.isIntact() && lse.isIntact());
  }

  void checkBackward(double tolerance) {
    for (int64_t head = 0; head < c.b * c.h; head++) {
      const std::vector<double> p = probabilities(head);
      std::vector<double> ds(p.size());
      const auto at = [head](const Tensor& x, int64_t rows, int64_t width, int64_t i, int64_t e) {
        return x.get((head * rows + i) * width + e);
      };
      for (int64_t i = 0; i < c.tq; i++) {
        double mean = 0;
        for (int64_t j = 0; j < c.tk; j++) {
          double dp = 0;
          for (int64_t e = 0; e < c.dv; e++) {
            dp += at(dy, c.tq, c.dv, i, e) * at(v, c.tk, c.dv, j, e);
          }
          ds[i * c.tk + j] = dp;
          mean += p[i * c.tk + j] * dp;
        }
        for (int64_t j = 0; j < c.tk; j++) {
          ds[i * c.tk + j] = p[i * c.tk + j] * (ds[i * c.tk + j] - mean) * scale;
        }
      }
      for (int64_t i = 0; i < c.tq; i++) {
        for (int64_t e = 0; e < c.d; e++) {
          double sum = 0;
          for (int64_t j = 0; j < c.tk; j++) sum += ds[i * c.tk + j] * at(k, c.tk, c.d, j, e);
          ASSERT_NEAR(at(dq, c.tq, c.d, i, e), sum, tolerance) << "dq, row " << i;
        }
      }
      for (int64_t j = 0; j < c.tk; j++) {
        for (int64_t e = 0; e < c.d; e++) {
          double sum = 0;
          for (int64_t i = 0; i < c.tq; i++) sum += ds[i * c.tk + j] * at(q, c.tq, c.d, i, e);
          ASSERT_NEAR(at(dk, c.tk, c.d, j, e), sum, tolerance) << "dk, row " << j;
        }
        for (int64_t e = 0; e < c.dv; e++) {
          double sum = 0;
          for (int64_t i = 0; i < c.tq; i++) sum += p[i * c.tk + j] * at(dy, c.tq, c.dv, i, e);
          ASSERT_NEAR(at(dv, c.tk, c.dv, j, e), sum, tolerance) << "dv, row " << j;
        }
      }
    }
    ASSERT_TRUE(dq.isIntact() && dk.isIntact() && dv.isIntact());
  }

  Case c;
  double scale;
  Tensor q, k, v, dy, mask, y, lse, dq, dk, dv;
  View expanded;
};

// Inputs are at most 1 and so are weighted means of values; dk and dv sum over up to Tq queries.
void check(const Case& c) {
  const double unit = c.dtype == DType::float64    ? 1e-14
                      : c.dtype == DType::float32  ? 2e-6
                      : c.dtype == DType::bfloat16 ? 1.0 / 64
                                                   : 1.0 / 512;
  SCOPED_TRACE(::testing::Message()
               << c.b << "x" << c.h << "x" << c.tq << "x" << c.tk << ", D " << c.d << ", E " << c.dv
               << ", mask " << static_cast<int>(c.mask) << ", placement "
               << static_cast<int>(c.placement) << ", " << dtypeName(c.dtype));
  Trial run(c);
  run.forward();
  run.checkForward(unit);
  run.backward();
  run.checkBackward(unit * std::sqrt(static_cast<double>(c.tq) + 4));
}

constexpr MaskKind kMasks[] = {MaskKind::none, MaskKind::boolean, MaskKind::added,
                               MaskKind::causal};

// float32, and bfloat16, which is multiplied in pairs where the processor does that.
constexpr DType kProducts[] = {DType::float32, DType::bfloat16};

TEST_P(Attention, OddLengths) {
  const int64_t lengths[] = {1, 7, 65, 130};
  for (DType dtype : kProducts) {
    for (int64_t tq : lengths) {
      for (int64_t tk : lengths) {
        for (MaskKind mask : kMasks) {
          check({1, 2, tq, tk, 5, 5, mask, Placement::dense, dtype});
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(Attention, OddWidths) {
  for (DType dtype : kProducts) {
    for (int64_t d : {1, 3, 16, 17, 32, 33, 64, 80}) {
      for (int64_t dv : {d, int64_t{24}}) {
        for (MaskKind mask : kMasks) {
          check({1, 1, 34, 66, d, dv, mask, Placement::dense, dtype});
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(Attention, Bfloat16WithoutPairs) {
  const FeatureChoice withoutPairs(true, false);
  for (Placement placement : {Placement::dense, Placement::packed, Placement::scattered}) {
    check({2, 3, 37, 37, 20, 20, MaskKind::causal, placement, DType::bfloat16});
  }
}

// Rounding p and ds changes each of their products by at most 2^-8 of it, and mostly at random.
TEST_P(Attention, RelativeErrorsOfBfloat16) {
  for (MaskKind mask : {MaskKind::none, MaskKind::causal}) {
    Trial run({1, 2, 200, 200, 32, 32, mask, Placement::packed, DType::bfloat16});
    run.q.fillRandom(3, -3, 3);
    run.k.fillRandom(4, -3, 3);
    run.forward();
    run.checkForward(1.0 / 256);
    run.backward();
    run.checkBackward(1.0 / 24);
  }
}

TEST_P(Attention, PlacementsAndDTypes) {
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    for (Placement placement : {Placement::dense, Placement::packed, Placement::scattered}) {
      for (MaskKind mask : kMasks) {
        check({2, 3, 37, 37, 20, 20, mask, placement, dtype});
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Long enough that the sequence of a head is shared out among tasks.
TEST_P(Attention, PartsOfASequence) {
  check({1, 1, 700, 530, 8, 8, MaskKind::causal});
  check({1, 1, 300, 900, 8, 8, MaskKind::none});
  check({1, 1, 300, 900, 8, 8, MaskKind::causal});
  for (MaskKind mask : kMasks) {
    check({1, 1, 300, 530, 8, 8, mask, Placement::packed, DType::bfloat16});
  }
}

TEST_P(Attention, AnyNumberOfThreads) {
  for (DType dtype : kProducts) {
    for (int which = 0; which < 4; which++) {
      expectSameForAnyThreads([which, dtype] {
        Trial run({1, 2, 530, 530, 16, 16, MaskKind::causal, Placement::dense, dtype});
        run.forward();
        run.backward();
        Tensor* const results[] = {&run.y, &run.dq, &run.dk, &run.dv};
        return std::move(*results[which]);
      });
    }
  }
}

TEST_P(Attention, EmptySizes) {
  for (DType dtype : kProducts) {
    for (Case c : {Case{0, 2, 3, 3, 4, 4}, Case{1, 0, 3, 3, 4, 4}, Case{1, 2, 0, 3, 4, 4},
                   Case{1, 2, 3, 0, 4, 4}, Case{1, 2, 3, 3, 4, 0}, Case{1, 2, 3, 3, 0, 4}}) {
      c.dtype = dtype;
      Trial run(c);
      run.forward();
      run.checkForward(dtype == DType::bfloat16 ? 1.0 / 128 : 1e-6);
      run.backward();
      run.checkBackward(dtype == DType::bfloat16 ? 1.0 / 64 : 1e-6);
    }
  }
}

TEST_P(Attention, RowsThatSeeNoKeyAreZero) {
  for (DType dtype : kProducts) {
    Trial run({1, 2, 5, 40, 8, 8, MaskKind::boolean, Placement::dense, dtype});
    run.forward();
    run.backward();
    for (int64_t e = 0; e < 8; e++) {
      EXPECT_EQ(run.y.get(8 + e), 0);
      EXPECT_EQ(run.dq.get(8 + e), 0);
    }
    EXPECT_EQ(run.lse.get(1), INFINITY);
  }
}

TEST_P(Attention, NaNAndInfinityStayInTheirRows) {
  for (DType dtype : kProducts) {
    Trial run({1, 1, 70, 140, 8, 8, MaskKind::none, Placement::dense, dtype});
    run.q.set(3 * 8 + 2, NAN);
    run.q.set(60 * 8 + 2, INFINITY);
    run.forward();
    for (int64_t i = 0; i < 70; i++) {
      for (int64_t e = 0; e < 8; e++) {
        EXPECT_EQ(std::isnan(run.y.get(i * 8 + e)), i == 3 || i == 60) << "row " << i;
      }
    }
    run.backward();
    for (int64_t i = 0; i < 70; i++) {
      EXPECT_EQ(std::isnan(run.dq.get(i * 8)), i == 3 || i == 60) << "row " << i;
    }
    EXPECT_TRUE(std::isnan(run.dk.get(0)) && std::isnan(run.dv.get(0)));
  }
}

// A score that a causal mask hides must not be heard of, nor what lies beyond a row of odd width.
TEST_P(Attention, NaNBehindTheMask) {
  for (DType dtype : kProducts) {
    Trial run({1, 1, 70, 70, 5, 5, MaskKind::causal, Placement::dense, dtype});
    for (int64_t e = 0; e < 5; e++) run.k.set(50 * 5 + e, NAN);
    run.forward();
    for (int64_t i = 0; i < 70; i++) {
      EXPECT_EQ(std::isnan(run.y.get(i * 5)), i >= 50) << "row " << i;
    }
  }
}

// A later block whose scores are far larger: what was summed before must vanish, not overflow.
TEST_P(Attention, LargeScores) {
  for (DType dtype : kProducts) {
    Trial run({1, 1, 3, 300, 4, 4, MaskKind::none, Placement::dense, dtype});
    const double tolerance = dtype == DType::bfloat16 ? 1.0 / 256 : 1e-6;
    run.scale = 1;
    run.q.fill([](int64_t) { return 1; });
    run.k.fill([](int64_t i) { return i / 4 == 290 ? 2e4 : i / 4 == 3 ? 1e4 : -1e4; });
    run.forward();
    run.checkForward(tolerance);
    run.k.fill([](int64_t i) { return i / 4 == 2 ? 2e4 : -1e4; });
    run.forward();
    run.checkForward(tolerance);
  }
}

TEST_P(Attention, ArgumentsAreChecked) {
  Trial run({1, 2, 3, 4, 5, 5});
  Tensor wrong(DType::float32, {1, 2, 4, 6}), other(DType::float64, {1, 2, 4, 5});
  const auto forward = [&](const View& k, const View& v, const View* mask, const View& lse) {
    backend::attention(run.y.view, lse, run.q.view, k, v, mask, 1, false);
  };
  EXPECT_THROW(forward(wrong.view, run.v.view, nullptr, run.lse.view), Error);
  EXPECT_THROW(forward(other.view, run.v.view, nullptr, run.lse.view), Error);
  EXPECT_THROW(forward(run.k.view, run.q.view, nullptr, run.lse.view), Error);
  EXPECT_THROW(forward(run.k.view, run.v.view, &wrong.view, run.lse.view), Error);
  EXPECT_THROW(forward(run.k.view, run.v.view, nullptr, run.q.view), Error);
}

}  // namespace
}  // namespace adjoint::test
