// What the tests of convolutions share: their cases, and the products that they sum.
#pragma once
#include <ostream>
#include <vector>

#include "contract.h"

namespace adjoint {

using backend::Conv2dShape;

struct Case {
  int64_t n, c, h, w, k, r, s;  // c and k over all groups
  Conv2dShape shape;

  int64_t p() const {
    return (h + 2 * shape.padH - shape.dilationH * (r - 1) - 1) / shape.strideH + 1;
  }
  int64_t q() const {
    return (w + 2 * shape.padW - shape.dilationW * (s - 1) - 1) / shape.strideW + 1;
  }
};

inline std::ostream& operator<<(std::ostream& out, const Case& z) {
  return out << "n " << z.n << " c " << z.c << " h " << z.h << " w " << z.w << " k " << z.k << " r "
             << z.r << " s " << z.s << " stride " << z.shape.strideH << ", " << z.shape.strideW
             << " pad " << z.shape.padH << ", " << z.shape.padW << " dilation " << z.shape.dilationH
             << ", " << z.shape.dilationW << " groups " << z.shape.groups;
}

// Calls f(y index, x index, w index) for every product that the convolution sums.
template <class F>
void forEachTap(const Case& z, F f) {
  const Conv2dShape& t = z.shape;
  const int64_t cg = z.c / t.groups, kg = z.k / t.groups, p = z.p(), q = z.q();
  for (int64_t n = 0; n < z.n; n++) {
    for (int64_t k = 0; k < z.k; k++) {
      for (int64_t i = 0; i < p * q; i++) {
        for (int64_t tap = 0; tap < cg * z.r * z.s; tap++) {
          const int64_t c = k / kg * cg + tap / (z.r * z.s);
          const int64_t row = i / q * t.strideH - t.padH + tap / z.s % z.r * t.dilationH;
          const int64_t column = i % q * t.strideW - t.padW + tap % z.s * t.dilationW;
          if (row < 0 || row >= z.h || column < 0 || column >= z.w) continue;
          f((n * z.k + k) * p * q + i, ((n * z.c + c) * z.h + row) * z.w + column,
            k * cg * z.r * z.s + tap);
        }
      }
    }
  }
}

inline const std::vector<int> kNchw = {0, 1, 2, 3}, kNhwc = {0, 2, 3, 1};

}  // namespace adjoint
