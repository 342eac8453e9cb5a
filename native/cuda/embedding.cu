// Rows of a table by index, and the gradient of the table.
#include "contract.h"
#include "cuda/indexing.h"
#include "cuda/keyed_sum.h"

namespace adjoint::backend {

using namespace cuda;

void embedding(const View& y, const View& weight, const View& index) {
  selectAlong("embedding", y, weight, index, 0);
}

// The rows of dy are sorted by index, so that each row of the gradient is the sum of its rows in
// their order, by as many threads as there are rows: a frequent token is not slower than a rare
// one.
void embeddingBackward(const View& dweight, const View& dy, const View& index,
                       int64_t paddingIndex) {
  checkIndexType("embeddingBackward", index);
  const IndexGuard guard = indexGuard("embeddingBackward", "indices", dweight.size[0]);
  fill(dweight, Scalar::of(0.0));
  const int64_t n = index.size[0];
  if (n == 0) return;
  const auto alongRows = [](const View& v) {
    View rows = v;
    rows.ndim = 1;
    return makeWalk(makePlan<1>({&rows}, AxisOrder::rowMajor));
  };
  const auto oneRow = [](const View& v) {
    View row = v;
    row.ndim = 1;
    row.size[0] = v.size[1];
    row.stride[0] = v.stride[1];
    return row;
  };
  const View to = oneRow(dweight), from = oneRow(dy);
  const Keys keys(n, dweight.size[0]);
  keys.fillIndices(guard, index.as<int64_t>(), alongRows(index), n, paddingIndex);
  if (dweight.numel() == 0) return;
  keys.add({dweight.dtype, alongRows(dweight), alongRows(dy), makePlan<2>({&to, &from}), true});
}

}  // namespace adjoint::backend
