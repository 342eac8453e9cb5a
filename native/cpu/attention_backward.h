// What the backward passes of attention share: the walk over parts of the keys, whose tasks give dk
// and dv of a part, and what it brings to dq.
#pragma once
#include "cpu/attention.h"

namespace adjoint::cpu {

template <class T>
class KeyParts {
 public:
  // Keys of a head are taken `block` at a time.
  KeyParts(const backend::AttentionBackwardArgs& a, int64_t block)
      : a_(a),
        z_(a.q, a.v),
        part_(z_.part(z_.tk, kFewestKeys, block)),
        parts_(std::max<int64_t>(1, ceilDivide(z_.tk, part_))) {}

  // Calls keys(pieces, dq, index of the head, begin, end), with `scratch` elements of memory and a
  // block for dq [Tq, D], of which rows from firstQuery(begin) on are to be set; and
  // write(index, begin, rows, dq of these rows) when they are complete.
  template <class F, class G>
  void run(int64_t scratch, const F& keys, const G& write) const {
    const int64_t grain = z_.grain(4.0 * z_.tq * part_);
    const int64_t sum = Block<T>::elements(z_.tq, z_.d);
    Workspace sums(parts_ > 1 ? z_.count() * parts_ * sum * sizeof(T) : 0);
    parallelFor(z_.count() * parts_, grain, [&](int64_t begin, int64_t end) {
      Workspace space((sum + scratch) * sizeof(T));
      for (int64_t i = begin; i < end; i++) {
        Pieces<T> pieces(space.as<T>());
        Block<T> dq = pieces.block(z_.tq, z_.d);
        if (parts_ > 1) dq.data = sums.as<T>() + i * sum;
        const int64_t key = i % parts_ * part_;
        keys(pieces, dq, i / parts_, key, std::min(z_.tk, key + part_));
        if (parts_ == 1) write(i, 0, z_.tq, dq);
      }
    });
    if (parts_ > 1) combine(sums.as<T>(), sum, write);
  }

  // Asks for where dq goes: the last block of keys is still to come.
  void prefetchQueries(int64_t index) const {
    if (parts_ == 1) z_.prefetch(a_.dq, index, 0, z_.tq);
  }
  // The rows of dq that keys from `key` on contribute to.
  int64_t firstQuery(int64_t key) const { return a_.isCausal ? std::min(key, z_.tq) : 0; }

 private:
  static constexpr int64_t kFewestKeys = 256, kRowsPerSum = 256;

  // Adds up what the parts of the keys bring to dq, in their order.
  template <class G>
  void combine(T* sums, int64_t sum, const G& write) const {
    const int64_t cuts = ceilDivide(z_.tq, kRowsPerSum);
    parallelFor(z_.count() * cuts, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; i++) {
        const int64_t index = i / cuts, begin = i % cuts * kRowsPerSum;
        const int64_t end = std::min(z_.tq, begin + kRowsPerSum);
        const Block<T> total{sums + index * parts_ * sum, lineAligned(z_.d)};
        for (int64_t t = 1; t < parts_; t++) {
          const Block<T> part{total.data + t * sum, total.stride};
          const int64_t from = std::min(end, std::max(begin, firstQuery(t * part_)));
          const T* source = part.at(from);
          T* target = total.at(from);
          for (int64_t e = 0; e < (end - from) * total.stride; e++) target[e] += source[e];
        }
        write(index, begin, end - begin, {total.at(begin), total.stride});
      }
    });
  }

  const backend::AttentionBackwardArgs& a_;
  AttentionSizes z_;
  int64_t part_, parts_;
};

}  // namespace adjoint::cpu
