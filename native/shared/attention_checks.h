// The checks of attention's arrays.
#pragma once
#include "shared/error.h"
#include "shared/view.h"

namespace adjoint {

// Of the function `name`, whose query is q [B, H, Tq, D].
class AttentionChecks {
 public:
  AttentionChecks(const char* name, const View& q, const View& k, const View& v, const View* mask)
      : name_(name), q_(q) {
    if (!isFloating(q.dtype) || k.dtype != q.dtype || v.dtype != q.dtype) {
      fail(ErrorKind::dtype, "%s: expected q, k and v of one floating dtype, got %s, %s and %s",
           name, dtypeName(q.dtype), dtypeName(k.dtype), dtypeName(v.dtype));
    }
    if (q.ndim != 4 || k.ndim != 4 || v.ndim != 4 || k.size[3] != q.size[3] ||
        v.size[2] != k.size[2]) {
      fail(ErrorKind::shape, "%s: expected q [B, H, Tq, D], k [B, H, Tk, D] and v [B, H, Tk, E]",
           name);
    }
    check("k", k, k.size[2], q.size[3]);
    check("v", v, k.size[2], v.size[3]);
    if (!mask) return;
    View asFloat = *mask;
    if (mask->dtype == DType::boolean) asFloat.dtype = q.dtype;
    check("mask", asFloat, q.size[2], k.size[2]);
  }
  // x is [B, H, rows, columns] of q's dtype.
  void check(const char* what, const View& x, int64_t rows, int64_t columns) const {
    const int64_t expected[4] = {q_.size[0], q_.size[1], rows, columns};
    bool fits = x.dtype == q_.dtype && x.ndim == 4;
    for (int i = 0; i < 4; i++) fits = fits && x.size[i] == expected[i];
    if (!fits) {
      fail(ErrorKind::shape, "%s: expected %s of %s [%lld, %lld, %lld, %lld], got %s", name_, what,
           dtypeName(q_.dtype), static_cast<long long>(expected[0]),
           static_cast<long long>(expected[1]), static_cast<long long>(rows),
           static_cast<long long>(columns), dtypeName(x.dtype));
    }
  }
  // x is dense [B, H, Tq] of the type of computation.
  void checkStatistics(const View& lse) const {
    const DType dtype = computeDType(q_.dtype);
    bool fits = lse.dtype == dtype && lse.ndim == 3 && lse.isContiguous();
    for (int i = 0; i < 3; i++) fits = fits && lse.size[i] == q_.size[i];
    if (!fits) {
      fail(ErrorKind::shape, "%s: expected lse as dense %s [B, H, Tq], got %s", name_,
           dtypeName(dtype), dtypeName(lse.dtype));
    }
  }

 private:
  const char* name_;
  const View& q_;
};

}  // namespace adjoint
