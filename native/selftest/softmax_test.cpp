// softmax, its logarithm and their gradients over any axis and layout, against double precision.
#include "kernel_test.h"

namespace adjoint::test {
namespace {

class Softmax : public EveryLevel {};
ADJOINT_EVERY_LEVEL(Softmax);

// Calls f(indices of one line along the axis) for every line of a view.
void forEachLine(const View& v, int axis,
                 const std::function<void(const std::vector<int64_t>&)>& f) {
  const int64_t length = v.ndim ? v.size[axis] : 1;
  int64_t inner = 1;
  for (int i = axis + 1; i < v.ndim; i++) inner *= v.size[i];
  const int64_t outer = length ? v.numel() / (length * inner) : 0;
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t i = 0; i < inner; i++) {
      std::vector<int64_t> line;
      for (int64_t k = 0; k < length; k++) line.push_back((o * length + k) * inner + i);
      f(line);
    }
  }
}

// x - maximum is rounded at up to 16, which the exponential turns into a relative error.
double toleranceOf(DType dtype) {
  return dtype == DType::float32    ? 2e-6
         : dtype == DType::float64  ? 1e-14
         : dtype == DType::bfloat16 ? 1.0 / 128
                                    : 1.0 / 1024;
}

// Results of float16 may be denormal: half a unit of 2^-24, rounded up.
double floorOf(DType dtype) {
  return dtype == DType::float16 ? 0x1p-24 : 0;
}

void check(Tensor& y, const Tensor& x, int axis, bool logarithm) {
  const double tolerance = toleranceOf(x.view.dtype);
  backend::softmax(y.view, x.view, axis, logarithm);
  forEachLine(x.view, axis, [&](const std::vector<int64_t>& line) {
    double maximum = -INFINITY, sum = 0;
    for (int64_t i : line) maximum = std::fmax(maximum, x.get(i));
    for (int64_t i : line) sum += std::exp(x.get(i) - maximum);
    for (int64_t i : line) {
      const double shifted = x.get(i) - maximum;
      const double expected = logarithm ? shifted - std::log(sum) : std::exp(shifted) / sum;
      ASSERT_NEAR(
          y.get(i), expected,
          floorOf(x.view.dtype) + tolerance * (logarithm ? 1 + std::fabs(expected) : expected))
          << "element " << i << " of " << x.numel() << ", axis " << axis;
    }
  });
  ASSERT_TRUE(y.isIntact());
}

void checkBackward(Tensor& dx, const Tensor& dy, const Tensor& y, int axis, bool logarithm) {
  const double tolerance = toleranceOf(dy.view.dtype) * 4;
  backend::softmaxBackward(dx.view, dy.view, y.view, axis, logarithm);
  forEachLine(dy.view, axis, [&](const std::vector<int64_t>& line) {
    double sum = 0, size = 0;
    for (int64_t i : line) {
      const double term = logarithm ? dy.get(i) : dy.get(i) * y.get(i);
      sum += term;
      size += std::fabs(term);
    }
    for (int64_t i : line) {
      const double weight = logarithm ? std::exp(y.get(i)) : y.get(i);
      const double expected = logarithm ? dy.get(i) - weight * sum : weight * (dy.get(i) - sum);
      ASSERT_NEAR(dx.get(i), expected,
                  floorOf(dy.view.dtype) +
                      tolerance * (std::fabs(expected) + std::fabs(weight) * (1 + size)));
    }
  });
  ASSERT_TRUE(dx.isIntact());
}

TEST_P(Softmax, EveryAxisLayoutAndDType) {
  const std::vector<std::vector<int64_t>> shapes = {{1},     {7},        {700},     {3, 33},
                                                    {33, 3}, {5, 4, 70}, {6, 1, 9}, {2, 300, 5}};
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    for (bool logarithm : {false, true}) {
      for (const auto& shape : shapes) {
        const int ndim = static_cast<int>(shape.size());
        for (int axis = 0; axis < ndim; axis++) {
          for (int layout = 0; layout < 3; layout++) {
            std::vector<int64_t> memory = shape;
            if (layout == 1) std::swap(memory.front(), memory.back());
            if (layout == 2) memory.back() *= 2;
            const auto arrange = [&](Tensor& t) {
              if (layout == 1) t.transpose(0, ndim - 1);
              if (layout == 2) t.slice(ndim - 1, 0, 2);
            };
            Tensor x(dtype, memory), y(dtype, shape), dx(dtype, memory), dy(dtype, memory);
            arrange(x);
            arrange(dx);
            arrange(dy);
            x.fillRandom(1, -8, 8);
            dy.fillRandom(2);
            check(y, x, axis, logarithm);
            if (HasFatalFailure()) return;
            checkBackward(dx, dy, y, axis, logarithm);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST_P(Softmax, EveryLengthAndMisalignment) {
  for (bool logarithm : {false, true}) {
    for (int64_t n = 1; n <= 2 * 32 + 3; n++) {
      Tensor x(DType::float32, {3, n}, n % 16), y(DType::float32, {3, n}, n % 5);
      Tensor dx(DType::float32, {3, n}, n % 7);
      x.fillRandom(static_cast<unsigned>(n), -5, 5);
      for (int axis : {0, 1}) {
        check(y, x, axis, logarithm);
        checkBackward(dx, x, y, axis, logarithm);
      }
    }
  }
}

TEST_P(Softmax, LargeValuesAndEdges) {
  for (int axis : {0, 1}) {
    Tensor x(DType::float32, {2, 2}), y(DType::float32, {2, 2});
    x.fill([](int64_t i) { return i == 0 ? 1e30 : -1e30; });
    backend::softmax(y.view, x.view, axis, false);
    EXPECT_EQ(y.get(0), 1);
    EXPECT_EQ(y.get(axis == 0 ? 2 : 1), 0);
    x.fill([](int64_t i) { return i == 0 ? -INFINITY : 2.0; });
    backend::softmax(y.view, x.view, axis, true);
    EXPECT_EQ(y.get(0), -INFINITY);
    EXPECT_EQ(y.get(axis == 0 ? 2 : 1), 0);
    x.fill([](int64_t) { return -INFINITY; });
    backend::softmax(y.view, x.view, axis, false);
    EXPECT_TRUE(std::isnan(y.get(0)));
    x.fill([](int64_t i) { return i == 3 ? NAN : 1.0; });
    backend::softmax(y.view, x.view, axis, false);
    EXPECT_TRUE(std::isnan(y.get(3)));
    EXPECT_EQ(y.get(0), 0.5);
  }
  Tensor scalar(DType::float32, {}), one(DType::float32, {});
  scalar.set(0, 3);
  backend::softmax(one.view, scalar.view, 0, false);
  EXPECT_EQ(one.get(0), 1);
  Tensor empty(DType::float32, {3, 0}), none(DType::float32, {3, 0});
  backend::softmax(none.view, empty.view, 1, false);
  backend::softmax(none.view, empty.view, 0, false);
  Tensor integer(DType::int64, {3}), result(DType::int64, {3});
  EXPECT_THROW(backend::softmax(result.view, integer.view, 0, false), Error);
}

TEST_P(Softmax, InPlaceAndAnyNumberOfThreads) {
  for (int axis : {0, 1, 2}) {
    Tensor x(DType::float32, {8, 20, 300}), y(DType::float32, {8, 20, 300});
    x.fillRandom(3);
    check(y, x, axis, false);
    backend::softmax(x.view, x.view, axis, false);
    for (int64_t i = 0; i < x.numel(); i++) ASSERT_EQ(x.get(i), y.get(i));
    expectSameForAnyThreads([&] {
      Tensor logits(DType::float16, {8, 20, 300}), out(DType::float16, {8, 20, 300});
      logits.fillRandom(4);
      backend::softmax(out.view, logits.view, axis, true);
      return out;
    });
  }
}

}  // namespace
}  // namespace adjoint::test
