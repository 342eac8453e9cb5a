// The norm of many gradients as one vector, and their clipping to it (multi_tensor.h). The norm
// stays on the device: nothing waits for it.
#include "contract.h"
#include "cuda/group.h"
#include "cuda/multi_tensor.h"
#include "cuda/workspace.h"
#include "shared/norm.h"

namespace adjoint {
namespace cuda {
namespace {

// partial[block] = what the elements of a block's piece add up to
template <class S, class T, Norm kind>
__global__ void __launch_bounds__(kPieceThreads)
    normKernel(const Batch<1> batch, T* partial, const Magnitudes<T, kind> magnitudes) {
  static_assert(kPieceThreads == kGroupThreads, "a block's threads combine as one group");
  ADJOINT_SHARED(T, shared, kGroupThreads);
  const Piece piece = pieceOf(batch, static_cast<int>(blockIdx.x));
  const S* x = static_cast<const S*>(batch.data[piece.entry][0]);
  T chain[kVector] = {};
  for (int64_t i = piece.begin + threadIdx.x * kVector; i < piece.vectorEnd;
       i += kPieceThreads * kVector) {
    const Pack<S> pack = reinterpret_cast<const Pack<S>*>(x)[i / kVector];
    for (int j = 0; j < kVector; j++) {
      chain[j] = magnitudes.combine(chain[j], magnitudes.of(convert<T>(pack.value[j])));
    }
  }
  for (int64_t i = piece.vectorEnd + threadIdx.x; i < piece.end; i += kPieceThreads) {
    chain[0] = magnitudes.combine(chain[0], magnitudes.of(convert<T>(x[i])));
  }
  T total = magnitudes.combine(magnitudes.combine(chain[0], chain[1]),
                               magnitudes.combine(chain[2], chain[3]));
  total = combineGroup(magnitudes, total, shared, kGroupThreads, true);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// norm = the root of what all pieces add up to; one block.
template <class T, Norm kind>
__global__ void __launch_bounds__(kPieceThreads)
    rootKernel(void* norm, DType dtype, const T* partial, int64_t count,
               const Magnitudes<T, kind> magnitudes) {
  ADJOINT_SHARED(T, shared, kGroupThreads);
  T total = T(0);
  for (int64_t i = threadIdx.x; i < count; i += kPieceThreads) {
    total = magnitudes.combine(total, partial[i]);
  }
  total = combineGroup(magnitudes, total, shared, kGroupThreads, true);
  if (threadIdx.x == 0) storeAs(norm, dtype, 0, magnitudes.root(total));
}

template <class S, class T, Norm kind>
void totalNorm(const View& norm, const std::vector<View>& xs, double p) {
  const Magnitudes<T, kind> magnitudes{static_cast<T>(p)};
  int64_t pieces = 0;
  for (const View& x : xs) pieces += ceilDiv(x.numel(), kPiece);
  const Workspace memory(static_cast<size_t>(pieces) * sizeof(T));
  T* const partial = static_cast<T*>(memory.data());
  T* next = partial;
  auto batches = batchesFor<1>([&](const Batch<1>& batch, int blocks) {
    launch(static_cast<unsigned>(blocks), kPieceThreads, 0, stream(), normKernel<S, T, kind>, batch,
           next, magnitudes);
    next += blocks;
  });
  for (const View& x : xs) batches.add({&x});
  batches.flush();
  launch(1, kPieceThreads, 0, stream(), rootKernel<T, kind>, norm.data, norm.dtype, partial, pieces,
         magnitudes);
}

// x *= factor
template <class T>
struct Scaling {
  using Type = T;
  T factor;
  ADJOINT_DEVICE void operator()(T (&x)[1], bool) const { x[0] *= factor; }
};
// Gradients within the limit are not even read.
template <class T>
ADJOINT_DEVICE bool isIdle(const Scaling<T>& scaling) {
  return scaling.factor == T(1);
}
// factor = min(1, limit / (norm + 1e-6))
template <class T>
struct ScalingToNorm {
  const void* norm;
  DType dtype;
  T limit;
  ADJOINT_DEVICE Scaling<T> get() const {
    return {minimumOf(limit / (loadAs<T>(norm, dtype, 0) + T(1e-6)), T(1))};
  }
};

// Calls run(TypeTag<S>, TypeTag<T>) with what is stored and what is computed in.
template <class F>
void visitStored(DType dtype, const F& run) {
  switch (dtype) {
    case DType::float32:
      return run(TypeTag<float>(), TypeTag<float>());
    case DType::float64:
      return run(TypeTag<double>(), TypeTag<double>());
    case DType::bfloat16:
      return run(TypeTag<BFloat16>(), TypeTag<float>());
    case DType::float16:
      return run(TypeTag<Float16>(), TypeTag<float>());
    default:
      fail(ErrorKind::dtype, "clip: expected gradients of a floating-point type, got %s",
           dtypeName(dtype));
  }
}

}  // namespace
}  // namespace cuda

void backend::totalNorm(const View& norm, const std::vector<View>& xs, double p) {
  cuda::visitStored(norm.dtype, [&](auto stored, auto computed) {
    using S = typename decltype(stored)::type;
    using T = typename decltype(computed)::type;
    switch (normOf(p)) {
      case Norm::largest:
        return cuda::totalNorm<S, T, Norm::largest>(norm, xs, p);
      case Norm::sum:
        return cuda::totalNorm<S, T, Norm::sum>(norm, xs, p);
      case Norm::squares:
        return cuda::totalNorm<S, T, Norm::squares>(norm, xs, p);
      case Norm::powers:
        return cuda::totalNorm<S, T, Norm::powers>(norm, xs, p);
    }
  });
}

void backend::clipToNorm(const std::vector<View>& xs, const View& norm, double limit) {
  using namespace cuda;
  if (xs.empty()) return;
  visitStored(xs[0].dtype, [&](auto stored, auto computed) {
    using S = typename decltype(stored)::type;
    using T = typename decltype(computed)::type;
    auto batches = updatesOf<S, 1>(ScalingToNorm<T>{norm.data, norm.dtype, static_cast<T>(limit)});
    for (const View& x : xs) batches.add({&x});
    batches.flush();
  });
}

}  // namespace adjoint
