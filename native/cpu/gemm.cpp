#include "cpu/gemm.h"

#include <algorithm>

#include "cpu/blocked_product.h"
#include "cpu/pool.h"
#include "cpu/workspace.h"

namespace adjoint::cpu {
namespace {

// Elements of a matrix that are worth a chunk of a parallel loop.
constexpr int64_t kGrainElements = 1 << 16;
// So few columns that dot products along the rows beat filling a vector with them.
constexpr int64_t kFewColumns = 4;

template <class T>
Product<T> transposed(const Product<T>& p) {
  return {p.n,    p.m, p.k,       p.b,    p.bColumn, p.bK,         p.a,       p.aK,
          p.aRow, p.c, p.cColumn, p.cRow, p.bias,    p.biasColumn, p.biasRow, p.rectify};
}

template <class T>
void rectify(T* y, int64_t stride, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    T& x = y[i * stride];
    x = x <= T(0) ? T(0) : x;
  }
}

template <class T>
bool hasFewColumns(const Product<T>& p) {
  return p.aK == 1 && (p.n == 1 || (p.n <= kFewColumns && p.k >= 32));
}

// y_j = a x_j for few columns j; a's rows have unit stride.
template <class T>
void matrixVectors(const Product<T>& p) {
  const GemmKernels<T>& kernels = gemmKernels<T>();
  const bool copies = p.bK != 1;
  Workspace columns(copies ? p.n * p.k * sizeof(T) : 0);
  const T* x = p.b;
  int64_t xColumn = p.bColumn;
  if (copies) {
    T* copy = columns.as<T>();
    for (int64_t j = 0; j < p.n; j++) {
      for (int64_t k = 0; k < p.k; k++) copy[j * p.k + k] = p.b[j * p.bColumn + k * p.bK];
    }
    x = copy;
    xColumn = p.k;
  }
  const int64_t grain = std::max<int64_t>(4, kGrainElements / std::max<int64_t>(1, p.k));
  parallelFor(p.m, grain, [&](int64_t begin, int64_t end) {
    for (int64_t j = 0; j < p.n; j++) {
      const T* bias = p.bias ? p.bias + begin * p.biasRow + j * p.biasColumn : nullptr;
      kernels.dots(p.c + begin * p.cRow + j * p.cColumn, p.cRow, p.a + begin * p.aRow, p.aRow,
                   x + j * xColumn, bias, p.biasRow, end - begin, p.k);
      if (p.rectify) rectify(p.c + begin * p.cRow + j * p.cColumn, p.cRow, end - begin);
    }
  });
}

// Whether c^T = b^T a^T is the better way to see it.
template <class T>
bool prefersTransposed(const Product<T>& p, const GemmKernels<T>& kernels) {
  if (p.cColumn != 1 && p.n > 1) return p.cRow == 1 || p.m == 1;
  if (p.n == 1 && p.aK != 1) return p.aRow == 1;  // a's rows can be read by vectors
  // The gradient of weights, dy^T x, where dy is large: as b it passes the cache once, in whole
  // lines, where all rows of a meet it (see BlockedProduct).
  constexpr double kLargeBytes = 2 << 20;
  const bool isLarge = static_cast<double>(p.k) * p.m * sizeof(T) > kLargeBytes;
  const bool isTransposedA = p.aRow == 1 && p.aK != 1 && p.bColumn == 1;
  if (isTransposedA && isLarge && p.m >= 2 * p.n && p.n <= 32 * kernels.rows) return true;
  // b would be transposed while it is packed, for few rows of a: pack a instead, and read b as it
  // is. c is then transposed while it is stored.
  return p.bColumn != 1 && p.bK == 1 && p.m <= 4 * kernels.columns && p.n >= 2 * p.m;
}

// A small c of a great depth: the depth is shared out, and the sums of its parts are added in
// order.
template <class T>
bool hasGreatDepth(const Product<T>& p) {
  constexpr int64_t kSmallResult = 1 << 15, kGreatDepth = 4096;
  return p.k >= kGreatDepth && p.m <= kSmallResult && p.n <= kSmallResult &&
         p.m * p.n <= kSmallResult;
}

template <class T>
void splitDepth(const Product<T>& p) {
  constexpr int64_t kPart = 1024, kMostParts = 12;
  const int64_t size = ceilDivide(p.k, std::min(kMostParts, p.k / kPart));
  const int64_t parts = ceilDivide(p.k, size), area = p.m * p.n;
  Workspace space(parts * area * sizeof(T));
  T* sums = space.as<T>();
  parallelFor(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      Product<T> part = p;
      part.a += i * size * p.aK;
      part.b += i * size * p.bK;
      part.k = std::min(size, p.k - i * size);
      part.c = sums + i * area;
      part.cRow = p.n;
      part.cColumn = 1;
      part.bias = i == 0 ? p.bias : nullptr;
      part.rectify = false;
      gemm(part);
    }
  });
  parallelFor(p.m, std::max<int64_t>(1, kGrainElements / (p.n * parts)),
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; i++) {
                  for (int64_t j = 0; j < p.n; j++) {
                    T sum = sums[i * p.n + j];
                    for (int64_t t = 1; t < parts; t++) sum += sums[t * area + i * p.n + j];
                    p.c[i * p.cRow + j * p.cColumn] = sum;
                  }
                  if (p.rectify) rectify(p.c + i * p.cRow, p.cColumn, p.n);
                }
              });
}

}  // namespace

template <>
const GemmKernels<float>& gemmKernels<float>() {
  return gemmTable().f32;
}
template <>
const GemmKernels<double>& gemmKernels<double>() {
  return gemmTable().f64;
}
template <>
const GemmKernels<uint64_t>& gemmKernels<uint64_t>() {
  return gemmTable().i64;
}

template <class T>
void gemm(const Product<T>& product) {
  if (product.m == 0 || product.n == 0) return;
  const Product<T> flipped = transposed(product);
  if (hasFewColumns(product)) return matrixVectors(product);
  if (hasFewColumns(flipped)) return matrixVectors(flipped);
  if (hasGreatDepth(product)) return splitDepth(product);
  const GemmKernels<T>& kernels = gemmKernels<T>();
  BlockedProduct<T>(prefersTransposed(product, kernels) ? flipped : product, kernels).run();
}

template void gemm(const Product<float>&);
template void gemm(const Product<double>&);
template void gemm(const Product<uint64_t>&);

}  // namespace adjoint::cpu
