// Tiles of matrices in shared memory and their products, as the kernels of attention use them. A
// block of 128 threads holds a tile of scores: 8 groups of 16 threads, each with R neighbouring
// rows of the block's own sequence; a thread's columns are 16 apart. What is summed up by row lies
// in registers too, kTile columns of it, in runs of as many neighbours as 16 bytes hold.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda/attention_operands.h"

namespace adjoint::cuda {

constexpr int kTileThreads = 128;
constexpr int kColumnThreads = 16;
constexpr int kRowGroups = kTileThreads / kColumnThreads;

template <class T>
constexpr int kWide = 16 / static_cast<int>(sizeof(T));
// Columns of a tile of scores, and how much of a sum is in shared memory at a time.
template <class T>
constexpr int kScoreColumns = kColumnThreads* kWide<T>;
template <class T>
constexpr int kChunk = 128 / static_cast<int>(sizeof(T));
// Rows of this length plus 16 bytes start in different banks.
template <class T>
constexpr int kChunkStride = kChunk<T> + kWide<T>;
template <class T>
constexpr int kWeightStride = kScoreColumns<T> + kWide<T>;

template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Run {
  T value[N];
};
template <class T>
using WideRun = Run<T, kWide<T>>;

// Blocks of one sum by row that a multiprocessor is to have room for.
template <class S, int kTile>
constexpr int kBlocksAtOnce = sizeof(S) < 8 && kTile <= 64 ? 3 : 2;

// Elements of shared memory that `multiplyRows` and `addWeighted` work in.
template <class T, int R, int kTile>
constexpr int kStagingElements() {
  constexpr int rows = (R * kRowGroups + kScoreColumns<T>)*kChunkStride<T>;
  constexpr int values = kChunk<T> * kTile;
  return rows > values ? rows : values;
}

// tile [kRows, kWidth] = x from (row, column) on, 0 beyond its ends
template <int kRows, int kWidth, class T, class S>
ADJOINT_DEVICE void loadTile(T* tile, int stride, const TileSource<S>& x, int row, int column) {
  constexpr int kAcross = kWidth / kVector, kSteps = kRows * kAcross / kTileThreads;
  static_assert(kRows * kAcross % kTileThreads == 0, "every thread loads as much");
  ADJOINT_UNROLL
  for (int step = 0; step < kSteps; step++) {
    const int i = step * kTileThreads + static_cast<int>(threadIdx.x);
    const int r = i / kAcross, c = i % kAcross * kVector, rest = x.columns - (column + c);
    Run<T, kVector> values{};
    if (row + r < x.rows && rest > 0) {
      const S* source = x.data + (row + r) * x.row + (column + c) * x.column;
      if (x.isVector && rest >= kVector) {
        const Pack<S> pack = *reinterpret_cast<const Pack<S>*>(source);
        for (int j = 0; j < kVector; j++) values.value[j] = convert<T>(pack.value[j]);
      } else {
        for (int j = 0; j < kVector; j++) {
          if (j < rest) values.value[j] = convert<T>(source[j * x.column]);
        }
      }
    }
    *reinterpret_cast<Run<T, kVector>*>(tile + r * stride + c) = values;
  }
}

// s[r][c] += sum_k a[r, k] b[16 c, k]; a and b are the thread's first rows, depth at most kChunk;
// beyond depth there are zeros up to a multiple of kWide.
template <class T, int R>
ADJOINT_DEVICE void addProductOfRows(T (&s)[R][kWide<T>], const T* a, int aStride, const T* b,
                                     int bStride, int depth) {
  constexpr int W = kWide<T>;
  ADJOINT_ROLLED
  for (int k = 0; k < depth; k += W) {
    WideRun<T> left[R];
    ADJOINT_UNROLL
    for (int r = 0; r < R; r++) {
      left[r] = *reinterpret_cast<const WideRun<T>*>(a + r * aStride + k);
    }
    ADJOINT_UNROLL
    for (int c = 0; c < W; c++) {
      const auto right = *reinterpret_cast<const WideRun<T>*>(b + c * kColumnThreads * bStride + k);
      ADJOINT_UNROLL
      for (int r = 0; r < R; r++) {
        ADJOINT_UNROLL
        for (int w = 0; w < W; w++) s[r][c] += left[r].value[w] * right.value[w];
      }
    }
  }
}

// How the kTile columns of a sum lie in a thread's registers.
template <class T, int kTile>
struct SumLayout {
  static constexpr int kColumns = kTile / kColumnThreads;  // of a thread
  static constexpr int kRun = kColumns < kWide<T> ? kColumns : kWide<T>;
  static constexpr int kRuns = kColumns / kRun;
  static ADJOINT_DEVICE int column(int run) {
    return (run * kColumnThreads + static_cast<int>(threadIdx.x) % kColumnThreads) * kRun;
  }
};

// sum[r] += sum_k weights[r, k] b[k, :]: weights starts at the thread's first row, depth at most
// kChunk; beyond depth there are zeros up to a multiple of kWide.
template <int kTile, class T, int R>
ADJOINT_DEVICE void addProduct(T (&sum)[R][kTile / kColumnThreads], const T* weights, const T* b,
                               int depth) {
  using Layout = SumLayout<T, kTile>;
  constexpr int W = kWide<T>;
  ADJOINT_ROLLED
  for (int k = 0; k < depth; k += W) {
    WideRun<T> left[R];
    ADJOINT_UNROLL
    for (int r = 0; r < R; r++) {
      left[r] = *reinterpret_cast<const WideRun<T>*>(weights + r * kWeightStride<T> + k);
    }
    ADJOINT_UNROLL
    for (int w = 0; w < W; w++) {
      ADJOINT_UNROLL
      for (int run = 0; run < Layout::kRuns; run++) {
        const auto right = *reinterpret_cast<const Run<T, Layout::kRun>*>(b + (k + w) * kTile +
                                                                          Layout::column(run));
        ADJOINT_UNROLL
        for (int r = 0; r < R; r++) {
          ADJOINT_UNROLL
          for (int v = 0; v < Layout::kRun; v++) {
            sum[r][run * Layout::kRun + v] += left[r].value[w] * right.value[v];
          }
        }
      }
    }
  }
}

// The first row of a tile that a thread holds.
template <int R>
ADJOINT_DEVICE int firstRow() {
  return static_cast<int>(threadIdx.x) / kColumnThreads * R;
}
// Column c of a tile of scores that a thread holds.
ADJOINT_DEVICE int scoreColumn(int c) {
  return static_cast<int>(threadIdx.x) % kColumnThreads + c * kColumnThreads;
}

// s = a b^T for the rows of a from aRow on and those of b from bRow on. `resident` is nullptr, or
// all those rows of a in shared memory, with residentStride. Begins with a barrier.
template <int R, class T, class S>
ADJOINT_DEVICE void multiplyRows(T (&s)[R][kWide<T>], T* staging, const TileSource<S>& a, int aRow,
                                 const TileSource<S>& b, int bRow, const T* resident = nullptr,
                                 int residentStride = 0) {
  ADJOINT_UNROLL
  for (int r = 0; r < R; r++) {
    ADJOINT_UNROLL
    for (int c = 0; c < kWide<T>; c++) s[r][c] = T(0);
  }
  T *aTile = staging, *bTile = staging + R * kRowGroups * kChunkStride<T>;
  int k = 0;
  do {
    __syncthreads();
    if (!resident) loadTile<R * kRowGroups, kChunk<T>>(aTile, kChunkStride<T>, a, aRow, k);
    loadTile<kScoreColumns<T>, kChunk<T>>(bTile, kChunkStride<T>, b, bRow, k);
    __syncthreads();
    const int depth = a.columns - k < kChunk<T> ? a.columns - k : kChunk<T>;
    const T* left = resident ? resident + firstRow<R>() * residentStride + k
                             : aTile + firstRow<R>() * kChunkStride<T>;
    addProductOfRows<T, R>(s, left, resident ? residentStride : kChunkStride<T>,
                           bTile + scoreColumn(0) * kChunkStride<T>, kChunkStride<T>, depth);
    k += kChunk<T>;
  } while (k < a.columns);
}

// weights [rows, kScoreColumns] = s, in shared memory
template <class T, int R>
ADJOINT_DEVICE void storeWeights(T* weights, const T (&s)[R][kWide<T>]) {
  ADJOINT_UNROLL
  for (int r = 0; r < R; r++) {
    ADJOINT_UNROLL
    for (int c = 0; c < kWide<T>; c++) {
      weights[(firstRow<R>() + r) * kWeightStride<T> + scoreColumn(c)] = s[r][c];
    }
  }
}

// sum += weights b for b's rows from `row` on and its columns from `column` on. Begins with a
// barrier.
template <int kTile, class T, int R, class S>
ADJOINT_DEVICE void addWeighted(T (&sum)[R][kTile / kColumnThreads], const T* weights, T* staging,
                                const TileSource<S>& b, int row, int column) {
  const int rows = b.rows - row < kScoreColumns<T> ? b.rows - row : kScoreColumns<T>;
  int k = 0;
  do {
    __syncthreads();
    loadTile<kChunk<T>, kTile>(staging, kTile, b, row + k, column);
    __syncthreads();
    const int depth = rows - k < kChunk<T> ? rows - k : kChunk<T>;
    addProduct<kTile>(sum, weights + firstRow<R>() * kWeightStride<T> + k, staging, depth);
    k += kChunk<T>;
  } while (k < rows);
}

// Row `row` of y [rows, columns] from `column` on = sum, a thread's share of it
template <int kTile, class T, class S, int kColumns>
ADJOINT_DEVICE void storeSum(S* y, const Heads<S>& strides, int row, int column, int columns,
                             const T (&sum)[kColumns]) {
  using Layout = SumLayout<T, kTile>;
  constexpr int V = Layout::kRun;
  ADJOINT_UNROLL
  for (int run = 0; run < Layout::kRuns; run++) {
    const int first = column + Layout::column(run);
    S* target = y + row * strides.row + first * strides.column;
    if (strides.isVector && first + V <= columns) {
      Run<S, V> values;
      for (int v = 0; v < V; v++) values.value[v] = convert<S>(sum[run * V + v]);
      *reinterpret_cast<Run<S, V>*>(target) = values;
    } else {
      for (int v = 0; v < V; v++) {
        if (first + v < columns) target[v * strides.column] = convert<S>(sum[run * V + v]);
      }
    }
  }
}

// Columns of sums that a block takes: calls f(integral_constant) for a width.
template <class T, class F>
void visitTile(int width, const F& f) {
  if (width <= 32) return f(std::integral_constant<int, 32>());
  if (width <= 64 || sizeof(T) == 8) return f(std::integral_constant<int, 64>());
  if constexpr (sizeof(T) == 4) f(std::integral_constant<int, 128>());
}

}  // namespace adjoint::cuda
