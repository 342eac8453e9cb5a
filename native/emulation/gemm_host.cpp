// The twin of native/cuda/gemm_cublaslt.cpp: matrix products on the host, in float64.
#include <algorithm>
#include <numeric>
#include <vector>

#include "cuda/gemm.h"
#include "emulation/emulation.h"
#include "shared/convert.h"
#include "shared/functors.h"

namespace adjoint::cuda {
namespace {

// Row `row` of a matrix [rows, columns] as float64.
template <class S>
void readRow(std::vector<double>& out, const GemmMatrix& m, int64_t batch, int64_t row) {
  const S* data = static_cast<const S*>(m.data) + batch * m.batchStride;
  const int64_t start = m.transposed ? row : row * m.leading;
  const int64_t step = m.transposed ? m.leading : 1;
  for (size_t j = 0; j < out.size(); j++) {
    out[j] = convert<double>(data[start + static_cast<int64_t>(j) * step]);
  }
}

// What y's element is multiplied by.
template <class Y>
double slopeAt(const Gemm& g, int64_t at) {
  return g.below ? geluTanhSlope(convert<double>(static_cast<const Y*>(g.below)[at])) : 1;
}

double activated(Activation activation, double z) {
  if (activation == Activation::relu) return Unary<UnaryOp::relu>()(z);
  if (activation == Activation::geluTanh) return Unary<UnaryOp::geluTanh>()(z);
  return z;
}

template <class S, class Y>
void product(const Gemm& g) {
  const auto n = static_cast<size_t>(g.n), k = static_cast<size_t>(g.k);
  std::vector<double> a(k), b(k * n), row(n), sums(n), columnSums(n);
  for (int64_t batch = 0; batch < g.batch; batch++) {
    for (size_t p = 0; p < k && (batch == 0 || g.b.batchStride != 0); p++) {
      readRow<S>(row, g.b, batch, static_cast<int64_t>(p));
      std::copy(row.begin(), row.end(), b.begin() + static_cast<int64_t>(p * n));
    }
    for (int64_t i = 0; i < g.m; i++) {
      readRow<S>(a, g.a, batch, i);
      for (size_t j = 0; j < n; j++) {
        sums[j] = g.bias ? convert<double>(static_cast<const Y*>(g.bias)[j]) : 0;
      }
      for (size_t p = 0; p < k; p++) {
        const double x = a[p];
        const double* bRow = &b[p * n];
        for (size_t j = 0; j < n; j++) sums[j] += x * bRow[j];
      }
      Y* y = static_cast<Y*>(g.y.data) + batch * g.y.batchStride + i * g.y.leading;
      for (size_t j = 0; j < n; j++) {
        const int64_t at = i * g.y.leading + static_cast<int64_t>(j);
        const double z = g.accumulate ? convert<double>(y[j]) + sums[j] : sums[j];
        if (g.kept) static_cast<Y*>(g.kept)[at] = convert<Y>(z);
        const double value = activated(g.activation, z) * slopeAt<Y>(g, at);
        y[j] = convert<Y>(value);
        columnSums[j] += value;
      }
      if (g.sums) {
        static_cast<Y*>(g.sums)[i] = convert<Y>(std::accumulate(a.begin(), a.end(), 0.0));
      }
    }
  }
  for (size_t j = 0; g.columnSums && j < n; j++) {
    static_cast<Y*>(g.columnSums)[j] = convert<Y>(columnSums[j]);
  }
}

}  // namespace

std::string gemmLibrary() {
  return "the host";
}

void gemm(const Gemm& g, cudaStream_t stream) {
  emulation::enqueueHost(stream, [g] {
    visitDType(g.dtype, [&](auto tag) {
      using S = typename decltype(tag)::type;
      if (g.yDType() == g.dtype) {
        product<S, S>(g);
      } else {
        product<S, float>(g);
      }
    });
  });
}

// As the library has no algorithm for some shapes, there is none here for odd numbers of columns.
bool fusedGemm(const Gemm& g, cudaStream_t stream) {
  if (g.n % 2 == 1) return false;
  gemm(g, stream);
  return true;
}

}  // namespace adjoint::cuda
