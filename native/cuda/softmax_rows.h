// Softmax along the last axis of dense tensors (softmax_rows.cu): rows that fit into registers.
#pragma once
#include "contract.h"

namespace adjoint::cuda {

// Whether the views have this form; then the result is queued.
bool softmaxRows(const View& y, const View& x, int axis, bool logarithm);
bool softmaxRowsBackward(const View& dx, const View& dy, const View& y, int axis, bool logarithm);

}  // namespace adjoint::cuda
