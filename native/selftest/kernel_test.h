// What the tests of CPU kernels share: tensors with any strides and guarded ends, every SIMD level,
// errors in units of the last place, and naive conversions to compare with.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "contract.h"
#include "cpu/pool.h"
#include "cpu/simd.h"
#include "levels.h"
#include "shared/convert.h"

namespace adjoint::test {

// One element, read or written without the kernels' conversions between blocks.
inline double getDouble(const void* p, DType dtype) {
  double result = 0;
  visitDType(dtype, [&](auto tag) {
    typename decltype(tag)::type x;
    std::memcpy(&x, p, sizeof x);
    result = convert<double>(x);
  });
  return result;
}
inline int64_t getInteger(const void* p, DType dtype) {
  int64_t result = 0;
  visitDType(dtype, [&](auto tag) {
    typename decltype(tag)::type x;
    std::memcpy(&x, p, sizeof x);
    result = convert<int64_t>(x);
  });
  return result;
}

// An owning tensor. `view` may be permuted, sliced or expanded by the test; the bytes around the
// elements are guards that isIntact() checks.
class Tensor {
 public:
  Tensor(DType dtype, std::vector<int64_t> sizes, int64_t misalignment = 0) {
    view.dtype = dtype;
    view.ndim = static_cast<int>(sizes.size());
    int64_t n = 1;
    for (int i = view.ndim - 1; i >= 0; i--) {
      view.size[i] = sizes[static_cast<size_t>(i)];
      view.stride[i] = n;
      n *= view.size[i];
    }
    start_ = kGuard + static_cast<size_t>(misalignment) * itemSize(dtype);
    length_ = static_cast<size_t>(n) * itemSize(dtype);
    bytes_.assign(start_ + length_ + kGuard, kGuardByte);
    view.data = bytes_.data() + start_;
  }
  Tensor(Tensor&&) = default;
  Tensor& operator=(Tensor&&) = default;

  Tensor& fill(const std::function<double(int64_t)>& f) {
    for (int64_t i = 0; i < view.numel(); i++) set(i, f(i));
    return *this;
  }
  Tensor& fillRandom(unsigned seed, double low = -3, double high = 3) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> uniform(low, high);
    return fill([&](int64_t) { return uniform(generator); });
  }
  // Element i in row-major order of the view.
  void set(int64_t i, double value) {
    const Scalar s = isFloating(view.dtype) ? Scalar::of(value)
                                            : Scalar::of(static_cast<int64_t>(std::floor(value)));
    storeScalar(at(i), view.dtype, s);
  }
  double get(int64_t i) const { return getDouble(at(i), view.dtype); }
  int64_t integer(int64_t i) const { return getInteger(at(i), view.dtype); }
  void* at(int64_t i) const {
    int64_t offset = 0;
    for (int axis = view.ndim - 1; axis >= 0; axis--) {
      offset += i % view.size[axis] * view.stride[axis];
      i /= view.size[axis];
    }
    return view.as<char>() + offset * static_cast<int64_t>(itemSize(view.dtype));
  }
  template <class T>
  T* data() const {
    return view.as<T>();
  }
  int64_t numel() const { return view.numel(); }

  Tensor& transpose(int a, int b) {
    std::swap(view.size[a], view.size[b]);
    std::swap(view.stride[a], view.stride[b]);
    return *this;
  }
  // Every step-th element of an axis, from `first`.
  Tensor& slice(int axis, int64_t first, int64_t step) {
    view.data =
        view.as<char>() + first * view.stride[axis] * static_cast<int64_t>(itemSize(view.dtype));
    view.size[axis] = (view.size[axis] - first + step - 1) / step;
    view.stride[axis] *= step;
    return *this;
  }
  Operand operand() const {
    Operand o;
    o.view = view;
    return o;
  }
  bool isIntact() const {
    for (size_t i = 0; i < start_; i++) {
      if (bytes_[i] != kGuardByte) return false;
    }
    for (size_t i = start_ + length_; i < bytes_.size(); i++) {
      if (bytes_[i] != kGuardByte) return false;
    }
    return true;
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

  View view;

 private:
  static constexpr size_t kGuard = 64;
  static constexpr uint8_t kGuardByte = 0xa5;
  std::vector<uint8_t> bytes_;
  size_t start_ = 0, length_ = 0;
};

inline Operand number(double v) {
  Operand o;
  o.isScalar = true;
  o.scalar = Scalar::of(v);
  return o;
}
inline Operand number(int64_t v) {
  Operand o;
  o.isScalar = true;
  o.scalar = Scalar::of(v);
  return o;
}

constexpr DType kAllDTypes[kDTypeCount] = {
    DType::float32, DType::float64, DType::bfloat16, DType::float16, DType::int64,
    DType::int32,   DType::int16,   DType::int8,     DType::uint8,   DType::boolean};

// Runs a test body at every level that this processor has.
class EveryLevel : public ::testing::TestWithParam<cpu::SimdLevel> {
 protected:
  void SetUp() override {
    if (!cpu::isSimdLevelSupported(GetParam())) FAIL() << "level is not supported";
    before_ = cpu::simdLevel();
    cpu::setSimdLevel(GetParam());
  }
  void TearDown() override { cpu::setSimdLevel(before_); }

 private:
  cpu::SimdLevel before_ = cpu::SimdLevel::scalar;
  // Units for bfloat16 wherever there are any, faster than float32 or not.
  const FeatureChoice features_{true, true};
};

inline std::string levelName(const ::testing::TestParamInfo<cpu::SimdLevel>& info) {
  return cpu::simdLevelName(info.param);
}

// |y - expected| in units of the last place of a float at `expected`.
inline double ulps(float y, double expected) {
  if (std::isnan(expected)) return std::isnan(y) ? 0 : HUGE_VAL;
  const float rounded = static_cast<float>(expected);
  if (y == rounded) return 0;
  if (std::isnan(y)) return HUGE_VAL;
  constexpr float largest = std::numeric_limits<float>::max();
  const double bounded = std::fmin(std::fabs(expected), double(largest));
  int exponent;
  std::frexp(bounded, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent - 24, -149));
  if (std::isinf(y)) y = std::copysign(largest, y);  // one step beyond the largest
  const double e = std::isinf(rounded) ? std::copysign(double(largest), expected) : expected;
  return std::fabs(double(y) - e) / unit;
}

// f's result for one thread and for two must be the same bytes.
inline void expectSameForAnyThreads(const std::function<Tensor()>& f) {
  const int before = cpu::poolThreads();
  cpu::setPoolThreads(1);
  const Tensor one = f();
  cpu::setPoolThreads(2);
  const Tensor two = f();
  cpu::setPoolThreads(before);
  EXPECT_EQ(one.bytes(), two.bytes());
}

}  // namespace adjoint::test

#define ADJOINT_EVERY_LEVEL(Suite)                                                         \
  INSTANTIATE_TEST_SUITE_P(Simd, Suite, ::testing::ValuesIn(::adjoint::levelsUnderTest()), \
                           ::adjoint::test::levelName)
