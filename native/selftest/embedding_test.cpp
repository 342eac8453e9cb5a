// embedding and its gradient against naive loops.
#include "kernel_test.h"

namespace adjoint::test {
namespace {

class Embedding : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Embedding);

Tensor indices(int64_t count, int64_t rows) {
  Tensor index(DType::int64, {count});
  for (int64_t i = 0; i < count; i++) index.data<int64_t>()[i] = i * i * 7919 % rows;
  return index;
}

struct Sizes {
  int64_t count, rows, columns;
};
const Sizes kSizes[] = {{1, 1, 1},  {0, 5, 3},    {300, 7, 129}, {40, 1000, 5},
                        {64, 3, 0}, {500, 1, 64}, {33, 50, 256}};

TEST_P(Embedding, RowsAndTheirGradient) {
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    for (const auto& [count, rows, columns] : kSizes) {
      for (int64_t padding : {int64_t{-1}, rows - 1}) {
        Tensor weight(dtype, {rows, columns}, 1), index = indices(count, rows);
        Tensor y(dtype, {count, columns}), dy(dtype, {count, columns}, 3);
        Tensor dweight(dtype, {rows, columns}, 1);
        // Whole numbers whose sums are exact in every type.
        weight.fill([](int64_t i) { return static_cast<double>(i % 11); });
        dy.fill([](int64_t i) { return i % 5 == 0 ? 1.0 : 0.0; });
        backend::embedding(y.view, weight.view, index.view);
        backend::embeddingBackward(dweight.view, dy.view, index.view, padding);
        std::vector<double> expected(static_cast<size_t>(dweight.numel()), 0);
        for (int64_t i = 0; i < y.numel(); i++) {
          const int64_t row = index.integer(i / columns), at = row * columns + i % columns;
          ASSERT_EQ(y.get(i), weight.get(at));
          if (row != padding) expected[static_cast<size_t>(at)] += dy.get(i);
        }
        for (int64_t i = 0; i < dweight.numel(); i++) {
          ASSERT_EQ(dweight.get(i), expected[static_cast<size_t>(i)]) << dtypeName(dtype);
        }
        ASSERT_TRUE(y.isIntact() && dweight.isIntact());
      }
    }
  }
}

// A sum of half types is rounded once: 300 ones in bfloat16, which has 8 bits.
TEST_P(Embedding, SumsOfHalfTypesAreFormedInFloat32) {
  Tensor index(DType::int64, {300}), dy(DType::bfloat16, {300, 2});
  Tensor dweight(DType::bfloat16, {1, 2});
  index.fill([](int64_t) { return 0; });
  dy.fill([](int64_t) { return 1; });
  backend::embeddingBackward(dweight.view, dy.view, index.view, -1);
  EXPECT_EQ(dweight.get(1), 300);
}

TEST_P(Embedding, StridedOperands) {
  Tensor weight(DType::float32, {6, 9}), index = indices(8, 9), y(DType::float32, {8, 6});
  Tensor dy(DType::float32, {6, 8}), dweight(DType::float32, {6, 9});
  weight.transpose(0, 1).fillRandom(1);
  dy.transpose(0, 1).fillRandom(2);
  dweight.transpose(0, 1);
  index.slice(0, 1, 2);
  y.slice(0, 0, 2);
  dy.slice(0, 0, 2);
  backend::embedding(y.view, weight.view, index.view);
  backend::embeddingBackward(dweight.view, dy.view, index.view, -1);
  std::vector<double> expected(54, 0);
  for (int64_t i = 0; i < 24; i++) {
    const int64_t at = index.integer(i / 6) * 6 + i % 6;
    EXPECT_EQ(y.get(i), weight.get(at));
    expected[static_cast<size_t>(at)] += dy.get(i);
  }
  for (int64_t i = 0; i < 54; i++)
    EXPECT_NEAR(dweight.get(i), expected[static_cast<size_t>(i)], 1e-6);
}

TEST_P(Embedding, BadIndicesAreErrors) {
  Tensor weight(DType::float32, {4, 3}), y(DType::float32, {2, 3}), index(DType::int64, {2});
  for (int64_t bad : {int64_t{-1}, int64_t{4}, INT64_MAX, INT64_MIN}) {
    index.data<int64_t>()[0] = 0;
    index.data<int64_t>()[1] = bad;
    EXPECT_THROW(backend::embedding(y.view, weight.view, index.view), Error);
    EXPECT_THROW(backend::embeddingBackward(weight.view, y.view, index.view, -1), Error);
  }
  Tensor narrow(DType::int32, {2});
  EXPECT_THROW(backend::embedding(y.view, weight.view, narrow.view), Error);
}

TEST_P(Embedding, SameBitsForAnyNumberOfThreads) {
  expectSameForAnyThreads([] {
    Tensor dweight(DType::float32, {65, 300}), dy(DType::float32, {2000, 300});
    Tensor index = indices(2000, 65);
    dy.fillRandom(1);
    backend::embeddingBackward(dweight.view, dy.view, index.view, 3);
    return dweight;
  });
}

}  // namespace
}  // namespace adjoint::test
