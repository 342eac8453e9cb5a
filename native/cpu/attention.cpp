// Attention blocked over the sequence (Dao et al. 2022): a block of queries meets one block of keys
// after the other, with an online softmax, so that of the scores only one block is ever held.
#include "cpu/attention.h"

#include <limits>

#include "cpu/attention_pairs.h"
#include "cpu/pool.h"

namespace adjoint::cpu {

template <>
const AttentionKernels<float>& attentionKernels<float>() {
  return attentionTable().f32;
}
template <>
const AttentionKernels<double>& attentionKernels<double>() {
  return attentionTable().f64;
}

namespace {

template <class T>
class AttentionForward {
 public:
  AttentionForward(const View& y, const View& lse, const View& q, const View& k, const View& v,
                   const View* mask, double scale, bool isCausal)
      : z_(q, v),
        y_(y),
        lse_(lse),
        q_(q),
        k_(k),
        v_(v),
        mask_(mask),
        scale_(static_cast<T>(scale)),
        isCausal_(isCausal),
        block_(queryBlock<T>(kQueries)) {}

  void run() const {
    forEachQueryPart<T>(z_, block_, blocks() + packed() + converted(),
                        [&](T* space, int64_t index, int64_t begin, int64_t end) {
                          task(space, index, begin, end);
                        });
  }

 private:
  // Scores of a block, and the packed keys and values it meets, stay in the L1 cache.
  static constexpr int64_t kQueries = 32, kKeys = 256;

  int64_t paddedValues() const { return lineAligned(z_.dv); }
  // Elements of scratch memory: for scores and sums of a block, the packed head, and the head of
  // half types.
  int64_t blocks() const { return 2 * lineAligned(block_ * std::max(kKeys, paddedValues())); }
  int64_t packed() const {
    return PackedMatrix<T>::elements(z_.tk, z_.d) + PackedMatrix<T>::elements(z_.dv, z_.tk);
  }
  int64_t converted() const {
    return convertedElements(q_) + convertedElements(k_) + convertedElements(v_);
  }

  // Queries begin..end of a head.
  void task(T* space, int64_t index, int64_t begin, int64_t end) const {
    const int64_t keys = isCausal_ ? std::min(z_.tk, end) : z_.tk;
    T* packedKeys = space + blocks();
    T *qSpace = packedKeys + packed(), *kSpace = qSpace + convertedElements(q_);
    T* vSpace = kSpace + convertedElements(k_);
    const Head<const T> q = z_.read<T>(q_, index, begin, end, qSpace),
                        k = z_.read<T>(k_, index, 0, keys, kSpace),
                        v = z_.read<T>(v_, index, 0, keys, vSpace);
    T* packedValues = packedKeys + PackedMatrix<T>::elements(z_.tk, z_.d);
    const PackedMatrix<T> kT(packedKeys, k.data, k.row, k.column, keys, z_.d);
    const PackedMatrix<T> values(packedValues, v.data, v.column, v.row, z_.dv, keys);
    for (int64_t i = begin; i < end; i += block_) {
      queries(space, index, i, std::min(end, i + block_), q, kT, values);
    }
  }

  void queries(T* space, int64_t index, int64_t begin, int64_t end, const Head<const T>& q,
               const PackedMatrix<T>& kT, const PackedMatrix<T>& values) const {
    constexpr int64_t kMostRows = 64;
    const AttentionKernels<T>& kernels = attentionKernels<T>();
    const HeadMask mask(mask_, z_, index);
    const int64_t rows = end - begin, width = paddedValues();
    T *s = space, *o = space + lineAligned(block_ * std::max(kKeys, width));
    T m[kMostRows];
    double l[kMostRows] = {};
    std::fill_n(m, rows, -std::numeric_limits<T>::infinity());
    const int64_t keys = isCausal_ ? std::min(z_.tk, end) : z_.tk;
    if (keys == 0) std::fill_n(o, rows * width, T(0));
    for (int64_t j = 0; j < keys; j += kKeys) {
      const int64_t n = std::min(kKeys, keys - j);
      // Rows of a tile see as many keys as the last of them.
      const int64_t tile = isCausal_ ? gemmKernels<T>().rows : rows;
      const auto seenBy = [&](int64_t row) {
        return isCausal_ ? std::min(n, std::max<int64_t>(0, begin + row + tile - j)) : n;
      };
      for (int64_t r = 0; r < rows; r += tile) {
        kT.multiply(s + r * kKeys, kKeys, std::min(tile, rows - r), kT.upTo(j + seenBy(r)) - j,
                    z_.d, q.at(begin + r), q.row, q.column, 0, j, false);
      }
      ScoreBlock<T> block{s, kKeys, rows, n, isCausal_ ? begin + 1 - j : n, scale_};
      mask.apply(block, begin, j);
      kernels.accumulate(block, m, l, j > 0 ? o : nullptr, width, z_.dv);
      for (int64_t r = 0; r < rows; r += tile) {
        values.multiply(o + r * width, width, std::min(tile, rows - r), z_.dv, seenBy(r),
                        s + r * kKeys, kKeys, 1, j, 0, j > 0);
      }
    }
    kernels.finish(o, width, rows, z_.dv, m, l, lse_.as<T>() + index * z_.tq + begin);
    z_.write(y_, index, begin, rows, o, width);
  }

  AttentionSizes z_;
  const View &y_, &lse_, &q_, &k_, &v_, *mask_;
  T scale_;
  bool isCausal_;
  int64_t block_;
};

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

void attention(const View& y, const View& lse, const View& q, const View& k, const View& v,
               const View* mask, double scale, bool isCausal) {
  using namespace cpu;
  const AttentionInputs in("attention", q, k, v, mask);
  in.check("y", y, q.size[2], v.size[3]);
  in.checkStatistics(lse);
  const AttentionPairsKernels* pairs = attentionPairs();
  if (q.dtype == DType::bfloat16 && pairs) {
    return attentionPairsForward(*pairs, y, lse, q, k, v, in.mask(), scale, isCausal);
  }
  visitFloat(q.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    AttentionForward<T>(y, lse, q, k, v, in.mask(), scale, isCausal).run();
  });
}

}  // namespace adjoint::backend
