// Attention and its gradients against the formula in float64.
#include "attention_trial.h"

namespace adjoint::test {
namespace {

ADJOINT_IN_ALL_ORDERS(AttentionOnDevice);

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
