// Rows of a table by index, and the gradient of the table. The places of an index's rows are
// sorted by the index first, so that each row of the gradient is written once, by one task, as the
// sum of its rows in their order: many equal indices, and tables far larger than the batch, are
// neither slow nor a matter of chance.
#include <memory>

#include "contract.h"
#include "cpu/blocks.h"
#include "cpu/compute_view.h"
#include "cpu/kernels/elementwise.h"
#include "shared/index_views.h"

namespace adjoint::cpu {
namespace {

// Columns that a task adds up at once: short rows would leave the threads unequal work.
constexpr int64_t kColumns = 128;

int64_t indexAt(const View& index, int64_t i) {
  return index.as<int64_t>()[i * index.stride[0]];
}

// index [N], values in [0, rows)
void checkIndices(const char* name, const View& index, int64_t rows) {
  checkIndexType(name, index);
  for (int64_t i = 0; i < index.size[0]; i++) {
    const int64_t value = indexAt(index, i);
    if (value < 0 || value >= rows) {
      fail(ErrorKind::index, "%s: expected indices in [0, %lld), got %lld", name,
           static_cast<long long>(rows), static_cast<long long>(value));
    }
  }
}

// Where each index stands: those equal to v are places[start[v]] to places[start[v + 1] - 1], in
// order (counting sort).
struct PlacesByIndex {
  std::unique_ptr<int64_t[]> start, places;

  PlacesByIndex(const View& index, int64_t rows)
      : start(new int64_t[static_cast<size_t>(rows) + 2]()),
        places(new int64_t[static_cast<size_t>(index.size[0])]) {
    // Counts stand two further on, so that the sums become the starts while places are filled.
    int64_t* next = start.get() + 1;
    for (int64_t i = 0; i < index.size[0]; i++) next[indexAt(index, i) + 1]++;
    for (int64_t v = 0; v < rows; v++) next[v + 1] += next[v];
    for (int64_t i = 0; i < index.size[0]; i++) places[next[indexAt(index, i)]++] = i;
  }
};

template <class T>
void addRows(const View& dweight, const View& dy, const PlacesByIndex& sorted,
             int64_t paddingIndex) {
  const int64_t rows = dweight.size[0], columns = dweight.size[1], count = dy.size[0];
  const auto add =
      elementwiseTable()
          .binary[static_cast<int>(std::is_same<T, double>::value ? Compute::f64 : Compute::f32)]
                 [static_cast<int>(BinaryOp::add)];
  const int64_t tiles = (columns + kColumns - 1) / kColumns;
  const int64_t work = kColumns * (1 + count / rows);  // of a tile of a row
  parallelFor(rows * tiles, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      const int64_t row = task / tiles, column = task % tiles * kColumns;
      const int64_t n = std::min(kColumns, columns - column);
      T* sum = dweight.as<T>() + row * columns + column;
      const int64_t first = sorted.start[row], last = sorted.start[row + 1];
      if (first == last || row == paddingIndex) {
        std::fill(sum, sum + n, T(0));
        continue;
      }
      const auto source = [&](int64_t i) {
        return dy.as<T>() + sorted.places[i] * columns + column;
      };
      std::memcpy(sum, source(first), static_cast<size_t>(n) * sizeof(T));
      for (int64_t i = first + 1; i < last; i++) add(sum, sum, source(i), n);
    }
  });
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void embedding(const View& y, const View& weight, const View& index) {
  checkIndices("embedding", index, weight.size[0]);
  indexSelect(y, weight, index, 0);
}

void embeddingBackward(const View& dweight, const View& dy, const View& index,
                       int64_t paddingIndex) {
  checkIndices("embeddingBackward", index, dweight.size[0]);
  if (dweight.numel() == 0) return;
  const ComputeInput rows(dy, Layout::dense);
  ComputeOutput sums(dweight, Layout::dense);
  const PlacesByIndex sorted(index, dweight.size[0]);
  visitFloat(dweight.dtype, [&](auto tag) {
    addRows<typename decltype(tag)::type>(sums.view(), rows.view(), sorted, paddingIndex);
  });
  sums.finish();
}

}  // namespace adjoint::backend
