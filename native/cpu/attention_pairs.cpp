#include "cpu/attention_pairs.h"

#include <limits>

#include "cpu/features.h"
#include "cpu/pool.h"

#if defined(ADJOINT_HAS_AVX512)
namespace adjoint::cpu::avx512bf16 {
extern const AttentionPairsKernels attentionPairsKernels;
}
#endif

namespace adjoint::cpu {

const AttentionPairsKernels* attentionPairs() {
#if defined(ADJOINT_HAS_AVX512)
  if (hasFeature(Feature::avx512Bf16)) return &avx512bf16::attentionPairsKernels;
#endif
  return nullptr;
}

namespace {

class PairsForward {
 public:
  PairsForward(const AttentionPairsKernels& kernels, const View& y, const View& lse, const View& q,
               const View& k, const View& v, const View* mask, double scale, bool isCausal)
      : kernels_(kernels),
        z_(q, v),
        y_(y),
        lse_(lse),
        q_(q),
        k_(k),
        v_(v),
        mask_(mask),
        scale_(static_cast<float>(scale)),
        isCausal_(isCausal) {}

  void run() const {
    forEachQueryPart<float>(z_, kQueries, scratch(),
                            [&](float* space, int64_t index, int64_t begin, int64_t end) {
                              task(Pieces<float>(space), index, begin, end);
                            });
  }

 private:
  // Scores of a block stay in the L1 cache. Their rows are not a power of two apart, which would
  // lie in few sets of it.
  static constexpr int64_t kQueries = 32, kKeys = 256, kScoreRow = kKeys + kWeightColumns;

  int64_t outputRow() const { return lineAligned(z_.dv); }
  int64_t scratch() const {
    return lineAligned(kQueries * kScoreRow) + lineAligned(kQueries * outputRow()) +
           floatsOfHalves(PackedPanels::elements(z_.tk, z_.d)) +
           floatsOfHalves(PackedPanels::elements(z_.dv, z_.tk)) +
           floatsOfHalves(PairedRows::elements(q_));
  }

  struct Operands {
    const PairedRows& q;
    const PackedPanels &kT, &v;
    float *scores, *output;
  };

  // Queries begin..end of a head.
  void task(Pieces<float> space, int64_t index, int64_t begin, int64_t end) const {
    const int64_t keys = isCausal_ ? std::min(z_.tk, end) : z_.tk;
    float *scores = space.take(kQueries * kScoreRow), *output = space.take(kQueries * outputRow());
    const Head<const uint16_t> k = z_.head<const uint16_t>(k_, index),
                               v = z_.head<const uint16_t>(v_, index);
    const PackedPanels kT(kernels_, takeHalves(space, PackedPanels::elements(keys, z_.d)), k.data,
                          k.row, k.column, keys, z_.d);
    const PackedPanels values(kernels_, takeHalves(space, PackedPanels::elements(z_.dv, keys)),
                              v.data, v.column, v.row, z_.dv, keys);
    const PairedRows q(z_, q_, index, begin, end, takeHalves(space, PairedRows::elements(q_)));
    for (int64_t i = begin; i < end; i += kQueries) {
      queries(index, i, std::min(end, i + kQueries), {q, kT, values, scores, output});
    }
  }

  void queries(int64_t index, int64_t begin, int64_t end, const Operands& in) const {
    const HeadMask mask(mask_, z_, index);
    const int64_t rows = end - begin, width = outputRow();
    z_.prefetch(y_, index, begin, rows);
    float m[kQueries];
    double l[kQueries] = {};
    std::fill_n(m, rows, -std::numeric_limits<float>::infinity());
    const int64_t keys = isCausal_ ? std::min(z_.tk, end) : z_.tk;
    if (keys == 0) std::fill_n(in.output, rows * width, 0.0f);
    for (int64_t j = 0; j < keys; j += kKeys) {
      const int64_t n = std::min(kKeys, keys - j), visible = isCausal_ ? begin + 1 - j : n;
      PairsProduct s{};
      s.m = rows;
      s.n = n;
      s.depth = z_.d;
      in.q.setOperand(s, begin);
      in.kT.setOperand(s, 0, j);
      s.c = in.scores;
      s.cRow = kScoreRow;
      s.columnEnd = visible;
      kernels_.multiply(s);
      ScoreBlock<float> block{in.scores, kScoreRow, rows, n, visible, scale_};
      mask.apply(block, begin, j);
      kernels_.accumulate(block, m, l, j > 0 ? in.output : nullptr, width, z_.dv);
      PairsProduct o{};
      o.m = rows;
      o.n = z_.dv;
      o.depth = n;
      o.a = reinterpret_cast<const uint16_t*>(in.scores);
      o.aRow = 2 * kScoreRow;
      o.aPair = 2;
      in.v.setOperand(o, j, 0);
      o.c = in.output;
      o.cRow = width;
      o.accumulates = j > 0;
      o.depthEnd = visible;
      kernels_.multiply(o);
    }
    attentionKernels<float>().finish(in.output, width, rows, z_.dv, m, l,
                                     lse_.as<float>() + index * z_.tq + begin);
    writeRounded(kernels_, z_, y_, index, begin, rows, in.output, width);
  }

  const AttentionPairsKernels& kernels_;
  AttentionSizes z_;
  const View &y_, &lse_, &q_, &k_, &v_, *mask_;
  float scale_;
  bool isCausal_;
};

}  // namespace

void attentionPairsForward(const AttentionPairsKernels& kernels, const View& y, const View& lse,
                           const View& q, const View& k, const View& v, const View* mask,
                           double scale, bool isCausal) {
  PairsForward(kernels, y, lse, q, k, v, mask, scale, isCausal).run();
}

}  // namespace adjoint::cpu
