// Tensors in device memory, filled from and compared with float64 on the host: of the emulated
// device, or, with ADJOINT_REAL_DEVICE, of a card.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "contract.h"
#include "cuda/launch.h"
#ifndef ADJOINT_REAL_DEVICE
#include "emulation/emulation.h"
#endif
#include "shared/convert.h"
#include "shared/iterate.h"

namespace adjoint::test {

using Values = std::vector<double>;
using Sizes = std::vector<int64_t>;

// The size of every block is exact, so that AddressSanitizer sees a read or write beyond it.
class DeviceTensor {
 public:
  // Contiguous, of these values in row-major order.
  DeviceTensor(DType dtype, const Sizes& sizes, const Values& values)
      : DeviceTensor(dtype, sizes, {}, 0, values.size()) {
    std::vector<char> bytes(values.size() * itemSize(dtype));
    for (size_t i = 0; i < values.size(); i++) {
      const Scalar s = isFloating(dtype) || std::isnan(values[i])
                           ? Scalar::of(values[i])
                           : Scalar::of(static_cast<int64_t>(values[i]));
      storeScalar(&bytes[i * itemSize(dtype)], dtype, s);
    }
    backend::copyFromHost(view.data, bytes.data(), bytes.size());
  }
  // A view of a block of `elements` (NaN bits at first); no strides: contiguous.
  DeviceTensor(DType dtype, const Sizes& sizes, const Sizes& strides, int64_t offset,
               size_t elements)
      : elements_(elements) {
    view.dtype = dtype;
    view.ndim = static_cast<int>(sizes.size());
    int64_t stride = 1;
    for (int i = view.ndim - 1; i >= 0; i--) {
      view.size[i] = sizes[static_cast<size_t>(i)];
      view.stride[i] = strides.empty() ? stride : strides[static_cast<size_t>(i)];
      stride *= view.size[i];
    }
    void* block = nullptr;
    backend::synchronize();
    ADJOINT_CUDA(cudaMalloc(&block, elements * itemSize(dtype)));
    block_ = std::shared_ptr<void>(block, [](void* p) {
      cudaStreamSynchronize(cuda::stream());
      cudaFree(p);
    });
    view.data = static_cast<char*>(block) + offset * static_cast<int64_t>(itemSize(dtype));
  }
  static DeviceTensor empty(DType dtype, const Sizes& sizes) {
    int64_t n = 1;
    for (int64_t s : sizes) n *= s;
    return DeviceTensor(dtype, sizes, {}, 0, static_cast<size_t>(n));
  }
  // The same elements in another order of axes.
  DeviceTensor permuted(const std::vector<int>& axes) const {
    DeviceTensor t = *this;
    for (size_t i = 0; i < axes.size(); i++) {
      t.view.size[i] = view.size[axes[i]];
      t.view.stride[i] = view.stride[axes[i]];
    }
    return t;
  }
  // The view's elements in row-major order.
  Values read() const {
    std::vector<char> bytes(elements_ * itemSize(view.dtype));
    backend::copyToHost(bytes.data(), block_.get(), bytes.size());
    const int64_t offset = static_cast<char*>(view.data) - static_cast<char*>(block_.get());
    Values values;
    const View* const views[] = {&view};
    const Plan<1> plan = makePlan<1>(views, AxisOrder::rowMajor);
    for (int64_t i = 0; i < plan.numel; i++) {
      visitDType(view.dtype, [&](auto tag) {
        typename decltype(tag)::type x;
        const int64_t at = plan.offset(0, i) * static_cast<int64_t>(sizeof x) + offset;
        std::memcpy(&x, &bytes[static_cast<size_t>(at)], sizeof x);
        values.push_back(convert<double>(x));
      });
    }
    return values;
  }
  operator const View&() const { return view; }
  operator Operand() const {
    Operand o;
    o.view = view;
    return o;
  }

  View view;

 private:
  size_t elements_;
  std::shared_ptr<void> block_;
};

inline Operand number(double x) {
  Operand o;
  o.isScalar = true;
  o.scalar = x == std::floor(x) ? Scalar::of(static_cast<int64_t>(x)) : Scalar::of(x);
  return o;
}

// Multiples of 1/8 (whole numbers for integers) in [low, high): the same in every dtype.
inline Values randomValues(int64_t n, double low, double high, DType dtype = DType::float32,
                           unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> draw(low, high);
  Values values(static_cast<size_t>(n));
  for (double& v : values) {
    v = std::floor(draw(generator) * 8) / 8;
    if (!isFloating(dtype)) v = std::floor(v);
    if (dtype == DType::boolean) v = std::fabs(v) >= 1;
    if (dtype == DType::uint8) v = std::fabs(v);
  }
  return values;
}

// The unit of the last place relative to the number.
inline double epsilonOf(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return 0x1p-52;
    case DType::float32:
      return 0x1p-23;
    case DType::float16:
      return 0x1p-10;
    case DType::bfloat16:
      return 0x1p-7;
    default:
      return 0;
  }
}

// |got - want| <= tolerance (|want| + floor); a NaN equals a NaN and nothing else.
inline void expectClose(const Values& got, const Values& want, double tolerance, double floor = 1) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); i++) {
    if (std::isnan(want[i]) ? std::isnan(got[i]) : got[i] == want[i]) continue;
    const double difference = std::fabs(got[i] - want[i]);
    ASSERT_TRUE(difference <= tolerance * (std::fabs(want[i]) + floor))
        << "element " << i << ": got " << got[i] << ", expected " << want[i];
  }
}

#ifdef ADJOINT_REAL_DEVICE
// A card has one order of threads, its own.
enum class ThreadOrder { native };
class Device : public ::testing::TestWithParam<ThreadOrder> {};
#define ADJOINT_IN_ALL_ORDERS(Suite) \
  INSTANTIATE_TEST_SUITE_P(Orders, Suite, ::testing::Values(ThreadOrder::native))
#else
// Every kernel must give the same in three orders of threads.
class Device : public ::testing::TestWithParam<emulation::ThreadOrder> {
 protected:
  void SetUp() override { emulation::setThreadOrder(GetParam()); }
  void TearDown() override { emulation::setThreadOrder(emulation::ThreadOrder::forward); }
};
#define ADJOINT_IN_ALL_ORDERS(Suite)                                                      \
  INSTANTIATE_TEST_SUITE_P(                                                               \
      Orders, Suite,                                                                      \
      ::testing::Values(emulation::ThreadOrder::forward, emulation::ThreadOrder::reverse, \
                        emulation::ThreadOrder::shuffled))
#endif

constexpr DType kFloats[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};
constexpr DType kIntegers[] = {DType::int64, DType::int32, DType::int16,
                               DType::int8,  DType::uint8, DType::boolean};

}  // namespace adjoint::test
