// gather, scatterAdd, indexSelect, indexAdd and accumulateOverlapping against naive loops.
#include <algorithm>

#include "cuda/sort.h"
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class IndexingOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(IndexingOnDevice);

int64_t numel(const Sizes& sizes) {
  int64_t n = 1;
  for (int64_t s : sizes) n *= s;
  return n;
}

// The number in `sizes` of element i of `shape`, with the coordinate along `axis` replaced.
size_t replaced(const Sizes& shape, const Sizes& sizes, int64_t i, int axis, double place) {
  int64_t number = 0, factor = 1;
  for (int a = static_cast<int>(shape.size()) - 1; a >= 0; a--) {
    const auto k = static_cast<size_t>(a);
    number += (a == axis ? static_cast<int64_t>(place) : i % shape[k]) * factor;
    i /= shape[k];
    factor *= sizes[k];
  }
  return static_cast<size_t>(number);
}
int64_t coordinate(const Sizes& shape, int64_t i, int axis) {
  for (size_t a = shape.size() - 1; a > static_cast<size_t>(axis); a--) i /= shape[a];
  return i % shape[static_cast<size_t>(axis)];
}

Values indices(int64_t n, int64_t bound) {
  Values values;
  for (int64_t i = 0; i < n; i++) values.push_back(static_cast<double>(i * i * 7919 % bound));
  return values;
}
Values wholeNumbers(int64_t n, int64_t bound = 11) {
  Values values;
  for (int64_t i = 0; i < n; i++) values.push_back(static_cast<double>(i % bound));
  return values;
}

// Gathers and adds along an axis; `fits`: whether sums stay exact in the dtype.
void expectGathered(DType dtype, const Sizes& shape, const Sizes& picked, int axis) {
  const int64_t n = numel(picked);
  const Values x = wholeNumbers(numel(shape)), source = wholeNumbers(n, 3);
  const Values index = indices(n, shape[static_cast<size_t>(axis)]);
  Values wantY, wantSum = x;
  for (int64_t i = 0; i < n; i++) {
    const size_t at = replaced(picked, shape, i, axis, index[static_cast<size_t>(i)]);
    wantY.push_back(x[at]);
    wantSum[at] += source[static_cast<size_t>(i)];
  }
  const DeviceTensor from(dtype, shape, x), places(DType::int64, picked, index);
  const DeviceTensor y = DeviceTensor::empty(dtype, picked), sum(dtype, shape, x);
  backend::gather(y, from, places, axis);
  EXPECT_EQ(y.read(), wantY);
  backend::scatterAdd(sum, places, DeviceTensor(dtype, picked, source), axis);
  EXPECT_EQ(sum.read(), wantSum) << dtypeName(dtype) << " axis " << axis;
}

TEST_P(IndexingOnDevice, gatherAndScatterAddAlongEveryAxis) {
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16, DType::int64,
                      DType::int32, DType::int16, DType::uint8}) {
    for (const Sizes& shape : std::vector<Sizes>{{9}, {5, 7}, {3, 4, 20}}) {
      for (int axis = 0; axis < static_cast<int>(shape.size()); axis++) {
        Sizes picked = shape;
        picked[0]--;  // other axes may be shorter
        picked[static_cast<size_t>(axis)] = 13;
        expectGathered(dtype, shape, picked, axis);
      }
    }
  }
}

// Long lines of indices are sorted: runs within a tile and over many tiles.
TEST_P(IndexingOnDevice, scatterAddOfManyIndices) {
  for (int64_t places : {1, 7, 300, 5000}) {
    expectGathered(DType::float32, {places}, {3000}, 0);
    expectGathered(DType::int16, {places}, {700}, 0);
    expectGathered(DType::float64, {2, places}, {2, 200}, 1);
    expectGathered(DType::float32, {places, 3}, {130, 3}, 0);
  }
}

TEST_P(IndexingOnDevice, indexSelectAndIndexAddAlongEveryAxis) {
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::int64, DType::int8}) {
    for (const Sizes& shape : std::vector<Sizes>{{9}, {5, 64}, {6, 4, 7}, {4, 6}}) {
      for (int axis = 0; axis < static_cast<int>(shape.size()); axis++) {
        for (int64_t count : {0, 1, 20, 70}) {
          Sizes picked = shape;
          picked[static_cast<size_t>(axis)] = count;
          const Values x = wholeNumbers(numel(shape)), source = wholeNumbers(numel(picked), 2);
          const Values index = indices(count, shape[static_cast<size_t>(axis)]);
          Values wantY, wantSum = x;
          for (int64_t i = 0; i < numel(picked); i++) {
            const double place = index[static_cast<size_t>(coordinate(picked, i, axis))];
            const size_t at = replaced(picked, shape, i, axis, place);
            wantY.push_back(x[at]);
            wantSum[at] += source[static_cast<size_t>(i)];
          }
          const DeviceTensor from(dtype, shape, x), places(DType::int64, {count}, index);
          const DeviceTensor y = DeviceTensor::empty(dtype, picked), sum(dtype, shape, x);
          backend::indexSelect(y, from, places, axis);
          EXPECT_EQ(y.read(), wantY);
          backend::indexAdd(sum, places, DeviceTensor(dtype, picked, source), axis);
          EXPECT_EQ(sum.read(), wantSum) << dtypeName(dtype) << " axis " << axis;
        }
      }
    }
  }
}

// Rows of 16, 8, 4, 2 and 1 bytes at a time, and rows that start between those.
TEST_P(IndexingOnDevice, rowsOfEveryWidth) {
  for (DType dtype : {DType::float64, DType::float32, DType::float16, DType::boolean}) {
    for (int64_t columns : {1, 2, 3, 4, 6, 8, 12, 16, 48}) {
      for (int64_t offset : {0, 1, 2}) {
        const int64_t stride = columns + 2 * offset;
        DeviceTensor x(dtype, {7, columns}, {stride, 1}, offset,
                       static_cast<size_t>(7 * stride + offset));
        Values values = wholeNumbers(7 * columns, 2);
        backend::copy(x, DeviceTensor(dtype, {7, columns}, values));
        const Values index = indices(50, 7);
        const DeviceTensor y = DeviceTensor::empty(dtype, {50, columns});
        backend::indexSelect(y, x, DeviceTensor(DType::int64, {50}, index), 0);
        Values want;
        for (int64_t i = 0; i < 50 * columns; i++) {
          const auto row = static_cast<int64_t>(index[static_cast<size_t>(i / columns)]);
          want.push_back(values[static_cast<size_t>(row * columns + i % columns)]);
        }
        EXPECT_EQ(y.read(), want);
      }
    }
  }
}

TEST_P(IndexingOnDevice, stridedOperands) {
  const Values values = wholeNumbers(8 * 20, 97), index = indices(160, 20);
  const DeviceTensor x = DeviceTensor(DType::float32, {8, 20}, values).permuted({1, 0});
  // Every second index.
  DeviceTensor places(DType::int64, {80}, {2}, 0, 160);
  backend::copy(places,
                DeviceTensor(DType::int64, {80}, Values(index.begin(), index.begin() + 80)));
  const DeviceTensor y(DType::float32, {80, 8}, {1, 80}, 0, 640);
  backend::indexSelect(y, x, places, 0);
  Values wantY, wantSum(160, 0);
  for (size_t i = 0; i < 640; i++) {
    const auto row = static_cast<size_t>(index[i / 8]);
    wantY.push_back(values[i % 8 * 20 + row]);
    wantSum[row * 8 + i % 8] += wantY.back();
  }
  EXPECT_EQ(y.read(), wantY);
  const DeviceTensor sum = DeviceTensor(DType::float32, {8, 20}, Values(160, 0)).permuted({1, 0});
  backend::indexAdd(sum, places, y, 0);
  EXPECT_EQ(sum.read(), wantSum);
  // An index that is expanded over one of the other axes, and varies along the third.
  DeviceTensor expanded(DType::int64, {3, 70, 4}, indices(3 * 70 * 4, 5));
  expanded.view.stride[2] = 0;
  const Values source = wholeNumbers(3 * 70 * 4, 3), flat = expanded.read();
  Values want(3 * 5 * 4, 0);
  for (size_t i = 0; i < source.size(); i++) {
    want[(i / 280 * 5 + static_cast<size_t>(flat[i])) * 4 + i % 4] += source[i];
  }
  const DeviceTensor target(DType::float32, {3, 5, 4}, Values(60, 0));
  backend::scatterAdd(target, expanded, DeviceTensor(DType::float32, {3, 70, 4}, source), 1);
  EXPECT_EQ(target.read(), want);
}

TEST_P(IndexingOnDevice, emptyAndZeroDimensional) {
  const DeviceTensor x(DType::float32, {}, {3}), y(DType::float32, {}, {1});
  const DeviceTensor zero(DType::int64, {}, {0});
  backend::gather(y, x, zero, 0);
  EXPECT_EQ(y.read(), Values{3});
  backend::scatterAdd(x, zero, y, 0);
  EXPECT_EQ(x.read(), Values{6});
  const DeviceTensor none = DeviceTensor::empty(DType::int64, {0, 3});
  const DeviceTensor rows = DeviceTensor::empty(DType::float32, {0, 3});
  const DeviceTensor table(DType::float32, {2, 3}, wholeNumbers(6));
  backend::gather(rows, table, none, 0);
  backend::scatterAdd(table, none, rows, 0);
  EXPECT_EQ(table.read(), wholeNumbers(6));
  const DeviceTensor index(DType::int64, {1}, {0});
  const DeviceTensor narrow = DeviceTensor::empty(DType::float32, {1, 0});
  const DeviceTensor noColumns = DeviceTensor::empty(DType::float32, {2, 0});
  backend::indexSelect(narrow, noColumns, index, 0);
  backend::indexAdd(noColumns, index, narrow, 0);
  backend::synchronize();
}

TEST_P(IndexingOnDevice, badIndicesAreErrors) {
  const DeviceTensor x(DType::float32, {4, 3}, wholeNumbers(12));
  const DeviceTensor y(DType::float32, {2, 3}, Values(6, 1));
  const DeviceTensor many(DType::float32, {100, 3}, Values(300, 1));
  for (int64_t bad : {int64_t{-1}, int64_t{4}, INT64_MAX, INT64_MIN}) {
    Values full(6, 0), long100(100, 0);
    full[5] = long100[77] = static_cast<double>(bad);
    const DeviceTensor index(DType::int64, {2}, {0, full[5]}), all(DType::int64, {2, 3}, full);
    const DeviceTensor sorted(DType::int64, {100}, long100);
    backend::indexSelect(y, x, index, 0);
    EXPECT_THROW(backend::synchronize(), Error);
    backend::gather(y, x, all, 0);
    EXPECT_THROW(backend::synchronize(), Error);
    backend::scatterAdd(x, all, y, 0);
    EXPECT_THROW(backend::synchronize(), Error);
    backend::indexAdd(x, index, y, 0);
    EXPECT_THROW(backend::synchronize(), Error);
    backend::indexAdd(x, sorted, many, 0);
    EXPECT_THROW(backend::synchronize(), Error);
  }
  const DeviceTensor narrow(DType::int32, {2}, {0, 0}), wide(DType::int64, {2, 9}, Values(18, 0));
  const DeviceTensor other = DeviceTensor::empty(DType::float64, {2, 3});
  const DeviceTensor target = DeviceTensor::empty(DType::float32, {2, 9});
  const DeviceTensor all(DType::int64, {2, 3}, Values(6, 0));
  EXPECT_THROW(backend::indexSelect(y, x, narrow, 0), Error);
  EXPECT_THROW(backend::gather(other, x, all, 0), Error);
  EXPECT_THROW(backend::gather(target, x, wide, 0), Error);
}

// y[i + j] += x[i, j], and other views whose elements share places
TEST_P(IndexingOnDevice, accumulateOverlapping) {
  struct Case {
    Sizes sizes, strides;
    int64_t offset;
  };
  const Case cases[] = {{{8, 3}, {1, 1}, 0},        {{100, 50}, {1, 1}, 2}, {{40}, {0}, 7},
                        {{6, 5}, {5, 1}, 3},        {{5, 6}, {1, 5}, 0},    {{9, 4}, {-1, 2}, 30},
                        {{2, 30, 3}, {0, 2, 1}, 1}, {{1}, {1}, 0},          {{0, 3}, {1, 1}, 0}};
  for (DType dtype : {DType::float32, DType::float16, DType::int32}) {
    for (const Case& c : cases) {
      const int64_t n = numel(c.sizes);
      const Values values = wholeNumbers(n, 3);
      Values want(200, 1);
      for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, at = c.offset;
        for (size_t axis = c.sizes.size(); axis-- > 0; rest /= c.sizes[axis]) {
          at += rest % c.sizes[axis] * c.strides[axis];
        }
        want[static_cast<size_t>(at)] += values[static_cast<size_t>(i)];
      }
      const DeviceTensor whole(dtype, {200}, Values(200, 1)), x(dtype, c.sizes, values);
      View y = whole.view;
      y.ndim = static_cast<int>(c.sizes.size());
      for (size_t axis = 0; axis < c.sizes.size(); axis++) {
        y.size[axis] = c.sizes[axis];
        y.stride[axis] = c.strides[axis];
      }
      y.data = static_cast<char*>(y.data) + c.offset * static_cast<int64_t>(itemSize(dtype));
      backend::accumulateOverlapping(y, x);
      EXPECT_EQ(whole.read(), want);
    }
  }
}

// Half types are rounded once, however many terms there are.
TEST_P(IndexingOnDevice, sumsOfHalfTypesAreFormedInFloat32) {
  const DeviceTensor y(DType::bfloat16, {2, 2}, Values(4, 0));
  const DeviceTensor source(DType::bfloat16, {300, 2}, Values(600, 1));
  backend::indexAdd(y, DeviceTensor(DType::int64, {300}, Values(300, 1)), source, 0);
  EXPECT_EQ(y.read(), (Values{0, 0, 300, 300}));
  const DeviceTensor z(DType::bfloat16, {1}, {0});
  backend::scatterAdd(z, DeviceTensor(DType::int64, {40}, Values(40, 0)),
                      DeviceTensor(DType::bfloat16, {40}, Values(40, 257.0 / 256)), 0);
  EXPECT_EQ(z.read(), Values{40});
}

// The same bits each time: sums do not depend on which thread comes first.
TEST_P(IndexingOnDevice, sumsAreRepeatable) {
  static Values first[2];
  Values values = randomValues(2000 * 5, -1, 1);
  for (size_t i = 0; i < values.size(); i++) values[i] *= std::exp(static_cast<double>(i % 13));
  for (int64_t places : {3, 900}) {
    const DeviceTensor y(DType::float32, {places, 5}, Values(static_cast<size_t>(places * 5), 0));
    backend::indexAdd(y, DeviceTensor(DType::int64, {2000}, indices(2000, places)),
                      DeviceTensor(DType::float32, {2000, 5}, values), 0);
    const Values sums = y.read();
    Values& before = first[places > 3];
    if (before.empty()) before = sums;
    EXPECT_EQ(sums, before);
  }
}

TEST_P(IndexingOnDevice, sortIsStable) {
  for (int64_t n : {1, 2, 1000, 20000}) {
    for (int bits : {1, 5, 31}) {
      Values keys, values;
      for (int64_t i = 0; i < n; i++) {
        keys.push_back(static_cast<double>(i * i * 7919 % ((int64_t(1) << bits) - 1)));
        values.push_back(static_cast<double>(i));
      }
      const DeviceTensor k(DType::int32, {n}, keys), v(DType::int32, {n}, values);
      const DeviceTensor sortedK = DeviceTensor::empty(DType::int32, {n});
      const DeviceTensor sortedV = DeviceTensor::empty(DType::int32, {n});
      cuda::sortPairs({k.view.as<uint32_t>(), v.view.as<uint32_t>(), sortedK.view.as<uint32_t>(),
                       sortedV.view.as<uint32_t>(), n, bits},
                      cuda::stream());
      Values order = values;
      std::stable_sort(order.begin(), order.end(), [&](double a, double b) {
        return keys[static_cast<size_t>(a)] < keys[static_cast<size_t>(b)];
      });
      EXPECT_EQ(sortedV.read(), order);
      std::stable_sort(keys.begin(), keys.end());
      EXPECT_EQ(sortedK.read(), keys);
    }
  }
}

}  // namespace
}  // namespace adjoint::test
