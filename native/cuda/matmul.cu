// Matrix products: floating ones go to the library behind gemm.h, integers to a kernel here.
#include "contract.h"
#include "cuda/elements.h"
#include "cuda/gemm_operand.h"
#include "cuda/walk.h"
#include "shared/functors.h"

namespace adjoint {
namespace cuda {
namespace {

View batchAxes(const View& v) {
  View batch = v;
  batch.ndim = v.ndim - 2;
  return batch;
}

// One product for each step of all batch axes but the last, which the library takes at once.
void multiplyBatches(Gemm g, const View& y, const View& a, const View& b) {
  const View yb = batchAxes(y), ab = batchAxes(a), bb = batchAxes(b);
  const Plan<3> plan = makePlan({&yb, &ab, &bb});
  const auto bytes = static_cast<int64_t>(itemSize(g.dtype));
  GemmMatrix* matrices[3] = {&g.y, &g.a, &g.b};
  g.batch = plan.innerSize();
  for (int k = 0; k < 3; k++) matrices[k]->batchStride = plan.ndim ? plan.innerStride(k) : 0;
  // Weights that all matrices share: their rows make one tall matrix.
  const bool tall = g.b.batchStride == 0 && !g.a.transposed &&
                    g.a.batchStride == g.m * g.a.leading && g.y.batchStride == g.m * g.y.leading;
  const int64_t steps = plan.numel / g.batch, batch = g.batch;
  if (tall) {
    g.m *= g.batch;
    g.batch = 1;
  }
  for (int64_t step = 0; step < steps; step++) {
    Gemm one = g;
    GemmMatrix* moved[3] = {&one.y, &one.a, &one.b};
    for (int k = 0; k < 3; k++) {
      const int64_t offset = plan.offset(k, step * batch) * bytes;
      moved[k]->data = static_cast<char*>(moved[k]->data) + offset;
    }
    gemm(one, stream());
  }
}

void multiplyFloats(const View& y, const View& a, const View& b, const View* bias) {
  const auto yMatrix = asGemmMatrix(y);
  if (!yMatrix || yMatrix->transposed) {
    const Stand dense(y, denseLike(y, y.dtype), false);
    multiplyFloats(dense.view(), a, b, bias);
    return dense.finish();
  }
  const GemmOperand aOperand(a), bOperand(b);
  const Stand biasInput = denseInput(bias, y.dtype);
  const Matrix shape = matrixOf(y);
  Gemm g{};
  g.dtype = y.dtype;
  g.m = shape.rows;
  g.n = shape.columns;
  g.k = matrixOf(a).columns;
  g.a = aOperand.matrix();
  g.b = bOperand.matrix();
  g.y = *yMatrix;
  g.bias = biasInput.view().data;
  multiplyBatches(g, y, aOperand.view(), bOperand.view());
}

// ---------------------------------------------------------------- integers
constexpr int kTile = 16;

struct IntegerProduct {
  Walk<3> batch;  // y, a, b
  Matrix y, a, b;
  void *yData, *aData, *bData, *bias;  // bias: nullptr or [columns]
  int64_t biasStride;
  DType dtype;
};

// One thread per element of y, tiles of a and b in shared memory, sums in int64.
__global__ void __launch_bounds__(kTile* kTile) integerProductKernel(const IntegerProduct p) {
  ADJOINT_SHARED(int64_t, aTile, kTile * kTile);
  ADJOINT_SHARED(int64_t, bTile, kTile * kTile);
  const int tx = static_cast<int>(threadIdx.x) % kTile, ty = static_cast<int>(threadIdx.x) / kTile;
  int64_t offset[3];
  p.batch.offsets(blockIdx.z, offset);
  const int64_t row = int64_t(blockIdx.y) * kTile + ty, column = int64_t(blockIdx.x) * kTile + tx;
  int64_t sum = 0;
  for (int64_t first = 0; first < p.a.columns; first += kTile) {
    const bool aInside = row < p.a.rows && first + tx < p.a.columns;
    const bool bInside = first + ty < p.b.rows && column < p.b.columns;
    aTile[ty * kTile + tx] =
        aInside ? loadAs<int64_t>(p.aData, p.dtype,
                                  offset[1] + row * p.a.rowStride + (first + tx) * p.a.columnStride)
                : 0;
    bTile[ty * kTile + tx] =
        bInside
            ? loadAs<int64_t>(p.bData, p.dtype,
                              offset[2] + (first + ty) * p.b.rowStride + column * p.b.columnStride)
            : 0;
    __syncthreads();
    for (int k = 0; k < kTile; k++) {
      sum = plus(sum, times(aTile[ty * kTile + k], bTile[k * kTile + tx]));
    }
    __syncthreads();
  }
  if (row >= p.y.rows || column >= p.y.columns) return;
  if (p.bias) sum = plus(sum, loadAs<int64_t>(p.bias, p.dtype, column * p.biasStride));
  storeAs(p.yData, p.dtype, offset[0] + row * p.y.rowStride + column * p.y.columnStride, sum);
}

void multiplyIntegers(const View& y, const View& a, const View& b, const View* bias) {
  const View yb = batchAxes(y), ab = batchAxes(a), bb = batchAxes(b);
  const Plan<3> plan = makePlan({&yb, &ab, &bb});
  IntegerProduct p{};
  p.batch = makeWalk(plan);
  p.y = matrixOf(y);
  p.a = matrixOf(a);
  p.b = matrixOf(b);
  p.yData = y.data;
  p.aData = a.data;
  p.bData = b.data;
  p.dtype = y.dtype;
  if (bias) {
    p.bias = bias->data;
    p.biasStride = bias->stride[0];
  }
  constexpr int64_t kMostBlocks = 65535;
  if (plan.numel > kMostBlocks || ceilDiv(p.y.rows, kTile) > kMostBlocks) {
    fail(ErrorKind::shape, "matmul: expected integer matrices of at most %lld rows and batches",
         static_cast<long long>(kMostBlocks));
  }
  const dim3 grid(static_cast<unsigned>(ceilDiv(p.y.columns, kTile)),
                  static_cast<unsigned>(ceilDiv(p.y.rows, kTile)),
                  static_cast<unsigned>(plan.numel));
  launch(grid, kTile * kTile, 0, stream(), integerProductKernel, p);
}

}  // namespace
}  // namespace cuda

void backend::matmul(const View& y, const View& a, const View& b, const View* bias) {
  if (y.numel() == 0) return;
  if (a.numel() == 0) {  // sums of nothing
    if (bias) {
      copy(y, *bias);
    } else {
      fill(y, Scalar::of(0.0));
    }
    return;
  }
  if (isFloating(y.dtype)) {
    cuda::multiplyFloats(y, a, b, bias);
  } else {
    cuda::multiplyIntegers(y, a, b, bias);
  }
}

}  // namespace adjoint
