// gather, scatterAdd, indexSelect, indexAdd and accumulateOverlapping against naive loops.
#include "kernel_test.h"

namespace adjoint::test {
namespace {

class Indexing : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Indexing);

// The number in `v` of element i of `shape`, with the coordinate along `axis` replaced by `place`.
int64_t replaced(const View& shape, const View& v, int64_t i, int axis, int64_t place) {
  int64_t number = 0, factor = 1;
  for (int a = shape.ndim - 1; a >= 0; a--) {
    number += (a == axis ? place : i % shape.size[a]) * factor;
    i /= shape.size[a];
    factor *= v.size[a];
  }
  return number;
}
int64_t coordinate(const View& shape, int64_t i, int axis) {
  for (int a = shape.ndim - 1; a > axis; a--) i /= shape.size[a];
  return i % shape.size[axis];
}

void fillIndices(Tensor& index, int64_t bound) {
  for (int64_t i = 0; i < index.numel(); i++) {
    *static_cast<int64_t*>(index.at(i)) = i * 7919 % bound;
  }
}
Tensor filled(DType dtype, const std::vector<int64_t>& shape) {
  Tensor t(dtype, shape);
  t.fill([](int64_t i) { return static_cast<double>(i % 11); });
  return t;
}

TEST_P(Indexing, GatherAndScatterAddAlongEveryAxis) {
  for (DType dtype : kAllDTypes) {
    if (dtype == DType::boolean) continue;
    for (const auto& shape : std::vector<std::vector<int64_t>>{{9}, {5, 7}, {3, 4, 70}, {600, 3}}) {
      for (int axis = 0; axis < static_cast<int>(shape.size()); axis++) {
        std::vector<int64_t> picked = shape;
        picked[static_cast<size_t>(axis)] = 13;
        picked[0] = axis == 0 ? 13 : picked[0] - 1;  // other axes may be shorter
        Tensor x = filled(dtype, shape), y(dtype, picked), index(DType::int64, picked);
        fillIndices(index, shape[static_cast<size_t>(axis)]);
        backend::gather(y.view, x.view, index.view, axis);
        for (int64_t i = 0; i < y.numel(); i++) {
          ASSERT_EQ(y.get(i), x.get(replaced(y.view, x.view, i, axis, index.integer(i))));
        }
        ASSERT_TRUE(y.isIntact());
        Tensor sum(dtype, shape), source = filled(dtype, picked);
        std::vector<double> expected(static_cast<size_t>(sum.numel()), 0);
        sum.fill([](int64_t) { return 0; });
        for (int64_t i = 0; i < index.numel(); i++) {
          expected[static_cast<size_t>(
              replaced(index.view, sum.view, i, axis, index.integer(i)))] += source.get(i);
        }
        backend::scatterAdd(sum.view, index.view, source.view, axis);
        for (int64_t i = 0; i < sum.numel(); i++) {
          ASSERT_EQ(sum.get(i), expected[static_cast<size_t>(i)]) << dtypeName(dtype);
        }
        ASSERT_TRUE(sum.isIntact());
      }
    }
  }
}

TEST_P(Indexing, IndexSelectAndIndexAddAlongEveryAxis) {
  for (DType dtype :
       {DType::float32, DType::float64, DType::bfloat16, DType::int64, DType::uint8}) {
    for (const auto& shape : std::vector<std::vector<int64_t>>{{9}, {5, 700}, {30, 4, 7}, {4, 6}}) {
      for (int axis = 0; axis < static_cast<int>(shape.size()); axis++) {
        for (int64_t count : {0, 1, 20}) {
          std::vector<int64_t> picked = shape;
          picked[static_cast<size_t>(axis)] = count;
          Tensor x = filled(dtype, shape), y(dtype, picked), index(DType::int64, {count});
          fillIndices(index, shape[static_cast<size_t>(axis)]);
          backend::indexSelect(y.view, x.view, index.view, axis);
          const auto place = [&](int64_t i) { return index.integer(coordinate(y.view, i, axis)); };
          for (int64_t i = 0; i < y.numel(); i++) {
            ASSERT_EQ(y.get(i), x.get(replaced(y.view, x.view, i, axis, place(i))));
          }
          Tensor sum = filled(dtype, shape), source = filled(dtype, picked);
          std::vector<double> expected;
          for (int64_t i = 0; i < sum.numel(); i++) expected.push_back(sum.get(i));
          for (int64_t i = 0; i < source.numel(); i++) {
            expected[static_cast<size_t>(replaced(y.view, sum.view, i, axis, place(i)))] +=
                source.get(i);
          }
          backend::indexAdd(sum.view, index.view, source.view, axis);
          for (int64_t i = 0; i < sum.numel(); i++) {
            ASSERT_EQ(sum.get(i), expected[static_cast<size_t>(i)]);
          }
          ASSERT_TRUE(y.isIntact() && sum.isIntact());
        }
      }
    }
  }
}

TEST_P(Indexing, StridedOperands) {
  Tensor x(DType::float32, {8, 20}), y(DType::float32, {6, 8}), index(DType::int64, {6});
  x.transpose(0, 1).fill([](int64_t i) { return static_cast<double>(i); });
  fillIndices(index, 20);
  backend::indexSelect(y.view, x.view, index.view, 0);
  for (int64_t i = 0; i < 48; i++) ASSERT_EQ(y.get(i), index.integer(i / 8) * 8 + i % 8);
  View reversed = index.view;  // every second index
  reversed.size[0] = 3;
  reversed.stride[0] = 2;
  Tensor half(DType::float32, {3, 8});
  backend::indexSelect(half.view, x.view, reversed, 0);
  for (int64_t i = 0; i < 24; i++) ASSERT_EQ(half.get(i), index.integer(i / 8 * 2) * 8 + i % 8);
}

TEST_P(Indexing, BadIndicesAreErrors) {
  Tensor x(DType::float32, {4, 3}), y(DType::float32, {2, 3}), index(DType::int64, {2}),
      full(DType::int64, {2, 3});
  x.fill([](int64_t i) { return static_cast<double>(i); });
  y.fill([](int64_t) { return 1; });
  for (int64_t bad : {int64_t{-1}, int64_t{4}, INT64_MAX, INT64_MIN}) {
    index.data<int64_t>()[0] = 0;
    index.data<int64_t>()[1] = bad;
    full.fill([](int64_t) { return 0; });
    full.data<int64_t>()[5] = bad;
    EXPECT_THROW(backend::indexSelect(y.view, x.view, index.view, 0), Error);
    EXPECT_THROW(backend::indexAdd(x.view, index.view, y.view, 0), Error);
    EXPECT_THROW(backend::gather(y.view, x.view, full.view, 0), Error);
    EXPECT_THROW(backend::scatterAdd(x.view, full.view, y.view, 0), Error);
    for (int64_t i = 0; i < 12; i++) EXPECT_EQ(x.get(i), i);  // a refused sum changes nothing
    y.fill([](int64_t) { return 1; });
  }
  Tensor narrow(DType::int32, {2}), other(DType::float64, {2, 3}), wide(DType::int64, {2, 9});
  Tensor target(DType::float32, {2, 9});
  EXPECT_THROW(backend::indexSelect(y.view, x.view, narrow.view, 0), Error);
  EXPECT_THROW(backend::gather(other.view, x.view, full.view, 0), Error);
  EXPECT_THROW(backend::gather(target.view, x.view, wide.view, 0), Error);
}

TEST_P(Indexing, AccumulateOverlapping) {
  for (DType dtype : {DType::float32, DType::float16, DType::int32}) {
    Tensor y(dtype, {10}), x(dtype, {8, 3});
    y.fill([](int64_t) { return 1; });
    x.fill([](int64_t i) { return static_cast<double>(i % 5); });
    View windows = y.view;  // y[i + j]
    windows.ndim = 2;
    windows.size[0] = 8;
    windows.size[1] = 3;
    windows.stride[0] = windows.stride[1] = 1;
    backend::accumulateOverlapping(windows, x.view);
    double expected[10];
    for (double& e : expected) e = 1;
    for (int64_t i = 0; i < 24; i++) expected[i / 3 + i % 3] += x.get(i);
    for (int64_t i = 0; i < 10; i++) EXPECT_EQ(y.get(i), expected[i]);
  }
}

TEST_P(Indexing, SameBitsForAnyNumberOfThreads) {
  for (int axis : {0, 1}) {
    expectSameForAnyThreads([&] {
      Tensor y(DType::float32, {50, 300}), source(DType::float32, {500, 500}),
          index(DType::int64, {500});
      y.fill([](int64_t) { return 0; });
      source.fillRandom(1);
      fillIndices(index, 50);
      View slice = source.view;
      slice.size[1 - axis] = axis == 0 ? 300 : 50;
      backend::indexAdd(y.view, index.view, slice, axis);
      return y;
    });
  }
}

}  // namespace
}  // namespace adjoint::test
