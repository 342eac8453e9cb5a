// Linear layers with an activation. Of half types the library may apply it, or the slope of GELU,
// where the product is finished, and add up the bias's gradient where it reads or writes what that
// is the sum of; else there are kernels of our own: the elementwise ones, and one for dz and its
// column sums. It could apply relu's slope too, from a mask of a layout that it does not say, which
// must be made by the forward product: ours reads y.
#include "contract.h"
#include "cuda/elements.h"
#include "cuda/gemm_operand.h"
#include "cuda/vectors.h"
#include "shared/functors.h"
#include "shared/matrix.h"

namespace adjoint {
namespace cuda {
namespace {

// y = a b, y dense: of axes of one element its strides may say anything.
Gemm product(const View& y, const GemmOperand& a, const GemmOperand& b) {
  Gemm g{};
  g.dtype = y.dtype;
  g.batch = 1;
  g.m = y.size[0];
  g.n = y.size[1];
  g.k = a.view().size[1];
  g.a = a.matrix();
  g.b = b.matrix();
  g.y = {y.data, false, y.size[1], 0};
  return g;
}

bool isHalf(DType dtype) {
  return dtype == DType::bfloat16 || dtype == DType::float16;
}

// The library's GELU is the one by tanh, which it takes from the processor's approximation: within
// the rounding of a half type, and too coarse for float32. It leaves z in rows of a multiple of 8.
bool mayActivate(Activation activation, const View& y, const View* z) {
  if (activation == Activation::relu) return y.dtype != DType::float64 && !z;
  if (activation != Activation::geluTanh || !isHalf(y.dtype)) return false;
  return !z || (y.size[1] % 8 == 0 && isWideAligned(z->data));
}

// In one product; false where the library has none.
bool activatedProduct(const View& y, const View* z, const View& x, const View& w, const View* bias,
                      Activation activation) {
  if (!mayActivate(activation, y, z)) return false;
  const GemmOperand a(x), b(transposed(w));
  const Stand dense = denseInput(bias, y.dtype);
  Gemm g = product(y, a, b);
  g.bias = dense.view().data;
  g.activation = activation;
  g.kept = z ? z->data : nullptr;
  return fusedGemm(g, stream());
}

// dw = dyT x and dbias, the sum of dy over its rows, in one product; false where the library has
// none.
bool productAndSums(const View& dw, const View& dbias, const View& dy, const View& x) {
  if (!isHalf(dw.dtype) || dy.numel() == 0 || x.numel() == 0) return false;
  if (!dw.isContiguous() || !dbias.isContiguous()) return false;
  const GemmOperand a(transposed(dy)), b(x);
  Gemm g = product(dw, a, b);
  g.sums = dbias.data;
  return fusedGemm(g, stream());
}

// dx = (dz w) g'(u) and the sums of its rows, in one product; false where the library has none.
bool productAndSlopes(const View& dx, const View& dz, const View& w,
                      const backend::LayerBelow& below) {
  if (below.activation != Activation::geluTanh || !isHalf(dx.dtype)) return false;
  if (dx.numel() == 0 || dz.numel() == 0 || dx.size[1] % 8 != 0) return false;
  if (!dx.isContiguous() || !below.kept->isContiguous() || !isWideAligned(below.kept->data)) {
    return false;
  }
  if (below.dbias && !below.dbias->isContiguous()) return false;
  const GemmOperand a(dz), b(w);
  Gemm g = product(dx, a, b);
  g.below = below.kept->data;
  g.columnSums = below.dbias ? below.dbias->data : nullptr;
  return fusedGemm(g, stream());
}

// ---------------------------------------------------------------- slopes
constexpr int kSlopeThreads = 256, kSlopeLanes = 32, kSlopeGroups = kSlopeThreads / kSlopeLanes;
constexpr int64_t kChunkRows = 64, kMostChunks = 65535;

// dz, kept [rows, columns], dense; partial [chunks, columns], the sums of so many rows each.
template <class S>
struct Slopes {
  S* dz;
  const S *dy, *kept;
  ComputeOf<S>* partial;
  int64_t rows, columns, dyRow, chunkRows;
};

// dz = dy f'(z), V columns to a lane. Rows go round the groups of a block, whose sums are added in
// order.
template <BinaryOp op, class S, int V>
__global__ void __launch_bounds__(kSlopeThreads) slopeKernel(const Slopes<S> a) {
  using T = ComputeOf<S>;
  ADJOINT_SHARED(T, shared, kSlopeThreads * V);
  const int lane = static_cast<int>(threadIdx.x) % kSlopeLanes;
  const int group = static_cast<int>(threadIdx.x) / kSlopeLanes;
  const int64_t column = (int64_t(blockIdx.x) * kSlopeLanes + lane) * V;
  const int64_t begin = int64_t(blockIdx.y) * a.chunkRows;
  const int64_t end = begin + a.chunkRows < a.rows ? begin + a.chunkRows : a.rows;
  T sum[V] = {};
  if (column < a.columns) {
    for (int64_t row = begin + group; row < end; row += kSlopeGroups) {
      T dy[V], kept[V];
      loadFrom(a.dy + row * a.dyRow + column, dy);
      loadFrom(a.kept + row * a.columns + column, kept);
      Vector<S, V> dz;
      for (int j = 0; j < V; j++) {
        dz.value[j] = convert<S>(Binary<op>()(dy[j], kept[j]));
        sum[j] += convert<T>(dz.value[j]);
      }
      // Counted in vectors: by elements, nvcc stores them one at a time.
      reinterpret_cast<Vector<S, V>*>(a.dz)[(row * a.columns + column) / V] = dz;
    }
  }
  for (int j = 0; j < V; j++) shared[(j * kSlopeGroups + group) * kSlopeLanes + lane] = sum[j];
  __syncthreads();
  if (column >= a.columns) return;
  for (int j = group; j < V; j += kSlopeGroups) {
    T total = shared[j * kSlopeGroups * kSlopeLanes + lane];
    for (int other = 1; other < kSlopeGroups; other++) {
      total += shared[(j * kSlopeGroups + other) * kSlopeLanes + lane];
    }
    a.partial[int64_t(blockIdx.y) * a.columns + column + j] = total;
  }
}

template <BinaryOp op, class S>
void launchSlopes(const Slopes<S>& a, int64_t chunks) {
  constexpr int V = kPerAccess<S>;
  const bool isWide = a.columns % V == 0 && a.dyRow % V == 0 && isWideAligned(a.dz) &&
                      isWideAligned(a.dy) && isWideAligned(a.kept);
  const dim3 grid(static_cast<unsigned>(ceilDiv(a.columns, kSlopeLanes * (isWide ? V : 1))),
                  static_cast<unsigned>(chunks));
  if (isWide) {
    launch(grid, kSlopeThreads, 0, stream(), slopeKernel<op, S, V>, a);
  } else {
    launch(grid, kSlopeThreads, 0, stream(), slopeKernel<op, S, 1>, a);
  }
}

// dz, dense, and dbias
void slopesAndSums(const View& dz, const View& dbias, const View& dy, const View& kept,
                   Activation activation) {
  visitFloats("linearBackward", dz.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    Slopes<S> a{};
    a.dz = dz.as<S>();
    a.dy = dy.as<S>();
    a.kept = kept.as<S>();
    a.rows = dz.size[0];
    a.columns = dz.size[1];
    a.dyRow = dy.stride[0];
    a.chunkRows = std::max(kChunkRows, ceilDiv(a.rows, kMostChunks));
    View sums = dz;
    sums.dtype = computeDType(dz.dtype);
    sums.size[0] = ceilDiv(a.rows, a.chunkRows);
    const Workspace space(static_cast<size_t>(sums.numel()) * sizeof(ComputeOf<S>));
    sums.data = space.data();
    a.partial = static_cast<ComputeOf<S>*>(space.data());
    switch (activation) {
      case Activation::relu:
        launchSlopes<BinaryOp::reluBackward>(a, sums.size[0]);
        break;
      case Activation::gelu:
        launchSlopes<BinaryOp::geluBackward>(a, sums.size[0]);
        break;
      default:
        launchSlopes<BinaryOp::geluTanhBackward>(a, sums.size[0]);
    }
    backend::reduce(ReduceOp::sum, asRow(dbias), sums);
  });
}

// Into dz, dense, and dbias; dz may be dy.
void backwardOfActivation(const View& dz, const View* dbias, const View& dy, const View& kept,
                          Activation activation) {
  const bool hasRows = (dy.stride[1] == 1 || dy.size[1] == 1) && kept.isContiguous();
  if (dbias && hasRows && dz.numel() > 0) {
    return slopesAndSums(dz, *dbias, dy, kept, activation);
  }
  Operand left, right;
  left.view = dy;
  right.view = kept;
  backend::binary(backwardOf(activation), dz, left, right, dz.dtype);
  if (dbias) backend::reduce(ReduceOp::sum, asRow(*dbias), dz);
}

void backwardOfInput(const View& dx, const View& dz, const View& w,
                     const backend::LayerBelow& below) {
  if (productAndSlopes(dx, dz, w, below)) return;
  backend::matmul(dx, dz, w, nullptr);
  if (below.activation != Activation::none) {
    backwardOfActivation(dx, below.dbias, dx, *below.kept, below.activation);
  }
}

}  // namespace
}  // namespace cuda

void backend::linear(const View& y, const View* kept, const View& x, const View& w,
                     const View* bias, Activation activation) {
  if (y.numel() == 0) return;
  if (x.numel() > 0 && cuda::activatedProduct(y, kept, x, w, bias, activation)) return;
  const View& product = kept ? *kept : y;
  matmul(product, x, transposed(w), bias);
  if (activation != Activation::none) unary(unaryOf(activation), y, product, y.dtype);
}

void backend::linearBackward(const LinearBackwardArgs& a) {
  if (a.activation == Activation::none) {
    if (a.dx) cuda::backwardOfInput(*a.dx, a.dy, *a.w, a.below);
    if (a.dw && a.dbias && cuda::productAndSums(*a.dw, *a.dbias, a.dy, *a.x)) return;
    if (a.dw) matmul(*a.dw, transposed(a.dy), *a.x, nullptr);
    if (a.dbias) reduce(ReduceOp::sum, asRow(*a.dbias), a.dy);
    return;
  }
  const cuda::Workspace space(static_cast<size_t>(a.dy.numel()) * itemSize(a.dy.dtype));
  View dz = cuda::denseLike(a.dy, a.dy.dtype);
  dz.data = space.data();
  cuda::backwardOfActivation(dz, a.dbias, a.dy, *a.kept, a.activation);
  if (a.dx) cuda::backwardOfInput(*a.dx, dz, *a.w, a.below);
  if (a.dw) matmul(*a.dw, transposed(dz), *a.x, nullptr);
}

}  // namespace adjoint
