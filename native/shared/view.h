// A view: where the elements of a tensor lie. Backends read and write tensors only through views.
#pragma once
#include <cstdint>

#include "dtype.h"

namespace adjoint {

constexpr int kMaxDims = 8;

// `data` points at element [0, 0, …]; strides are in elements, may be 0 (broadcast) and, in
// inputs, may overlap. A view of zero elements may have any data pointer. Of sizes and strides only
// the first `ndim` have values: to clear all would take a small operation longer than to compute.
struct View {
  void* data = nullptr;
  DType dtype = DType::float32;
  int ndim = 0;
  int64_t size[kMaxDims];
  int64_t stride[kMaxDims];

  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < ndim; i++) n *= size[i];
    return n;
  }
  // Row-major without gaps. Axes of size 1 may have any stride.
  bool isContiguous() const {
    int64_t expected = 1;
    for (int i = ndim - 1; i >= 0; i--) {
      if (size[i] == 0) return true;
      if (size[i] == 1) continue;
      if (stride[i] != expected) return false;
      expected *= size[i];
    }
    return true;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// A number given instead of a tensor. `dtype` is float64 or int64 and says which field counts.
struct Scalar {
  DType dtype = DType::float64;
  double f = 0;
  int64_t i = 0;

  static Scalar of(double v) { return {DType::float64, v, static_cast<int64_t>(0)}; }
  static Scalar of(int64_t v) { return {DType::int64, static_cast<double>(v), v}; }
};

// An input of an elementwise kernel: a tensor or a number.
struct Operand {
  bool isScalar = false;
  View view;      // where !isScalar
  Scalar scalar;  // where isScalar
};

}  // namespace adjoint
