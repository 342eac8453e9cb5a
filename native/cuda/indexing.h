// What embedding shares with indexing.
#pragma once
#include "shared/index_views.h"

namespace adjoint::cuda {

// y[.., i, ..] = x[.., index[.., i, ..], ..]; errors name `op`.
void gatherAlong(const char* op, const View& y, const View& x, const View& index, int axis);
// The same with index [n], for whole slices of x.
void selectAlong(const char* op, const View& y, const View& x, const View& index, int axis);

}  // namespace adjoint::cuda
