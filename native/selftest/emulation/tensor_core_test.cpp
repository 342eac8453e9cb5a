// Tensor cores and copies beside the computation: the layout of what lanes hold, on the device and
// in its emulation.
#include "cuda/tensor_core.h"

#include "cuda/async_copy.h"
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class TensorCoreOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(TensorCoreOnDevice);

constexpr int kRows = 16, kDepth = 16, kColumns = 16;

// y [16, 16] = a [16, 16] b, with b [16, 16] given by rows, or transposed; `shift` rows of a are
// left out.
template <class S, bool byRows>
__global__ void productKernel(float* y, const S* a, const S* b, int shift) {
  ADJOINT_SHARED(uint64_t, left, kRows * kDepth / 4);
  ADJOINT_SHARED(uint64_t, right, kDepth * kColumns / 4);
  const int lane = static_cast<int>(threadIdx.x), row = lane / 2, half = lane % 2;
  S *leftTile = reinterpret_cast<S*>(left), *rightTile = reinterpret_cast<S*>(right);
  cuda::copyAsync(leftTile + lane * 8, a + lane * 8, row >= shift);
  cuda::commitCopies();
  cuda::copyAsync(rightTile + row * 16 + half * 8, b + row * 16 + half * 8, true);
  cuda::commitCopies();
  cuda::waitForCopies<1>();
  __syncwarp();
  uint32_t rows[4], columns[4];
  cuda::loadMatrices<false>(rows, leftTile + lane % 16 * 16 + lane / 16 * 8);
  cuda::waitForCopies<0>();
  __syncwarp();
  if (byRows) {
    cuda::loadMatrices<true>(columns, rightTile + lane % 16 * 16 + lane / 16 * 8);
  } else {
    cuda::loadMatrices<false>(columns,
                              rightTile + (lane / 16 * 8 + lane % 8) * 16 + lane / 8 % 2 * 8);
  }
  for (int piece = 0; piece < 2; piece++) {
    float sum[4] = {1, 1, 1, 1};
    cuda::multiplyAccumulate<S>(sum, rows, columns[2 * piece], columns[2 * piece + 1]);
    for (int i = 0; i < 4; i++) {
      y[(lane / 4 + i / 2 * 8) * kColumns + piece * 8 + lane % 4 * 2 + i % 2] = sum[i];
    }
  }
}

template <class S, bool byRows>
void checkProduct(DType dtype, int shift) {
  const Values a = randomValues(kRows * kDepth, -4, 4, dtype),
               b = randomValues(kDepth * kColumns, -4, 4, dtype, 2);
  const DeviceTensor da(dtype, {kRows, kDepth}, a), db(dtype, {kDepth, kColumns}, b),
      y = DeviceTensor::empty(DType::float32, {kRows, kColumns});
  cuda::launch(1, 32, 0, cuda::stream(), productKernel<S, byRows>, y.view.as<float>(),
               da.view.as<S>(), db.view.as<S>(), shift);
  Values want;
  for (size_t i = 0; i < kRows; i++) {
    for (size_t j = 0; j < kColumns; j++) {
      double sum = 1;
      for (size_t k = 0; k < kDepth && i >= static_cast<size_t>(shift); k++) {
        sum += a[i * kDepth + k] * b[byRows ? k * kColumns + j : j * kDepth + k];
      }
      want.push_back(sum);
    }
  }
  expectClose(y.read(), want, 1e-6);
}

TEST_P(TensorCoreOnDevice, products) {
  if (cuda::computeCapability() < 80) GTEST_SKIP() << "tensor cores of another kind";
  for (int shift : {0, 5}) {
    checkProduct<BFloat16, true>(DType::bfloat16, shift);
    checkProduct<BFloat16, false>(DType::bfloat16, shift);
    checkProduct<Float16, true>(DType::float16, shift);
    checkProduct<Float16, false>(DType::float16, shift);
  }
}

// y [16, 8] = 1 + a [16, 8] b^T, b [8, 8], of float32
__global__ void tf32ProductKernel(float* y, const float* a, const float* b) {
  ADJOINT_SHARED(uint64_t, left, kRows * 8 / 2);
  ADJOINT_SHARED(uint64_t, right, kRows * 8 / 2);
  const int lane = static_cast<int>(threadIdx.x), row = lane % 16, half = lane / 16 * 4;
  float *leftTile = reinterpret_cast<float*>(left), *rightTile = reinterpret_cast<float*>(right);
  for (int j = half; j < half + 4; j++) {
    leftTile[row * 8 + j] = a[row * 8 + j];
    rightTile[row * 8 + j] = row < 8 ? b[row * 8 + j] : 0;
  }
  __syncwarp();
  uint32_t rows[4], columns[4];
  cuda::loadMatrices<false>(rows, leftTile + row * 8 + half);
  cuda::loadMatrices<false>(columns, rightTile + (lane / 16 * 8 + lane % 8) * 8 + lane / 8 % 2 * 4);
  float sum[4] = {1, 1, 1, 1};
  cuda::multiplyAccumulate<float>(sum, rows, columns[0], columns[1]);
  for (int i = 0; i < 4; i++) y[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

// Of float32 the unit takes 11 significant bits, whatever the others are.
TEST_P(TensorCoreOnDevice, productsOfFloat32) {
  if (cuda::computeCapability() < 80) GTEST_SKIP() << "tensor cores of another kind";
  Values a = randomValues(kRows * 8, -4, 4), b = randomValues(64, -4, 4, DType::float32, 2), want;
  Values noisy = a;
  for (double& x : noisy) x *= 1 + 0x1.8p-12;
  noisy[3 * 8 + 1] = a[3 * 8 + 1] = INFINITY;
  noisy[5 * 8 + 6] = a[5 * 8 + 6] = NAN;
  const DeviceTensor da(DType::float32, {kRows, 8}, noisy), db(DType::float32, {8, 8}, b),
      y = DeviceTensor::empty(DType::float32, {kRows, 8});
  cuda::launch(1, 32, 0, cuda::stream(), tf32ProductKernel, y.view.as<float>(), da.view.as<float>(),
               db.view.as<float>());
  for (size_t i = 0; i < kRows; i++) {
    for (size_t j = 0; j < 8; j++) {
      double sum = 1;
      for (size_t k = 0; k < 8; k++) sum += a[i * 8 + k] * b[j * 8 + k];
      want.push_back(sum);
    }
  }
  expectClose(y.read(), want, 1e-6);
}

__global__ void packKernel(uint32_t* y) {
  y[0] = cuda::packHalves<BFloat16>(1.5f, -2.0f);
  y[1] = cuda::packHalves<Float16>(1.5f, -2.0f);
}

TEST_P(TensorCoreOnDevice, packsTheFirstNumberLow) {
  if (cuda::computeCapability() < 80) GTEST_SKIP() << "tensor cores of another kind";
  const DeviceTensor y = DeviceTensor::empty(DType::int32, {2});
  cuda::launch(1, 1, 0, cuda::stream(), packKernel, y.view.as<uint32_t>());
  const Values got = y.read();
  EXPECT_EQ(static_cast<uint32_t>(static_cast<int64_t>(got[0])), 0xc0003fc0u);
  EXPECT_EQ(static_cast<uint32_t>(static_cast<int64_t>(got[1])), 0xc0003e00u);
}

#ifndef ADJOINT_REAL_DEVICE
__global__ void hastyKernel(float* y, const float* x) {
  ADJOINT_SHARED(uint64_t, place, 2);
  cuda::copyAsync(place, x, true);
  cuda::commitCopies();
  y[0] = *reinterpret_cast<float*>(place);
  cuda::waitForCopies<0>();
  y[1] = *reinterpret_cast<float*>(place);
}

TEST_P(TensorCoreOnDevice, whatHasNotArrivedReadsAsNaN) {
  const DeviceTensor x(DType::float32, {4}, {1, 2, 3, 4}),
      y = DeviceTensor::empty(DType::float32, {2});
  cuda::launch(1, 1, 0, cuda::stream(), hastyKernel, y.view.as<float>(), x.view.as<float>());
  const Values got = y.read();
  EXPECT_TRUE(std::isnan(got[0]));
  EXPECT_EQ(got[1], 1);
}
#endif

}  // namespace
}  // namespace adjoint::test
