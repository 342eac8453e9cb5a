// Views as matrices.
#pragma once
#include <utility>

#include "view.h"

namespace adjoint {

// x [M, N] as [N, M]
inline View transposed(const View& x) {
  View t = x;
  std::swap(t.size[0], t.size[1]);
  std::swap(t.stride[0], t.stride[1]);
  return t;
}

// x [N] as [1, N], such as the sum of a matrix over its rows is.
inline View asRow(const View& x) {
  View row = x;
  row.ndim = 2;
  row.size[0] = 1;
  row.size[1] = x.size[0];
  row.stride[0] = 0;
  row.stride[1] = x.stride[0];
  return row;
}

}  // namespace adjoint
