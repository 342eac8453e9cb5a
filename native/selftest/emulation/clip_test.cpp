// Norms of many gradients and clipping to them, against float64.
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class ClipOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(ClipOnDevice);

constexpr DType kFloats[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};

// More gradients than one launch takes, one longer than a block's piece, one empty, every other one
// not aligned for vectors.
struct Gradients {
  explicit Gradients(DType dtype) {
    Sizes sizes(200, 3);
    sizes[0] = 0;
    sizes[2] = 40001;
    sizes[3] = 9001;
    for (int64_t size : sizes) {
      const auto i = static_cast<unsigned>(values.size());
      values.push_back(randomValues(size, -2, 2, dtype, i));
      const int64_t offset = i % 2;
      tensors.emplace_back(dtype, Sizes{size}, Sizes{1}, offset,
                           static_cast<size_t>(size + offset));
      if (size > 0) backend::copy(tensors[i], DeviceTensor(dtype, {size}, values[i]));
      views.push_back(tensors[i]);
    }
  }
  double norm(double p) const {
    double sum = 0;
    for (const Values& of : values) {
      for (double x : of) {
        sum = std::isinf(p) ? std::max(sum, std::fabs(x)) : sum + std::pow(std::fabs(x), p);
      }
    }
    return std::isinf(p) ? sum : std::pow(sum, 1 / p);
  }
  std::vector<DeviceTensor> tensors;
  std::vector<View> views;
  std::vector<Values> values;
};

TEST_P(ClipOnDevice, toTheNormOfAll) {
  for (DType dtype : kFloats) {
    Gradients g(dtype);
    for (double p : {2.0, 1.0, 3.0, HUGE_VAL}) {
      SCOPED_TRACE(std::string(dtypeName(dtype)) + ", p " + std::to_string(p));
      const DeviceTensor norm = DeviceTensor::empty(dtype, {});
      backend::totalNorm(norm, g.views, p);
      expectClose(norm.read(), {g.norm(p)}, 4 * epsilonOf(dtype));
    }
    // A norm of another dtype, as of gradients on two devices.
    const DeviceTensor given(DType::float64, {}, {8});
    backend::clipToNorm(g.views, given, 9);
    for (size_t i = 0; i < g.views.size(); i++) expectClose(g.tensors[i].read(), g.values[i], 0);
    backend::clipToNorm(g.views, given, 2);
    for (size_t i = 0; i < g.views.size(); i++) {
      for (double& x : g.values[i]) x *= 2 / (8 + 1e-6);
      expectClose(g.tensors[i].read(), g.values[i], 2 * epsilonOf(dtype));
    }
  }
}

TEST_P(ClipOnDevice, passesOnWhatIsNoNumber) {
  for (double p : {2.0, 1.0, 3.0, HUGE_VAL}) {
    for (double odd : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
      SCOPED_TRACE(std::to_string(p) + ", " + std::to_string(odd));
      const DeviceTensor a(DType::float32, {5}, {1, 2, 3, 4, odd}), b(DType::float32, {1}, {2});
      const DeviceTensor norm = DeviceTensor::empty(DType::float32, {});
      backend::totalNorm(norm, {a, b}, p);
      EXPECT_EQ(std::isnan(norm.read()[0]), std::isnan(odd));
      EXPECT_FALSE(std::isfinite(norm.read()[0]));
      // x / inf is 0, inf / inf and all of NaN are NaN.
      backend::clipToNorm({a, b}, norm, 1);
      const double rest = std::isnan(odd) ? odd : 0;
      expectClose(a.read(), {rest, rest, rest, rest, std::nan("")}, 0);
      expectClose(b.read(), {rest}, 0);
    }
  }
}

TEST_P(ClipOnDevice, noGradientsAndIntegers) {
  const DeviceTensor norm(DType::float32, {}, {3}), integers(DType::int32, {2}, {1, 2});
  backend::totalNorm(norm, {}, 2);
  EXPECT_EQ(norm.read()[0], 0);
  EXPECT_NO_THROW(backend::clipToNorm({}, norm, 1));
  EXPECT_THROW(backend::clipToNorm({integers}, norm, 1), Error);
}

}  // namespace
}  // namespace adjoint::test
