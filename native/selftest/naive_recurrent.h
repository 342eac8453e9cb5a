// LSTM and GRU by plain loops in double precision, one row of the batch at a time; gates are kept
// as the kernels keep them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace adjoint::test {

// A layer's arrays in row-major order; h0 and c0 are empty for zeros.
struct RecurrentArrays {
  int64_t steps, batch, features, units;
  bool isLstm, reverse;
  std::vector<double> x, wIh, wHh, bIh, bHh, h0, c0, dy, dc;

  int64_t blocks() const { return isLstm ? 4 : 3; }
  int64_t row(int64_t t, int64_t n) const { return t * batch + n; }
  int64_t at(int64_t step) const { return reverse ? steps - 1 - step : step; }
};

class NaiveRecurrent {
 public:
  explicit NaiveRecurrent(const RecurrentArrays& k)
      : y(k.steps * k.batch * k.units),
        cells(y.size()),
        gates(4 * y.size()),
        dgates(gates.size()),
        dbias(4 * k.units),
        dh0(k.batch * k.units),
        dc0(dh0.size()) {
    for (int64_t n = 0; n < k.batch; n++) {
      forward(k, n);
      backward(k, n);
    }
  }

  std::vector<double> y, cells, gates, dgates, dbias, dh0, dc0;

 private:
  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

  void forward(const RecurrentArrays& k, int64_t n) {
    const int64_t units = k.units;
    for (int64_t step = 0; step < k.steps; step++) {
      const int64_t r = k.row(k.at(step), n);
      for (int64_t u = 0; u < units; u++) {
        double a[4], m[4];
        for (int64_t b = 0; b < k.blocks(); b++) {
          a[b] = k.bIh[b * units + u];
          m[b] = k.bHh[b * units + u];
          for (int64_t i = 0; i < k.features; i++) {
            a[b] += k.wIh[(b * units + u) * k.features + i] * k.x[r * k.features + i];
          }
          for (int64_t i = 0; i < units; i++) {
            m[b] += k.wHh[(b * units + u) * units + i] * before(k, y, k.h0, step, n, i);
          }
        }
        double* g = &gates[r * 4 * units + u];
        if (k.isLstm) {
          for (int64_t b = 0; b < 4; b++) {
            g[b * units] = b == 2 ? std::tanh(a[b] + m[b]) : sigmoid(a[b] + m[b]);
          }
          const double c = before(k, cells, k.c0, step, n, u);
          cells[r * units + u] = g[units] * c + g[0] * g[2 * units];
          y[r * units + u] = g[3 * units] * std::tanh(cells[r * units + u]);
        } else {
          g[units] = sigmoid(a[0] + m[0]);
          g[2 * units] = sigmoid(a[1] + m[1]);
          g[3 * units] = m[2];
          g[0] = std::tanh(a[2] + g[units] * m[2]);
          y[r * units + u] =
              (1 - g[2 * units]) * g[0] + g[2 * units] * before(k, y, k.h0, step, n, u);
        }
      }
    }
  }

  void backward(const RecurrentArrays& k, int64_t n) {
    const int64_t units = k.units;
    std::vector<double> dh(units), dc(units);
    for (int64_t u = 0; u < units; u++) dc[u] = k.dc[n * units + u];
    for (int64_t step = k.steps - 1; step >= 0; step--) {
      const int64_t r = k.row(k.at(step), n);
      std::vector<double> sent(units);
      for (int64_t u = 0; u < units; u++) {
        const double* g = &gates[r * 4 * units + u];
        double* d = &dgates[r * 4 * units + u];
        const double total = dh[u] + k.dy[r * units + u];
        if (k.isLstm) {
          const double i = g[0], f = g[units], c = g[2 * units], o = g[3 * units];
          const double t = std::tanh(cells[r * units + u]);
          const double toCell = dc[u] + total * o * (1 - t * t);
          d[0] = toCell * c * i * (1 - i);
          d[units] = toCell * before(k, cells, k.c0, step, n, u) * f * (1 - f);
          d[2 * units] = toCell * i * (1 - c * c);
          d[3 * units] = total * t * o * (1 - o);
          dc[u] = toCell * f;
        } else {
          const double c = g[0], reset = g[units], z = g[2 * units], m = g[3 * units];
          d[0] = total * (1 - z) * (1 - c * c);
          d[units] = d[0] * m * reset * (1 - reset);
          d[2 * units] = total * (before(k, y, k.h0, step, n, u) - c) * z * (1 - z);
          d[3 * units] = d[0] * reset;
          sent[u] = total * z;
        }
      }
      for (int64_t i = 0; i < 4 * units; i++) dbias[i] += dgates[r * 4 * units + i];
      for (int64_t u = 0; u < units; u++) {
        for (int64_t b = 0; b < k.blocks(); b++) {
          const int64_t block = k.isLstm ? b : b + 1;
          for (int64_t i = 0; i < units; i++) {
            sent[i] += dgates[(r * 4 + block) * units + u] * k.wHh[(b * units + u) * units + i];
          }
        }
      }
      dh = sent;
    }
    std::copy(dh.begin(), dh.end(), dh0.begin() + n * units);
    std::copy(dc.begin(), dc.end(), dc0.begin() + n * units);
  }

  // The state before a step.
  static double before(const RecurrentArrays& k, const std::vector<double>& values,
                       const std::vector<double>& initial, int64_t step, int64_t n, int64_t u) {
    if (step > 0) return values[k.row(k.at(step - 1), n) * k.units + u];
    return initial.empty() ? 0 : initial[n * k.units + u];
  }
};

}  // namespace adjoint::test
