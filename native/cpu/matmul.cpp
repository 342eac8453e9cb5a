#include "cpu/matmul.h"

#include <algorithm>
#include <atomic>
#include <type_traits>

#include "contract.h"
#include "cpu/compute_view.h"
#include "cpu/features.h"
#include "cpu/gemm.h"
#include "cpu/gemm_bf16.h"

namespace adjoint::cpu {
namespace {

// One operand as a batch of matrices.
struct Matrices {
  void* data;
  int64_t row, column;           // strides of the matrix
  int64_t batch[kMaxDims] = {};  // strides of the batch axes
};

Matrices matricesOf(const View& x, int batchDims) {
  Matrices m{x.data, x.stride[x.ndim - 2], x.stride[x.ndim - 1], {}};
  std::copy_n(x.stride, batchDims, m.batch);
  return m;
}

std::atomic<backend::Float32Products> float32Products{backend::Float32Products::highest};

bool isMultipliedInBf16(DType dtype) {
  return dtype == DType::bfloat16 && bf16Multiply();
}

// In bfloat16; false where the parts of float32 operands do not allow it.
template <class T>
bool multiplyBf16(const Product<T>& p, int terms) {
  constexpr bool isFloat = std::is_same<T, float>::value;
  Bf16Product low{
      p.m,     p.n,    p.k,      {p.a, isFloat, p.aRow, p.aK}, {p.b, isFloat, p.bColumn, p.bK}, p.c,
      isFloat, p.cRow, p.cColumn};
  low.bias = p.bias;
  low.biasIsFloat = isFloat;
  low.biasRow = p.biasRow;
  low.biasColumn = p.biasColumn;
  low.terms = terms;
  low.rectify = p.rectify;
  return gemmBf16(low, bf16Multiply());
}

template <class T>
void multiply(const Product<T>& p) {
  gemm(p);
}
template <>
void multiply(const Product<float>& p) {
  using backend::Float32Products;
  const Float32Products precision = float32Products.load(std::memory_order_relaxed);
  // AVX512-BF16 at its best is twice as fast as float32: three products would take longer.
  const bool pays = precision == Float32Products::high
                        ? hasFeature(Feature::amxBf16)
                        : precision == Float32Products::medium && bf16Multiply();
  if (pays && multiplyBf16(p, precision == Float32Products::high ? 3 : 1)) return;
  gemm(p);
}
template <>
void multiply(const Product<BFloat16>& p) {
  multiplyBf16(p, 1);
}

template <class T>
class BatchedProduct {
 public:
  BatchedProduct(const View& y, const View& a, const View& b, const View* bias, bool rectify)
      : rectify_(rectify),
        dims_(y.ndim - 2),
        y_(matricesOf(y, dims_)),
        a_(matricesOf(a, dims_)),
        b_(matricesOf(b, dims_)) {
    m_ = y.size[y.ndim - 2];
    n_ = y.size[y.ndim - 1];
    k_ = a.size[a.ndim - 1];
    std::copy_n(y.size, dims_, size_);
    if (bias) {
      bias_ = bias->as<T>();
      biasStride_ = bias->stride[0];
    }
    foldBatchIntoRows();
  }

  void run() const {
    int64_t count = 1;
    for (int d = 0; d < dims_; d++) count *= size_[d];
    forEachProduct(count, 2.0 * m_ * n_ * k_, [&](int64_t i) { product(i); });
  }

 private:
  // x [B, M, K] @ w [K, N] is one product of B M rows, where the rows are evenly spaced.
  void foldBatchIntoRows() {
    while (dims_ > 0) {
      const int d = dims_ - 1;
      if (size_[d] != 1) {
        if (m_ == 1) {
          a_.row = a_.batch[d];
          y_.row = y_.batch[d];
        }
        const bool isEven = a_.batch[d] == m_ * a_.row && y_.batch[d] == m_ * y_.row;
        if (b_.batch[d] != 0 || !isEven) return;
        m_ *= size_[d];
      }
      dims_--;
    }
  }

  void product(int64_t index) const {
    int64_t a = 0, b = 0, y = 0;
    for (int d = dims_ - 1; d >= 0; d--) {
      const int64_t i = index % size_[d];
      index /= size_[d];
      a += i * a_.batch[d];
      b += i * b_.batch[d];
      y += i * y_.batch[d];
    }
    multiply<T>({m_, n_, k_, at(a_, a), a_.row, a_.column, at(b_, b), b_.row, b_.column, at(y_, y),
                 y_.row, y_.column, bias_, 0, biasStride_, rectify_});
  }
  static T* at(const Matrices& x, int64_t offset) { return static_cast<T*>(x.data) + offset; }

  bool rectify_;
  int dims_;
  Matrices y_, a_, b_;
  int64_t m_, n_, k_;
  int64_t size_[kMaxDims] = {};
  const T* bias_ = nullptr;
  int64_t biasStride_ = 0;
};

template <class T>
void product(const View& y, const View& a, const View& b, const View* bias, bool rectify) {
  BatchedProduct<T>(y, a, b, bias, rectify).run();
}

// y, a, b and bias are of their compute type.
void productOfType(const View& y, const View& a, const View& b, const View* bias, bool rectify) {
  switch (computeType(y.dtype)) {
    case Compute::f32:
      return product<float>(y, a, b, bias, rectify);
    case Compute::f64:
      return product<double>(y, a, b, bias, rectify);
    case Compute::i64:
      return product<uint64_t>(y, a, b, bias, rectify);
  }
}

}  // namespace

DType productDType(DType dtype) {
  return isMultipliedInBf16(dtype) ? dtype : computeDType(dtype);
}

void matrixProduct(const View& y, const View& a, const View& b, const View* bias, bool rectify) {
  if (y.numel() == 0) return;
  if (y.dtype == computeDType(y.dtype)) return productOfType(y, a, b, bias, rectify);
  if (isMultipliedInBf16(y.dtype)) {
    return product<BFloat16>(y, a, b, bias, rectify);
  }
  const ComputeInput computeA(a), computeB(b), computeBias(bias ? *bias : View{});
  ComputeOutput computeY(y);
  productOfType(computeY.view(), computeA.view(), computeB.view(),
                bias ? &computeBias.view() : nullptr, rectify);
  computeY.finish();
}

void wideProduct(const View& y, const View& a, const View& b) {
  if (y.numel() == 0) return;
  if (isMultipliedInBf16(a.dtype)) {
    Bf16Product p{y.size[0],
                  y.size[1],
                  a.size[1],
                  {a.data, false, a.stride[0], a.stride[1]},
                  {b.data, false, b.stride[1], b.stride[0]},
                  y.data,
                  true,
                  y.stride[0],
                  y.stride[1]};
    p.terms = 1;
    gemmBf16(p, bf16Multiply());
    return;
  }
  productOfType(y, ComputeInput(a).view(), ComputeInput(b).view(), nullptr, false);
}

}  // namespace adjoint::cpu

namespace adjoint::backend {

void setFloat32Products(Float32Products precision) {
  cpu::float32Products.store(precision, std::memory_order_relaxed);
}

void matmul(const View& y, const View& a, const View& b, const View* bias) {
  cpu::matrixProduct(y, a, b, bias, false);
}

}  // namespace adjoint::backend
