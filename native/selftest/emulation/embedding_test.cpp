// embedding and its gradient against naive loops.
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class EmbeddingOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(EmbeddingOnDevice);

Values indices(int64_t count, int64_t rows) {
  Values values;
  for (int64_t i = 0; i < count; i++) values.push_back(static_cast<double>(i * i * 7919 % rows));
  return values;
}

struct Case {
  int64_t count, rows, columns;
};
const Case kCases[] = {{1, 1, 1},   {0, 5, 3},    {300, 7, 29},  {40, 1000, 5}, {64, 3, 0},
                       {500, 1, 8}, {33, 50, 64}, {1500, 4, 16}, {2000, 3, 1}};

TEST_P(EmbeddingOnDevice, rowsAndTheirGradient) {
  for (DType dtype : kFloats) {
    for (const Case& c : kCases) {
      for (int64_t padding : {int64_t{-1}, c.rows - 1}) {
        const Values index = indices(c.count, c.rows);
        Values weight, dy, wantY, want(static_cast<size_t>(c.rows * c.columns), 0);
        // Whole numbers whose sums are exact in every type.
        for (int64_t i = 0; i < c.rows * c.columns; i++) {
          weight.push_back(static_cast<double>(i % 11));
        }
        for (int64_t i = 0; i < c.count * c.columns; i++) {
          const auto row = static_cast<int64_t>(index[static_cast<size_t>(i / c.columns)]);
          const auto at = static_cast<size_t>(row * c.columns + i % c.columns);
          dy.push_back(i % 7 == 0);
          wantY.push_back(weight[at]);
          if (row != padding) want[at] += dy.back();
        }
        const DeviceTensor places(DType::int64, {c.count}, index);
        const DeviceTensor y = DeviceTensor::empty(dtype, {c.count, c.columns});
        const DeviceTensor dweight = DeviceTensor::empty(dtype, {c.rows, c.columns});
        backend::embedding(y, DeviceTensor(dtype, {c.rows, c.columns}, weight), places);
        backend::embeddingBackward(dweight, DeviceTensor(dtype, {c.count, c.columns}, dy), places,
                                   padding);
        EXPECT_EQ(y.read(), wantY);
        expectClose(dweight.read(), want, epsilonOf(dtype));
      }
    }
  }
}

// Sums of half types are rounded once: 3000 ones in bfloat16, which has 8 bits.
TEST_P(EmbeddingOnDevice, sumsOfHalfTypesAreFormedInFloat32) {
  const DeviceTensor index(DType::int64, {3000}, Values(3000, 0));
  const DeviceTensor dy(DType::bfloat16, {3000, 2}, Values(6000, 1));
  const DeviceTensor dweight = DeviceTensor::empty(DType::bfloat16, {1, 2});
  backend::embeddingBackward(dweight, dy, index, -1);
  EXPECT_EQ(dweight.read(), (Values{3008, 3008}));
}

TEST_P(EmbeddingOnDevice, stridedOperands) {
  const Values index = indices(4, 9), values = randomValues(54, -4, 4);
  const DeviceTensor weight = DeviceTensor(DType::float32, {6, 9}, values).permuted({1, 0});
  const DeviceTensor places(DType::int64, {4}, {-3}, 9, 10);
  backend::copy(places, DeviceTensor(DType::int64, {4}, index));
  const DeviceTensor y(DType::float32, {4, 6}, {2, 8}, 1, 48);
  const DeviceTensor dweight = DeviceTensor::empty(DType::float32, {6, 9}).permuted({1, 0});
  backend::embedding(y, weight, places);
  backend::embeddingBackward(dweight, y, places, -1);
  Values wantY, want(54, 0);
  for (size_t i = 0; i < 24; i++) {
    const auto row = static_cast<size_t>(index[i / 6]);
    wantY.push_back(values[i % 6 * 9 + row]);
    want[row * 6 + i % 6] += wantY.back();
  }
  EXPECT_EQ(y.read(), wantY);
  EXPECT_EQ(dweight.read(), want);
}

TEST_P(EmbeddingOnDevice, badIndicesAreErrors) {
  const DeviceTensor weight(DType::float32, {4, 3}, Values(12, 1));
  const DeviceTensor y(DType::float32, {2, 3}, Values(6, 1));
  for (double bad : {-1.0, 4.0, 0x1p62, -0x1p63}) {
    const DeviceTensor index(DType::int64, {2}, {0, bad});
    backend::embedding(y, weight, index);
    EXPECT_THROW(backend::synchronize(), Error);
    backend::embeddingBackward(weight, y, index, -1);
    EXPECT_THROW(backend::synchronize(), Error);
  }
  const DeviceTensor narrow(DType::int32, {2}, {0, 0});
  EXPECT_THROW(backend::embedding(y, weight, narrow), Error);
  EXPECT_THROW(backend::embeddingBackward(weight, y, narrow, -1), Error);
}

// The same bits each time, of long runs and short ones.
TEST_P(EmbeddingOnDevice, sumsAreRepeatable) {
  static Values first;
  Values dy = randomValues(1000 * 12, -1, 1);
  for (size_t i = 0; i < dy.size(); i++) dy[i] *= std::exp(static_cast<double>(i % 13));
  Values index = indices(1000, 40);
  for (size_t i = 0; i < index.size(); i += 2) index[i] = 5;  // a frequent token
  const DeviceTensor dweight = DeviceTensor::empty(DType::float32, {40, 12});
  backend::embeddingBackward(dweight, DeviceTensor(DType::float32, {1000, 12}, dy),
                             DeviceTensor(DType::int64, {1000}, index), 3);
  const Values sums = dweight.read();
  if (first.empty()) first = sums;
  EXPECT_EQ(sums, first);
}

}  // namespace
}  // namespace adjoint::test
