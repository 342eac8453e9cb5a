// Convolutions by kernels of our own, as products (conv2d_product.h). Sums are taken in an order
// that depends on the shape alone.
#include <algorithm>
#include <optional>

#include "cuda/conv2d.h"
#include "cuda/conv2d_product.h"
#include "cuda/group.h"
#include "cuda/workspace.h"

namespace adjoint::cuda {
namespace {

constexpr int kTile = 64, kTileDepth = 16, kTileThreads = 256;
constexpr int kTilePacks = kTile / kVector, kRowPacks = kTilePacks + 1;
constexpr int kOwn = kTile * kTileDepth / kTileThreads;  // elements of a tile that a thread loads
static_assert(kTilePacks * kTilePacks == kTileThreads && kOwn == kVector, "conv2d: tiles");

// A thread's elements of the tiles of a and b that begin at depth `first`.
template <class S, class C, Conv2dOp op>
ADJOINT_DEVICE void loadOwn(const Conv2dProduct& p, int group, uint32_t rowTile, bool isColumn,
                            const Triple& column, uint32_t first, uint32_t end, C (&a)[kOwn],
                            C (&b)[kOwn]) {
  const uint32_t thread = threadIdx.x;
  const uint32_t aDepth = first + thread % kTileDepth;
  const Triple d = p.inDepth.split(aDepth);
  for (int i = 0; i < kOwn; i++) {
    const uint32_t row = rowTile + thread / kTileDepth + i * (kTileThreads / kTileDepth);
    const bool inside = row < p.rows && aDepth < end;
    a[i] = inside ? factorA<S, C, op>(p, group, static_cast<int>(row), d) : C(0);
  }
  for (int i = 0; i < kOwn; i++) {
    const uint32_t bDepth = first + thread / kTile + i * (kTileThreads / kTile);
    const bool inside = isColumn && bDepth < end;
    b[i] = inside ? factorB<S, C, op>(p, group, p.inDepth.split(bDepth), column) : C(0);
  }
}

// A block has 64 x 64 elements of the result, a thread 4 x 4 of them. The next tiles are read while
// these are multiplied.
template <class S, class C, Conv2dOp op>
__global__ void __launch_bounds__(kTileThreads) tileKernel(const Conv2dProduct p) {
  ADJOINT_SHARED(Pack<C>, aTile, kTileDepth * kRowPacks);
  ADJOINT_SHARED(Pack<C>, bTile, kTileDepth * kTilePacks);
  C* const aElements = reinterpret_cast<C*>(aTile);
  C* const bElements = reinterpret_cast<C*>(bTile);
  const uint32_t thread = threadIdx.x;
  const uint32_t tx = thread % kTilePacks, ty = thread / kTilePacks;
  const uint32_t columnTile = blockIdx.x * kTile, rowTile = blockIdx.y * kTile;
  const uint32_t ownColumn = columnTile + thread % kTile;
  const bool isColumn = ownColumn < p.columns;
  const Triple column = p.column.split(isColumn ? ownColumn : 0);
  for (uint32_t z = blockIdx.z; z < uint32_t(p.groups) * p.chunks; z += gridDim.z) {
    const int chunk = static_cast<int>(z / p.groups), group = static_cast<int>(z % p.groups);
    const uint32_t begin = chunk * p.chunk;
    const uint32_t end = p.depth - begin < p.chunk ? p.depth : begin + p.chunk;
    C sum[kVector][kVector] = {};
    C a[kOwn], b[kOwn];
    loadOwn<S, C, op>(p, group, rowTile, isColumn, column, begin, end, a, b);
    for (uint32_t first = begin; first < end; first += kTileDepth) {
      __syncthreads();
      for (int i = 0; i < kOwn; i++) {
        const uint32_t row = thread / kTileDepth + i * (kTileThreads / kTileDepth);
        aElements[thread % kTileDepth * (kRowPacks * kVector) + row] = a[i];
        bElements[(thread / kTile + i * (kTileThreads / kTile)) * kTile + thread % kTile] = b[i];
      }
      __syncthreads();
      if (first + kTileDepth < end) {
        loadOwn<S, C, op>(p, group, rowTile, isColumn, column, first + kTileDepth, end, a, b);
      }
      for (int d = 0; d < kTileDepth; d++) {
        const Pack<C> left = aTile[d * kRowPacks + ty], right = bTile[d * kTilePacks + tx];
        for (int i = 0; i < kVector; i++) {
          for (int j = 0; j < kVector; j++) sum[i][j] += left.value[i] * right.value[j];
        }
      }
    }
    for (int j = 0; j < kVector; j++) {
      const uint32_t c = columnTile + tx * kVector + j;
      if (c >= p.columns) break;
      const Triple place = p.column.split(c);
      for (int i = 0; i < kVector; i++) {
        const uint32_t row = rowTile + ty * kVector + i;
        if (row >= p.rows) break;
        if (p.partial) {
          static_cast<C*>(p.partial)[partialAt(p, chunk, group, row, c)] = sum[i][j];
        } else {
          writeResult<S, C, op>(p, group, static_cast<int>(row), place, sum[i][j]);
        }
      }
    }
  }
}

// Adds up the chunks of the depth in their order.
template <class S, class C, Conv2dOp op>
__global__ void __launch_bounds__(kTileThreads) sumKernel(const Conv2dProduct p) {
  const int64_t count = int64_t(p.groups) * p.rows * p.columns;
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
    C sum = static_cast<const C*>(p.partial)[i];
    for (int chunk = 1; chunk < p.chunks; chunk++) {
      sum += static_cast<const C*>(p.partial)[chunk * count + i];
    }
    const int64_t row = i / p.columns;
    writeResult<S, C, op>(p, static_cast<int>(row / p.rows), static_cast<int>(row % p.rows),
                          p.column.split(static_cast<uint32_t>(i - row * p.columns)), sum);
  }
}

// Few rows, as in depthwise convolutions: one thread for each element of the result.
template <class S, class C, Conv2dOp op>
__global__ void __launch_bounds__(kTileThreads) narrowKernel(const Conv2dProduct p) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= p.columns) return;
  const Triple column = p.column.split(c);
  for (uint32_t z = blockIdx.y; z < uint32_t(p.groups) * p.rows; z += gridDim.y) {
    const int group = static_cast<int>(z / p.rows), row = static_cast<int>(z % p.rows);
    C sum = C(0);
    for (uint32_t d = 0; d < p.depth; d++) {
      const Triple place = p.inDepth.split(d);
      sum += factorA<S, C, op>(p, group, row, place) * factorB<S, C, op>(p, group, place, column);
    }
    writeResult<S, C, op>(p, group, row, column, sum);
  }
}

template <class C>
struct Addition {
  ADJOINT_DEVICE C combine(C a, C b) const { return a + b; }
};

// Few columns as well: a block sums the pixels for each element of the filters.
template <class S, class C>
__global__ void __launch_bounds__(kGroupThreads) narrowWeightKernel(const Conv2dProduct p) {
  constexpr Conv2dOp op = Conv2dOp::backwardWeight;
  ADJOINT_SHARED(C, shared, kGroupThreads);
  const int64_t count = int64_t(p.groups) * p.rows * p.columns;
  for (int64_t i = blockIdx.x; i < count; i += gridDim.x) {
    const int64_t filter = i / p.columns;
    const int group = static_cast<int>(filter / p.rows), row = static_cast<int>(filter % p.rows);
    const Triple column = p.column.split(static_cast<uint32_t>(i - filter * p.columns));
    C sum = C(0);
    for (uint32_t d = threadIdx.x; d < p.depth; d += kGroupThreads) {
      const Triple place = p.inDepth.split(d);
      sum += factorA<S, C, op>(p, group, row, place) * factorB<S, C, op>(p, group, place, column);
    }
    sum = combineGroup(Addition<C>(), sum, shared, kGroupThreads, true);
    if (threadIdx.x == 0) writeResult<S, C, op>(p, group, row, column, sum);
  }
}

constexpr int64_t kMostBlocks = 65535;  // along y and z
constexpr int64_t kNarrow = 4;

int asInt(int64_t value) {
  if (value > kMaxIndex) fail(ErrorKind::shape, "conv2d: expected sizes below 2^31");
  return static_cast<int>(value);
}
uint32_t asCount(int64_t a, int64_t b, int64_t c) {
  // The factors are below 2^31 each, so a float64 shows what does not fit.
  if (double(a) * double(b) * double(c) > double(kMaxIndex - kTileThreads)) {
    fail(ErrorKind::shape, "conv2d: expected fewer than 2^31 pixels of all images");
  }
  return static_cast<uint32_t>(a * b * c);
}

// Empty axes are never split along.
Splitter splitterOf(int64_t middle, int64_t inner) {
  return Splitter(std::max<int64_t>(1, middle), std::max<int64_t>(1, inner));
}

Conv2dProduct describe(const Conv2d& c) {
  Conv2dProduct p{};
  p.x = c.x;
  p.w = c.w;
  p.y = c.y;
  p.bias = c.bias;
  p.relu = c.relu;
  const backend::Conv2dShape& s = c.shape;
  asInt(c.x.size[2] + 2 * s.padH + s.dilationH * c.w.size[2] + s.strideH);
  asInt(c.x.size[3] + 2 * s.padW + s.dilationW * c.w.size[3] + s.strideW);
  p.strideH = asInt(s.strideH);
  p.strideW = asInt(s.strideW);
  p.padH = asInt(s.padH);
  p.padW = asInt(s.padW);
  p.dilationH = asInt(s.dilationH);
  p.dilationW = asInt(s.dilationW);
  p.byStrideH = Divider(static_cast<uint32_t>(s.strideH));
  p.byStrideW = Divider(static_cast<uint32_t>(s.strideW));
  p.groups = asInt(s.groups);
  p.groupC = asInt(c.w.size[1]);
  p.groupK = asInt(c.w.size[0] / s.groups);
  const int64_t *x = c.x.size, *w = c.w.size, *y = c.y.size;
  const Splitter taps = splitterOf(w[2], w[3]), pixels = splitterOf(y[2], y[3]);
  switch (c.op) {
    case Conv2dOp::forward:
      p.rows = p.groupK;
      p.columns = asCount(y[0], y[2], y[3]);
      p.depth = asCount(w[1], w[2], w[3]);
      p.column = pixels;
      p.inDepth = taps;
      break;
    case Conv2dOp::backwardInput:
      p.rows = p.groupC;
      p.columns = asCount(x[0], x[2], x[3]);
      p.depth = asCount(p.groupK, w[2], w[3]);
      p.column = splitterOf(x[2], x[3]);
      p.inDepth = taps;
      break;
    case Conv2dOp::backwardWeight:
      p.rows = p.groupK;
      p.columns = asCount(w[1], w[2], w[3]);
      p.depth = asCount(y[0], y[2], y[3]);
      p.column = taps;
      p.inDepth = pixels;
      break;
  }
  p.chunk = p.depth;
  p.chunks = 1;
  return p;
}

// The pixels of all images are cut where the filters alone make few blocks.
void cutDepth(Conv2dProduct& p, size_t itemBytes) {
  constexpr int64_t kBlocks = 512, kLeastChunk = 512, kPartialBytes = int64_t(64) << 20;
  const int64_t blocks = p.groups * ceilDiv(p.rows, kTile) * ceilDiv(p.columns, kTile);
  const int64_t count = int64_t(p.groups) * p.rows * p.columns;
  const int64_t affordable = kPartialBytes / (count * static_cast<int64_t>(itemBytes));
  const int64_t wanted = std::min({ceilDiv(kBlocks, blocks), affordable,
                                   ceilDiv(p.depth, kLeastChunk), kMostBlocks / p.groups});
  if (wanted <= 1) return;
  p.chunk = static_cast<uint32_t>(ceilDiv(ceilDiv(p.depth, wanted), kTileDepth) * kTileDepth);
  p.chunks = static_cast<int>(ceilDiv(p.depth, p.chunk));
}

template <class S, class C, Conv2dOp op>
void run(Conv2dProduct p, cudaStream_t stream) {
  const int64_t count = int64_t(p.groups) * p.rows * p.columns;
  if (count == 0) return;
  if (p.rows <= kNarrow) {
    if constexpr (op == Conv2dOp::backwardWeight) {
      if (p.columns <= kTile) {
        return launch(gridFor(count, 1), kGroupThreads, 0, stream, narrowWeightKernel<S, C>, p);
      }
    } else {
      const dim3 grid(static_cast<unsigned>(ceilDiv(p.columns, kTileThreads)),
                      static_cast<unsigned>(std::min(kMostBlocks, int64_t(p.groups) * p.rows)));
      return launch(grid, kTileThreads, 0, stream, narrowKernel<S, C, op>, p);
    }
  }
  if (op == Conv2dOp::backwardWeight) cutDepth(p, sizeof(C));
  std::optional<Workspace> partials;
  if (p.chunks > 1) {
    partials.emplace(static_cast<size_t>(count * p.chunks) * sizeof(C));
    p.partial = partials->data();
  }
  const dim3 grid(static_cast<unsigned>(ceilDiv(p.columns, kTile)),
                  static_cast<unsigned>(ceilDiv(p.rows, kTile)),
                  static_cast<unsigned>(std::min(kMostBlocks, int64_t(p.groups) * p.chunks)));
  launch(grid, kTileThreads, 0, stream, tileKernel<S, C, op>, p);
  if (p.chunks > 1) {
    launch(gridFor(count, kTileThreads), kTileThreads, 0, stream, sumKernel<S, C, op>, p);
  }
}

template <class S, class C>
void runOp(const Conv2d& c, cudaStream_t stream) {
  const Conv2dProduct p = describe(c);
  switch (c.op) {
    case Conv2dOp::forward:
      return run<S, C, Conv2dOp::forward>(p, stream);
    case Conv2dOp::backwardInput:
      return run<S, C, Conv2dOp::backwardInput>(p, stream);
    case Conv2dOp::backwardWeight:
      return run<S, C, Conv2dOp::backwardWeight>(p, stream);
  }
}

}  // namespace

void convolveDirectly(const Conv2d& c, cudaStream_t stream) {
  switch (c.dtype) {
    case DType::float32:
      return runOp<float, float>(c, stream);
    case DType::float64:
      return runOp<double, double>(c, stream);
    case DType::bfloat16:
      return runOp<BFloat16, float>(c, stream);
    case DType::float16:
      return runOp<Float16, float>(c, stream);
    default:
      fail(ErrorKind::dtype, "conv2d: expected a floating dtype, got %s", dtypeName(c.dtype));
  }
}

}  // namespace adjoint::cuda
