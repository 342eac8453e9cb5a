// The checks of cross-entropy's arrays.
#pragma once
#include <initializer_list>

#include "shared/error.h"
#include "shared/view.h"

namespace adjoint {

// logits [N, C], int64 targets [N]; perRow: tensors [N]
inline void checkLossArguments(const char* name, const View& logits, const View& target,
                               std::initializer_list<const View*> perRow) {
  if (!isFloating(logits.dtype) || target.dtype != DType::int64) {
    fail(ErrorKind::dtype, "%s: expected floating-point logits and int64 targets, got %s and %s",
         name, dtypeName(logits.dtype), dtypeName(target.dtype));
  }
  const auto isPerRow = [&](const View& v) { return v.ndim == 1 && v.size[0] == logits.size[0]; };
  bool fits = logits.ndim == 2 && isPerRow(target);
  for (const View* v : perRow) fits = fits && isPerRow(*v);
  if (!fits) fail(ErrorKind::shape, "%s: expected logits [N, C], targets and losses [N]", name);
}

}  // namespace adjoint
