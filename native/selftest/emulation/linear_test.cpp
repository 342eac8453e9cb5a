// Linear layers with an activation, and their gradients, against float64 loops.
#include <string>

#include "device_tensor.h"

namespace adjoint::test {
namespace {

class LinearOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(LinearOnDevice);

constexpr Activation kAll[] = {Activation::none, Activation::relu, Activation::gelu,
                               Activation::geluTanh};

struct Case {
  int64_t n, k, m;
};
// Odd and even numbers of columns, rows for several blocks, sums of nothing, no rows.
const Case kCases[] = {{1, 1, 1},    {5, 7, 3},   {4, 6, 8}, {64, 12, 40},
                       {130, 9, 48}, {70, 5, 33}, {4, 0, 6}, {0, 3, 4}};

double activated(Activation activation, double z) {
  switch (activation) {
    case Activation::relu:
      return z <= 0 ? 0 : z;
    case Activation::gelu:
      return z * 0.5 * std::erfc(-z * std::sqrt(0.5));
    case Activation::geluTanh:
      return 0.5 * z * (1 + std::tanh(std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
    default:
      return z;
  }
}
double slope(Activation activation, double z) {
  const double u = std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z);
  const double du = std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * z * z), t = std::tanh(u);
  switch (activation) {
    case Activation::relu:
      return z <= 0 ? 0 : 1;
    case Activation::gelu:
      return 0.5 * std::erfc(-z * std::sqrt(0.5)) + z * std::exp(-z * z / 2) / std::sqrt(2 * M_PI);
    case Activation::geluTanh:
      return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * du;
    default:
      return 1;
  }
}

// a [m, k] @ b [k, n], each given transposed or not
Values product(const Values& a, bool aT, const Values& b, bool bT, int64_t m, int64_t n,
               int64_t k) {
  Values y(static_cast<size_t>(m * n), 0);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      for (int64_t l = 0; l < k; l++) {
        y[static_cast<size_t>(i * n + j)] += a[static_cast<size_t>(aT ? l * m + i : i * k + l)] *
                                             b[static_cast<size_t>(bT ? j * k + l : l * n + j)];
      }
    }
  }
  return y;
}

TEST_P(LinearOnDevice, forward) {
  for (const Case& c : kCases) {
    for (DType dtype : kFloats) {
      const Values x = randomValues(c.n * c.k, -1, 1, dtype), w = randomValues(c.m * c.k, -1, 1),
                   bias = randomValues(c.m, -2, 2, dtype, 3);
      const DeviceTensor dx(dtype, {c.n, c.k}, x), dw(dtype, {c.m, c.k}, w), db(dtype, {c.m}, bias);
      for (Activation activation : kAll) {
        for (int which = 0; which < 4; which++) {
          const bool hasBias = which & 1;
          const bool keeps = (which & 2) && activation >= Activation::gelu;
          SCOPED_TRACE(std::string(dtypeName(dtype)) + ", case " + std::to_string(&c - kCases) +
                       ", activation " + std::to_string(static_cast<int>(activation)) + ", which " +
                       std::to_string(which));
          Values z = product(x, false, w, true, c.n, c.m, c.k), want;
          for (size_t i = 0; i < z.size(); i++) {
            if (hasBias) z[i] += bias[i % static_cast<size_t>(c.m)];
            want.push_back(activated(activation, z[i]));
          }
          const DeviceTensor y = DeviceTensor::empty(dtype, {c.n, c.m});
          const DeviceTensor kept = DeviceTensor::empty(dtype, {c.n, c.m});
          backend::linear(y, keeps ? &kept.view : nullptr, dx, dw, hasBias ? &db.view : nullptr,
                          activation);
          // Where z is rounded on its way, that counts for its size.
          expectClose(y.read(), want, 4 * epsilonOf(dtype), 4);
          if (keeps) expectClose(kept.read(), z, epsilonOf(dtype));
        }
      }
    }
  }
}

TEST_P(LinearOnDevice, keepsNaN) {
  for (DType dtype : kFloats) {
    for (int64_t m : {7, 8, 48}) {
      for (Activation activation : kAll) {
        SCOPED_TRACE(std::string(dtypeName(dtype)) + ", activation " +
                     std::to_string(static_cast<int>(activation)));
        const Values x = {1, NAN, -1};
        const DeviceTensor dx(dtype, {3, 1}, x);
        const DeviceTensor w(dtype, {m, 1}, Values(static_cast<size_t>(m), 1.0));
        const DeviceTensor y = DeviceTensor::empty(dtype, {3, m});
        backend::linear(y, nullptr, dx, w, nullptr, activation);
        const Values got = y.read();
        for (int64_t i = 0; i < 3 * m; i++) {
          ASSERT_EQ(std::isnan(got[static_cast<size_t>(i)]), i / m == 1) << i;
        }
      }
    }
  }
}

// dy dense, by columns, one number for all, or with gaps between rows that are not wide.
TEST_P(LinearOnDevice, backward) {
  for (const Case& c : kCases) {
    for (DType dtype : kFloats) {
      const Values x = randomValues(c.n * c.k, -1, 1, dtype), w = randomValues(c.m * c.k, -1, 1),
                   kept = randomValues(c.n * c.m, -4, 4, dtype, 3);
      const DeviceTensor dx(dtype, {c.n, c.k}, x), dw(dtype, {c.m, c.k}, w),
          dkept(dtype, {c.n, c.m}, kept);
      for (Activation activation : kAll) {
        for (int layout = 0; layout < 4; layout++) {
          SCOPED_TRACE(std::string(dtypeName(dtype)) + ", case " + std::to_string(&c - kCases) +
                       ", activation " + std::to_string(static_cast<int>(activation)) +
                       ", layout " + std::to_string(layout));
          Values dy = randomValues(c.n * c.m, -1, 1, dtype, 4);
          if (layout == 2) dy.assign(dy.size(), 0.625);
          const DeviceTensor dense(dtype, {c.n, c.m}, dy);
          const Sizes strides = layout == 0   ? Sizes{c.m, 1}
                                : layout == 1 ? Sizes{1, c.n}
                                : layout == 2 ? Sizes{0, 0}
                                              : Sizes{c.m + 3, 1};
          const DeviceTensor grad(dtype, {c.n, c.m}, strides, 0,
                                  static_cast<size_t>(c.n * (c.m + 3) + 1));
          if (layout == 2) {
            View one = grad.view;
            one.size[0] = one.size[1] = 1;
            backend::fill(one, Scalar::of(0.625));
          } else {
            backend::copy(grad, dense);
          }
          Values dz, sums(static_cast<size_t>(c.m), 0);
          for (size_t i = 0; i < dy.size(); i++) {
            dz.push_back(dy[i] * slope(activation, kept[i]));
            sums[i % static_cast<size_t>(c.m)] += dz[i];
          }
          const DeviceTensor gx = DeviceTensor::empty(dtype, {c.n, c.k}),
                             gw = DeviceTensor::empty(dtype, {c.m, c.k}),
                             gb = DeviceTensor::empty(dtype, {c.m}),
                             alone = DeviceTensor::empty(dtype, {c.m});
          const View* state = activation == Activation::none ? nullptr : &dkept.view;
          backend::linearBackward(
              {&gx.view, &gw.view, &gb.view, grad, &dx.view, &dw.view, state, activation});
          backend::linearBackward(
              {nullptr, nullptr, &alone.view, grad, nullptr, nullptr, state, activation});
          const double tolerance = 2 * epsilonOf(dtype);
          const auto rows = static_cast<double>(c.n), columns = static_cast<double>(c.m);
          expectClose(gx.read(), product(dz, false, w, false, c.n, c.k, c.m), tolerance,
                      columns / 2 + 1);
          expectClose(gw.read(), product(dz, true, x, false, c.m, c.k, c.n), tolerance,
                      rows / 2 + 1);
          expectClose(gb.read(), sums, tolerance, rows / 2 + 1);
          expectClose(alone.read(), sums, tolerance, rows / 2 + 1);
        }
      }
    }
  }
}

// dx of a layer whose input an activation made, with its slope and the sums of the bias below.
TEST_P(LinearOnDevice, appliesTheSlopeOfTheLayerBelow) {
  for (const Case& c : kCases) {
    for (DType dtype : kFloats) {
      const Values dy = randomValues(c.n * c.m, -1, 1, dtype, 4),
                   w = randomValues(c.m * c.k, -1, 1),
                   kept = randomValues(c.n * c.k, -4, 4, dtype, 3);
      const DeviceTensor ddy(dtype, {c.n, c.m}, dy), dw(dtype, {c.m, c.k}, w),
          dkept(dtype, {c.n, c.k}, kept);
      for (Activation below : {Activation::relu, Activation::gelu, Activation::geluTanh}) {
        for (bool hasBias : {true, false}) {
          SCOPED_TRACE(std::string(dtypeName(dtype)) + ", case " + std::to_string(&c - kCases) +
                       ", activation " + std::to_string(static_cast<int>(below)));
          Values want = product(dy, false, w, false, c.n, c.k, c.m),
                 sums(static_cast<size_t>(c.k), 0);
          for (size_t i = 0; i < want.size(); i++) {
            want[i] *= slope(below, kept[i]);
            sums[i % static_cast<size_t>(c.k)] += want[i];
          }
          const DeviceTensor dx = DeviceTensor::empty(dtype, {c.n, c.k}),
                             dbias = DeviceTensor::empty(dtype, {c.k});
          backend::linearBackward({&dx.view,
                                   nullptr,
                                   nullptr,
                                   ddy,
                                   nullptr,
                                   &dw.view,
                                   nullptr,
                                   Activation::none,
                                   {below, &dkept.view, hasBias ? &dbias.view : nullptr}});
          const double tolerance = 2 * epsilonOf(dtype);
          const auto rows = static_cast<double>(c.n), columns = static_cast<double>(c.m);
          expectClose(dx.read(), want, tolerance, columns / 2 + 1);
          if (hasBias)
            expectClose(dbias.read(), sums, tolerance, (rows / 2 + 1) * (columns / 2 + 1));
        }
      }
    }
  }
}

}  // namespace
}  // namespace adjoint::test
