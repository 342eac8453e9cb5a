// The gradients of attention (Dao et al. 2022, algorithm 4): the scores of a block are computed
// again, from q, k and the log-sum-exp of each row.
#include "cpu/attention_backward.h"

#include "cpu/attention_pairs.h"

namespace adjoint::cpu {
namespace {

template <class T>
class AttentionBackward {
 public:
  // The mask of `a`, where it is added, and lse are of type T.
  explicit AttentionBackward(const backend::AttentionBackwardArgs& a)
      : a_(a),
        z_(a.q, a.v),
        parts_(a, kKeys),
        scale_(static_cast<T>(a.scale)),
        block_(queryBlock<T>(kQueries)) {}

  void run() const {
    parts_.run(
        scratch(),
        [&](Pieces<T> pieces, const Block<T>& dq, int64_t index, int64_t begin, int64_t end) {
          keys(pieces, dq, index, begin, end);
        },
        [&](int64_t index, int64_t begin, int64_t rows, const Block<T>& dq) {
          z_.write(a_.dq, index, begin, rows, dq.data, dq.stride);
        });
  }

 private:
  static constexpr int64_t kQueries = 140, kKeys = 64;

  int64_t scratch() const {
    const int64_t d = z_.d, dv = z_.dv, tq = z_.tq;
    return PackedMatrix<T>::elements(d, tq) + PackedMatrix<T>::elements(dv, tq) +
           PackedMatrix<T>::elements(kKeys, d) + PackedMatrix<T>::elements(kKeys, dv) +
           PackedMatrix<T>::elements(d, kKeys) + Block<T>::elements(kKeys, d) +
           Block<T>::elements(kKeys, dv) + 2 * Block<T>::elements(block_, kKeys) + lineAligned(tq) +
           convertedElements(a_.q) + convertedElements(a_.dy) + convertedElements(a_.y) +
           convertedElements(a_.k) + convertedElements(a_.v);
  }

  // dk and dv of keys begin..end of a head, and what they bring to dq.
  void keys(Pieces<T> pieces, const Block<T>& dq, int64_t index, int64_t begin, int64_t end) const {
    const int64_t first = parts_.firstQuery(begin), queries = z_.tq - first;
    const auto read = [&](const View& x, int64_t from, int64_t to) {
      return z_.read<T>(x, index, from, to, pieces.take(convertedElements(x)));
    };
    const Head<const T> q = read(a_.q, first, z_.tq), dy = read(a_.dy, first, z_.tq),
                        y = read(a_.y, first, z_.tq), k = read(a_.k, begin, end),
                        v = read(a_.v, begin, end);
    std::fill(dq.at(first), dq.at(z_.tq), T(0));
    const PackedMatrix<T> packedQ(pieces.take(PackedMatrix<T>::elements(z_.d, queries)),
                                  q.at(first), q.column, q.row, z_.d, queries);
    const PackedMatrix<T> packedDy(pieces.take(PackedMatrix<T>::elements(z_.dv, queries)),
                                   dy.at(first), dy.column, dy.row, z_.dv, queries);
    T* delta = pieces.take(queries);
    attentionKernels<T>().rowDots(delta, dy.at(first), dy.row, dy.column, y.at(first), y.row,
                                  y.column, queries, z_.dv);
    const Operands all{q, dy, k, v, first, packedQ, packedDy, delta};
    for (int64_t j = begin; j < end; j += kKeys) {
      if (j + kKeys >= end) parts_.prefetchQueries(index);
      keyBlock(pieces, dq, index, j, std::min(kKeys, end - j), all);
    }
  }

  struct Operands {
    const Head<const T>&q, &dy, &k, &v;
    int64_t first;  // of the queries that the rest is made of
    const PackedMatrix<T>&packedQ, &packedDy;
    const T* delta;
  };

  void keyBlock(Pieces<T> pieces, const Block<T>& dq, int64_t index, int64_t key, int64_t n,
                const Operands& in) const {
    const AttentionKernels<T>& kernels = attentionKernels<T>();
    const Head<const T>&q = in.q, &k = in.k, &v = in.v, &dy = in.dy;
    const HeadMask mask(a_.mask, z_, index);
    const T* lse = a_.lse.as<T>() + index * z_.tq;
    const PackedMatrix<T> kT(pieces.take(PackedMatrix<T>::elements(n, z_.d)), k.at(key), k.row,
                             k.column, n, z_.d);
    const PackedMatrix<T> vT(pieces.take(PackedMatrix<T>::elements(n, z_.dv)), v.at(key), v.row,
                             v.column, n, z_.dv);
    const PackedMatrix<T> packedK(pieces.take(PackedMatrix<T>::elements(z_.d, n)), k.at(key),
                                  k.column, k.row, z_.d, n);
    const Block<T> dk = pieces.block(n, z_.d), dv = pieces.block(n, z_.dv),
                   p = pieces.block(block_, kKeys), ds = pieces.block(block_, kKeys);
    // Where they go is fetched while they are computed.
    z_.prefetch(a_.dk, index, key, n);
    z_.prefetch(a_.dv, index, key, n);
    std::fill(dk.at(0), dk.at(n), T(0));
    std::fill(dv.at(0), dv.at(n), T(0));
    for (int64_t i = parts_.firstQuery(key), rows; i < z_.tq; i += rows) {
      rows = std::min(block_, z_.tq - i);
      const int64_t packedRow = i - in.first;
      // Where the diagonal of a causal mask passes, tiles of rows, of which each sees as many keys
      // as its last row.
      const bool isDiagonal = a_.isCausal && i < key + n;
      const int64_t tile = isDiagonal ? gemmKernels<T>().rows : block_;
      for (int64_t r = 0; r < rows; r += tile) {
        const int64_t m = std::min(tile, rows - r), row = i + r;
        const int64_t seen = isDiagonal ? std::min(n, row + m - key) : n, columns = kT.upTo(seen);
        kT.multiply(p.at(r), p.stride, m, columns, z_.d, q.at(row), q.row, q.column, 0, 0, false);
        vT.multiply(ds.at(r), ds.stride, m, columns, z_.dv, dy.at(row), dy.row, dy.column, 0, 0,
                    false);
        // Zeros as far as a tile of keys reads.
        const int64_t written = isDiagonal ? std::min(n, seen + tile) : n;
        ScoreBlock<T> block{p.at(r), p.stride, m, written, a_.isCausal ? row + 1 - key : n, scale_};
        mask.apply(block, row, key);
        kernels.backward(block, ds.at(r), scale_, lse + row, in.delta + packedRow + r);
        packedK.multiply(dq.at(row), dq.stride, m, z_.d, seen, ds.at(r), ds.stride, 1, 0, 0, true);
      }
      // dv += p^T dy; dk += ds^T q
      const int64_t seen = isDiagonal ? std::min(n, i + rows - key) : n;
      const int64_t keyTile = isDiagonal ? tile : seen;
      for (int64_t c = 0; c < seen; c += keyTile) {
        const int64_t m = std::min(keyTile, seen - c);
        const int64_t r = isDiagonal ? std::max<int64_t>(0, key + c - i) : 0;
        in.packedDy.multiply(dv.at(c), dv.stride, m, z_.dv, rows - r, p.at(r) + c, 1, p.stride,
                             packedRow + r, 0, true);
        in.packedQ.multiply(dk.at(c), dk.stride, m, z_.d, rows - r, ds.at(r) + c, 1, ds.stride,
                            packedRow + r, 0, true);
      }
    }
    z_.write(a_.dk, index, key, n, dk.data, dk.stride);
    z_.write(a_.dv, index, key, n, dv.data, dv.stride);
  }

  const backend::AttentionBackwardArgs& a_;
  AttentionSizes z_;
  KeyParts<T> parts_;
  T scale_;
  int64_t block_;
};

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

void attentionBackward(const AttentionBackwardArgs& a) {
  using namespace cpu;
  const AttentionInputs in("attentionBackward", a.q, a.k, a.v, a.mask);
  const int64_t tq = a.q.size[2], tk = a.k.size[2], d = a.q.size[3], dv = a.v.size[3];
  in.check("dq", a.dq, tq, d);
  in.check("dk", a.dk, tk, d);
  in.check("dv", a.dv, tk, dv);
  in.check("dy", a.dy, tq, dv);
  in.check("y", a.y, tq, dv);
  const ComputeInput lse(a.lse, Layout::dense);
  in.checkStatistics(lse.view());
  AttentionBackwardArgs computed = a;
  computed.lse = lse.view();
  computed.mask = in.mask();
  const AttentionPairsKernels* pairs = attentionPairs();
  if (a.q.dtype == DType::bfloat16 && pairs) return attentionPairsBackward(*pairs, computed);
  visitFloat(a.q.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    AttentionBackward<T>(computed).run();
  });
}

}  // namespace adjoint::backend
