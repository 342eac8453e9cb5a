#include "cpu/attention_backward.h"
#include "cpu/attention_pairs.h"

namespace adjoint::cpu {
namespace {

class PairsBackward {
 public:
  PairsBackward(const AttentionPairsKernels& kernels, const backend::AttentionBackwardArgs& a)
      : kernels_(kernels),
        a_(a),
        z_(a.q, a.v),
        parts_(a, kKeys),
        scale_(static_cast<float>(a.scale)) {}

  void run() const {
    parts_.run(
        scratch(),
        [&](Pieces<float> pieces, const Block<float>& dq, int64_t index, int64_t begin,
            int64_t end) { keys(pieces, dq, index, begin, end); },
        [&](int64_t index, int64_t begin, int64_t rows, const Block<float>& dq) {
          write(a_.dq, index, begin, rows, dq);
        });
  }

 private:
  // Scores and their gradients of a strip stay in the L1 cache, weights of a block nearly so.
  static constexpr int64_t kQueries = 64, kKeys = 128, kStrip = 16, kTile = 8,
                           kRow = kKeys + kWeightColumns;

  int64_t scratch() const {
    const int64_t d = z_.d, dv = z_.dv, tq = z_.tq, tk = z_.tk;
    return floatsOfHalves(PackedPanels::elements(d, tq)) +
           floatsOfHalves(PackedPanels::elements(dv, tq)) +
           floatsOfHalves(PackedPanels::elements(tk, d)) +
           floatsOfHalves(PackedPanels::elements(tk, dv)) +
           floatsOfHalves(PackedPanels::elements(d, tk)) +
           floatsOfHalves(PairedRows::elements(a_.q)) +
           floatsOfHalves(PairedRows::elements(a_.dy)) +
           floatsOfHalves(PairedRows::elements(a_.y)) + lineAligned(tq) +
           Block<float>::elements(kKeys, d) + Block<float>::elements(kKeys, dv) +
           2 * lineAligned(kStrip * kRow) + 3 * floatsOfHalves(kQueries * kRow);
  }

  struct Operands {
    const PairedRows &q, &dy;
    int64_t first, firstKey;  // of the queries and keys that the rest is made of
    const PackedPanels &packedQ, &packedDy, &kT, &vT, &packedK;
    const float* delta;
  };

  // dk and dv of keys begin..end of a head, and what they bring to dq.
  void keys(Pieces<float> pieces, const Block<float>& dq, int64_t index, int64_t begin,
            int64_t end) const {
    const int64_t d = z_.d, dv = z_.dv, first = parts_.firstQuery(begin), rows = z_.tq - first,
                  n = end - begin;
    const auto head = [&](const View& x) { return z_.head<const uint16_t>(x, index); };
    const auto paired = [&](const View& x) {
      return PairedRows(z_, x, index, first, z_.tq, takeHalves(pieces, PairedRows::elements(x)));
    };
    const auto panels = [&](const Head<const uint16_t>& x, int64_t from, int64_t count,
                            int64_t width, bool byRow) {
      const int64_t columns = byRow ? count : width, depth = byRow ? width : count;
      return PackedPanels(kernels_, takeHalves(pieces, PackedPanels::elements(columns, depth)),
                          x.at(from), byRow ? x.row : x.column, byRow ? x.column : x.row, columns,
                          depth);
    };
    const Head<const uint16_t> k = head(a_.k), v = head(a_.v);
    const PairedRows q = paired(a_.q), dy = paired(a_.dy), y = paired(a_.y);
    const PackedPanels packedQ = panels(head(a_.q), first, rows, d, false),
                       packedDy = panels(head(a_.dy), first, rows, dv, false),
                       kT = panels(k, begin, n, d, true), vT = panels(v, begin, n, dv, true),
                       packedK = panels(k, begin, n, d, false);
    std::fill(dq.at(first), dq.at(z_.tq), 0.0f);
    float* delta = pieces.take(rows);
    kernels_.rowDots(delta, dy.at(first), dy.row(), y.at(first), y.row(), rows, dv);
    const Operands in{q, dy, first, begin, packedQ, packedDy, kT, vT, packedK, delta};
    for (int64_t j = begin; j < end; j += kKeys) {
      if (j + kKeys >= end) parts_.prefetchQueries(index);
      keyBlock(pieces, dq, index, j, std::min(kKeys, end - j), in);
    }
  }

  void keyBlock(Pieces<float> pieces, const Block<float>& dq, int64_t index, int64_t key, int64_t n,
                const Operands& in) const {
    const Block<float> dk = pieces.block(n, z_.d), dv = pieces.block(n, z_.dv);
    float *scores = pieces.take(kStrip * kRow), *dp = pieces.take(kStrip * kRow);
    GradientBlock g;
    g.pPairs = takeHalves(pieces, kQueries * kRow);
    g.dsPairs = takeHalves(pieces, kQueries * kRow);
    g.pairRow = 2 * kRow;
    g.ds = takeHalves(pieces, kQueries * kRow);
    g.dsRow = kRow;
    // Where they go is fetched while they are computed.
    z_.prefetch(a_.dk, index, key, n);
    z_.prefetch(a_.dv, index, key, n);
    std::fill(dk.at(0), dk.at(n), 0.0f);
    std::fill(dv.at(0), dv.at(n), 0.0f);
    for (int64_t i = parts_.firstQuery(key), rows; i < z_.tq; i += rows) {
      rows = std::min(kQueries, z_.tq - i);
      const int64_t seen = a_.isCausal ? std::min(n, i + rows - key) : n;
      for (int64_t r = 0; r < rows; r += kStrip) {
        GradientBlock out = g;
        out.pPairs += r / 2 * g.pairRow;
        out.dsPairs += r / 2 * g.pairRow;
        out.ds += r * g.dsRow;
        strip(scores, dp, index, i + r, std::min(kStrip, rows - r), key, seen, in, out);
      }
      // dv += p^T dy; dk += ds^T q; dq += ds k
      PairsProduct sum{};
      sum.m = seen;
      sum.depth = rows;
      sum.aRow = 2;
      sum.aPair = g.pairRow;
      sum.accumulates = true;
      if (a_.isCausal) sum.depthBegin = key - i;
      sum.n = z_.dv;
      sum.a = g.pPairs;
      in.packedDy.setOperand(sum, i - in.first, 0);
      sum.c = dv.data;
      sum.cRow = dv.stride;
      kernels_.multiply(sum);
      sum.n = z_.d;
      sum.a = g.dsPairs;
      in.packedQ.setOperand(sum, i - in.first, 0);
      sum.c = dk.data;
      sum.cRow = dk.stride;
      kernels_.multiply(sum);
      PairsProduct toQueries{};
      toQueries.m = rows;
      toQueries.n = z_.d;
      toQueries.depth = seen;
      toQueries.a = g.ds;
      toQueries.aRow = g.dsRow;
      toQueries.aPair = 2;
      in.packedK.setOperand(toQueries, key - in.firstKey, 0);
      toQueries.c = dq.at(i);
      toQueries.cRow = dq.stride;
      toQueries.accumulates = true;
      if (a_.isCausal) toQueries.depthEnd = i + 1 - key;
      kernels_.multiply(toQueries);
    }
    write(a_.dk, index, key, n, dk);
    write(a_.dv, index, key, n, dv);
  }

  // Rows of a gradient's head from `begin` on.
  void write(const View& x, int64_t index, int64_t begin, int64_t rows,
             const Block<float>& sums) const {
    writeRounded(kernels_, z_, x, index, begin, rows, sums.data, sums.stride);
  }

  // Weights of `rows` queries from i on with `seen` keys from `key` on, and their gradients.
  void strip(float* scores, float* dp, int64_t index, int64_t i, int64_t rows, int64_t key,
             int64_t seen, const Operands& in, const GradientBlock& out) const {
    const int64_t visible = a_.isCausal ? i + 1 - key : seen;
    PairsProduct s{};
    s.m = rows;
    s.n = seen;
    s.cRow = kRow;
    s.columnEnd = visible;
    s.depth = z_.d;
    in.q.setOperand(s, i);
    in.kT.setOperand(s, 0, key - in.firstKey);
    s.c = scores;
    kernels_.multiply(s);
    s.depth = z_.dv;
    in.dy.setOperand(s, i);
    in.vT.setOperand(s, 0, key - in.firstKey);
    s.c = dp;
    kernels_.multiply(s);
    // Zeros as far as a tile of keys reads.
    const int64_t written = a_.isCausal ? std::min(seen, visible + rows + kTile) : seen;
    ScoreBlock<float> block{scores, kRow, rows, written, visible, scale_};
    HeadMask(a_.mask, z_, index).apply(block, i, key);
    kernels_.backward(block, dp, scale_, a_.lse.as<float>() + index * z_.tq + i,
                      in.delta + i - in.first, out);
  }

  const AttentionPairsKernels& kernels_;
  const backend::AttentionBackwardArgs& a_;
  AttentionSizes z_;
  KeyParts<float> parts_;
  float scale_;
};

}  // namespace

void attentionPairsBackward(const AttentionPairsKernels& kernels,
                            const backend::AttentionBackwardArgs& args) {
  PairsBackward(kernels, args).run();
}

}  // namespace adjoint::cpu
