// The seam to matrix products: gemm_cublaslt.cpp calls NVIDIA's library,
// native/emulation/gemm_host.cpp computes on the host.
#pragma once
#include <cstdint>
#include <string>

#include "contract.h"
#include "cuda/launch.h"
#include "shared/dtype.h"

namespace adjoint::cuda {

// A matrix whose rows lie one after another, or, transposed, its columns.
struct GemmMatrix {
  void* data;
  bool transposed;
  int64_t leading;      // elements from one row (column) to the next
  int64_t batchStride;  // elements from one matrix to the next; 0: the same one (inputs alone)
};

// y [batch, m, n] = a [batch, m, k] @ b [batch, k, n] + bias [n], or y += that; floating dtypes,
// products accumulated in float32, or float64 where dtype is. y is not transposed; sizes are at
// least 1.
struct Gemm {
  DType dtype;
  int64_t batch, m, n, k;
  GemmMatrix a, b, y;
  const void* bias;  // dense, or nullptr
  bool accumulate;
  bool wideOutput;  // y and bias are float32, although dtype may be a half type
  // What fusedGemm does besides, for one matrix that is not accumulated: relu or geluTanh of y;
  // what that was applied to, laid out as y, or nullptr; the sums over k of a, [m] of y's dtype; or
  // y = geluTanh'(below) times the product, below laid out as y, and the sums of y's columns, [n]
  // of its dtype, or nullptr.
  Activation activation;
  void *kept, *sums;
  const void* below;
  void* columnSums;

  DType yDType() const { return wideOutput ? computeDType(dtype) : dtype; }
  bool isFused() const { return activation != Activation::none || sums || below; }
};

// The library and its version, or why there is none.
std::string gemmLibrary();

// What products and convolutions of float32 may be computed with (device.cpp): high allows TF32,
// medium bfloat16, where the library has an algorithm for it.
backend::Float32Products float32Products();

// Queues the product.
void gemm(const Gemm& g, cudaStream_t stream);
// Queues it with what is done besides, or returns false where the library has no algorithm for it.
bool fusedGemm(const Gemm& g, cudaStream_t stream);

}  // namespace adjoint::cuda
