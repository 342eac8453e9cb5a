// A run of attention and its gradients, and what the formula says in float64, with the whole matrix
// of scores.
#pragma once
#include <string>

#include "device_tensor.h"

namespace adjoint::test {

class AttentionOnDevice : public Device {};

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

inline std::string describe(const Case& c) {
  std::string text;
  for (int64_t n : {c.b, c.h, c.tq, c.tk, c.d, c.e}) text += std::to_string(n) + " ";
  return text + dtypeName(c.dtype) + ", mask " + std::to_string(static_cast<int>(c.mask)) +
         ", placement " + std::to_string(static_cast<int>(c.placement));
}

inline DeviceTensor place(const Case& c, int64_t t, int64_t d, const Values* values = nullptr) {
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

}  // namespace adjoint::test
