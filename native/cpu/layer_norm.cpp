// Layer norm (Ba et al. 2016) and RMS norm (Zhang & Sennrich 2019). The gradients of weight and
// bias are sums over all rows: each chunk of rows adds up its own, and these are added in the order
// of the chunks.
#include "cpu/kernels/layer_norm.h"

#include <algorithm>
#include <cmath>

#include "cpu/compute_view.h"
#include "cpu/pool.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kTaskElements = 1 << 14;
constexpr int64_t kMostChunks = 64;  // of the backward pass, each with sums of its own
constexpr int64_t kBlockRows = 64;   // whose sums are formed in T, and over the blocks in float64
constexpr int64_t kCombineColumns = 512;

// Rows that a task takes.
int64_t rowGrain(int64_t length) {
  return std::max<int64_t>(1, kTaskElements / length);
}

template <class T>
const LayerNormKernels<T>& kernels(bool centred) {
  const LayerNormTable& table = layerNormTable();
  if constexpr (std::is_same<T, float>::value) {
    return centred ? table.centred32 : table.plain32;
  } else {
    return centred ? table.centred64 : table.plain64;
  }
}

// Weight or bias as contiguous values of T; those of none are all `otherwise`.
template <class T>
class Coefficients {
 public:
  Coefficients(const View* given, int64_t length, T otherwise)
      : space_(static_cast<size_t>(length) * sizeof(T)) {
    if (!given) {
      std::fill(space_.as<T>(), space_.as<T>() + length, otherwise);
      return;
    }
    const DType dtype = std::is_same<T, double>::value ? DType::float64 : DType::float32;
    View dense = detail::denseLike(*given, dtype, true);
    dense.data = space_.as<T>();
    backend::copy(dense, *given);
  }
  const T* data() { return space_.as<T>(); }

 private:
  Workspace space_;
};

template <class T>
void normalize(const backend::LayerNormArgs& a) {
  const int64_t rows = a.rstd.numel(), length = a.x.numel() / rows;
  const ComputeInput x(a.x, Layout::dense);
  ComputeOutput y(a.y, Layout::dense);
  Coefficients<T> weight(a.weight, length, T(1)), bias(a.bias, length, T(0));
  T* mean = a.mean ? a.mean->as<T>() : nullptr;
  T* rstd = a.rstd.as<T>();
  const LayerNormKernels<T>& k = kernels<T>(a.mean != nullptr);
  parallelFor(rows, rowGrain(length), [&](int64_t begin, int64_t end) {
    const int64_t at = begin * length;
    k.forward(y.view().as<T>() + at, mean ? mean + begin : nullptr, rstd + begin,
              x.view().as<T>() + at, weight.data(), bias.data(), end - begin, length, a.eps);
  });
  y.finish();
}

template <class T>
void gradient(const backend::LayerNormBackwardArgs& a) {
  const int64_t rows = a.rstd.numel(), length = a.x.numel() / rows;
  const ComputeInput x(a.x, Layout::dense), dy(a.dy, Layout::dense), rstd(a.rstd, Layout::dense);
  const ComputeInput mean(a.mean ? *a.mean : a.rstd, Layout::dense);
  ComputeOutput dx(a.dx, Layout::dense);
  Coefficients<T> weight(a.weight, length, T(1));
  const LayerNormKernels<T>& k = kernels<T>(a.mean != nullptr);

  const int64_t grain = std::max(rowGrain(length), (rows + kMostChunks - 1) / kMostChunks);
  const int64_t chunks = (rows + grain - 1) / grain;
  const int64_t sums = a.dbias ? 2 * length : length;  // of a chunk: dweight, then dbias
  Workspace partial(static_cast<size_t>(chunks * sums) * sizeof(double));
  parallelFor(rows, grain, [&](int64_t begin, int64_t end) {
    double* total = partial.as<double>() + begin / grain * sums;
    std::fill(total, total + sums, 0);
    Workspace space(static_cast<size_t>(sums) * sizeof(T));
    T* block = space.as<T>();
    for (int64_t row = begin; row < end; row += kBlockRows) {
      const int64_t at = row * length;
      std::fill(block, block + sums, T(0));
      k.backward(dx.view().as<T>() + at, block, a.dbias ? block + length : nullptr,
                 dy.view().as<T>() + at, x.view().as<T>() + at, weight.data(),
                 mean.view().as<T>() + row, rstd.view().as<T>() + row,
                 std::min(kBlockRows, end - row), length);
      for (int64_t i = 0; i < sums; i++) total[i] += static_cast<double>(block[i]);
    }
  });
  dx.finish();

  ComputeOutput dweight(a.dweight, Layout::dense, DType::float64);
  ComputeOutput dbias(a.dbias ? *a.dbias : a.dweight, Layout::dense, DType::float64);
  parallelFor(sums, kCombineColumns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      double total = 0;
      for (int64_t c = 0; c < chunks; c++) total += partial.as<double>()[c * sums + i];
      (i < length ? dweight.view().as<double>()[i] : dbias.view().as<double>()[i - length]) = total;
    }
  });
  dweight.finish();
  if (a.dbias) dbias.finish();
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

void layerNorm(const LayerNormArgs& a) {
  using namespace cpu;
  if (a.x.numel() == 0) {
    // The mean of nothing.
    fill(a.rstd, Scalar::of(std::nan("")));
    if (a.mean) fill(*a.mean, Scalar::of(std::nan("")));
    return;
  }
  visitFloat(a.x.dtype, [&](auto tag) { normalize<typename decltype(tag)::type>(a); });
}

void layerNormBackward(const LayerNormBackwardArgs& a) {
  using namespace cpu;
  if (a.x.numel() == 0) {
    fill(a.dweight, Scalar::of(0.0));
    if (a.dbias) fill(*a.dbias, Scalar::of(0.0));
    return;
  }
  visitFloat(a.x.dtype, [&](auto tag) { gradient<typename decltype(tag)::type>(a); });
}

}  // namespace adjoint::backend
