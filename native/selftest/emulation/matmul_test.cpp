// Matrix products of every layout against float64.
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class MatmulOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(MatmulOnDevice);

struct Case {
  Sizes batch;
  int64_t m, k, n;
};
const Case kCases[] = {{{}, 1, 1, 1},  {{}, 5, 7, 3},     {{}, 17, 33, 18},
                       {{3}, 4, 5, 6}, {{2, 3}, 3, 1, 4}, {{}, 1, 9, 4},
                       {{}, 6, 4, 1},  {{4}, 16, 0, 3},   {{0}, 2, 3, 4}};

Sizes matrix(const Case& c, int64_t rows, int64_t columns) {
  Sizes sizes = c.batch;
  sizes.push_back(rows);
  sizes.push_back(columns);
  return sizes;
}
int64_t matrices(const Case& c) {
  int64_t n = 1;
  for (int64_t b : c.batch) n *= b;
  return n;
}

// The same matrices, stored by columns.
DeviceTensor storedByColumns(DType dtype, const Case& c, int64_t rows, int64_t columns,
                             const Values& values) {
  std::vector<int> swapped;
  for (size_t i = 0; i < c.batch.size() + 2; i++) swapped.push_back(static_cast<int>(i));
  std::swap(swapped[swapped.size() - 1], swapped[swapped.size() - 2]);
  DeviceTensor t = DeviceTensor::empty(dtype, matrix(c, columns, rows)).permuted(swapped);
  backend::copy(t, DeviceTensor(dtype, matrix(c, rows, columns), values));
  return t;
}

TEST_P(MatmulOnDevice, productsOfAllLayouts) {
  for (const Case& c : kCases) {
    for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16,
                        DType::int64, DType::int32, DType::uint8}) {
      const int64_t count = matrices(c);
      const Values a = randomValues(count * c.m * c.k, -3, 3, dtype);
      const Values b = randomValues(count * c.k * c.n, -3, 3, dtype, 2);
      const Values bias = randomValues(c.n, -3, 3, dtype, 3);
      for (int layout = 0; layout < 16; layout++) {
        SCOPED_TRACE(std::string(dtypeName(dtype)) + ", layout " + std::to_string(layout) +
                     ", case " + std::to_string(&c - kCases));
        const bool withBias = layout & 4;
        const DeviceTensor da = layout & 1 ? storedByColumns(dtype, c, c.m, c.k, a)
                                           : DeviceTensor(dtype, matrix(c, c.m, c.k), a);
        const DeviceTensor db = layout & 2 ? storedByColumns(dtype, c, c.k, c.n, b)
                                           : DeviceTensor(dtype, matrix(c, c.k, c.n), b);
        const DeviceTensor dbias(dtype, {c.n}, bias);
        const Values nothing(static_cast<size_t>(count * c.m * c.n), 0);
        const DeviceTensor y = layout & 8 ? storedByColumns(dtype, c, c.m, c.n, nothing)
                                          : DeviceTensor::empty(dtype, matrix(c, c.m, c.n));
        backend::matmul(y, da, db, withBias ? &dbias.view : nullptr);
        Values want;
        for (int64_t batch = 0; batch < count; batch++) {
          for (int64_t i = 0; i < c.m; i++) {
            for (int64_t j = 0; j < c.n; j++) {
              double sum = withBias ? bias[static_cast<size_t>(j)] : 0;
              for (int64_t k = 0; k < c.k; k++) {
                sum += a[static_cast<size_t>((batch * c.m + i) * c.k + k)] *
                       b[static_cast<size_t>((batch * c.k + k) * c.n + j)];
              }
              want.push_back(dtype == DType::uint8 ? static_cast<uint8_t>(sum) : sum);
            }
          }
        }
        expectClose(y.read(), want, epsilonOf(dtype));
      }
    }
  }
}

// a [batch, m, k] @ w [k, n]: weights expanded by stride 0, rows with gaps, a strided bias.
TEST_P(MatmulOnDevice, expandedWeightsAndGaps) {
  const int64_t batch = 3, m = 4, k = 5, n = 6;
  const Values a = randomValues(batch * m * k, -3, 3), w = randomValues(k * n, -3, 3);
  DeviceTensor weights(DType::float32, {k, n}, w);
  DeviceTensor expanded = weights;
  expanded.view.ndim = 3;
  const int64_t sizes[] = {batch, k, n}, strides[] = {0, n, 1};
  std::copy(sizes, sizes + 3, expanded.view.size);
  std::copy(strides, strides + 3, expanded.view.stride);
  DeviceTensor gaps(DType::float32, {batch, m, k}, {m * 8, 8, 1}, 2, batch * m * 8);
  DeviceTensor scattered(DType::float32, {batch, m, k}, {m * 16, 16, 3}, 0, batch * m * 16);
  DeviceTensor dense(DType::float32, {batch, m, k}, a);
  DeviceTensor bias(DType::float32, {n}, {2}, 0, 2 * n);
  backend::copy(gaps, dense);
  backend::copy(scattered, dense);
  backend::arange(bias, Scalar::of(0.0), Scalar::of(1.0));
  Values want;
  for (int64_t row = 0; row < batch * m; row++) {
    for (int64_t j = 0; j < n; j++) {
      double sum = static_cast<double>(j);
      for (int64_t i = 0; i < k; i++) {
        sum += a[static_cast<size_t>(row * k + i)] * w[static_cast<size_t>(i * n + j)];
      }
      want.push_back(sum);
    }
  }
  for (const DeviceTensor* input : {&dense, &gaps, &scattered}) {
    DeviceTensor y = DeviceTensor::empty(DType::float32, {batch, m, n});
    backend::matmul(y, *input, expanded, &bias.view);
    expectClose(y.read(), want, epsilonOf(DType::float32));
  }
}

}  // namespace
}  // namespace adjoint::test
