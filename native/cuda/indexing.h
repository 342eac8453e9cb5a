// What embedding shares with indexing.
#pragma once
#include "shared/view.h"

namespace adjoint::cuda {

void checkIndexType(const char* op, const View& index);

// y[.., i, ..] = x[.., index[.., i, ..], ..]; errors name `op`.
void gatherAlong(const char* op, const View& y, const View& x, const View& index, int axis);
// The same with index [n], for whole slices of x.
void selectAlong(const char* op, const View& y, const View& x, const View& index, int axis);

}  // namespace adjoint::cuda
