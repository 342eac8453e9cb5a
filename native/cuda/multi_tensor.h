// One kernel over the elements of many tensors: a block takes a piece of one of them, and a launch
// carries as many entries of one dtype as fit among its arguments.
#pragma once
#include "cuda/elements.h"
#include "cuda/graph.h"

namespace adjoint::cuda {

constexpr int kPieceThreads = 256;
constexpr int64_t kPiece = 4096;  // elements a block takes

// How many entries of N buffers fit among a kernel's arguments, which end at 4 KiB.
template <int N>
constexpr int kMaxEntries = 3872 / (8 * N + 13);

// N buffers for each entry, as a parameter, its gradient and its state.
template <int N>
struct Batch {
  void* data[kMaxEntries<N>][N];
  int64_t numel[kMaxEntries<N>];
  int32_t end[kMaxEntries<N>];   // how many blocks this entry and those before it take
  bool vectors[kMaxEntries<N>];  // all buffers are aligned for them
  int entries;
};
static_assert(sizeof(Batch<1>) <= 3900 && sizeof(Batch<5>) <= 3900, "with room for the others");

// The entry of a block, and which of its elements the block takes.
struct Piece {
  int entry;
  int64_t begin, vectorEnd, end;  // vectors from begin to vectorEnd
};
template <int N>
ADJOINT_DEVICE Piece pieceOf(const Batch<N>& batch, int block) {
  int low = 0, high = batch.entries - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (block < batch.end[middle]) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  const int64_t begin = int64_t(block - (low > 0 ? batch.end[low - 1] : 0)) * kPiece;
  const int64_t end = begin + kPiece < batch.numel[low] ? begin + kPiece : batch.numel[low];
  return {low, begin, batch.vectors[low] ? begin + (end - begin) / kVector * kVector : begin, end};
}

// Whether an update would leave every element as it is.
template <class Update>
ADJOINT_DEVICE bool isIdle(const Update&) {
  return false;
}

// update(x, hasLast) changes the N values of one element; the gradient (1) is not written back. The
// last buffer may be missing. S: what is stored. source.get(): the update.
template <class S, int N, class Source>
__global__ void __launch_bounds__(kPieceThreads)
    updateKernel(const Batch<N> batch, const Source source) {
  const auto update = source.get();
  using T = typename decltype(update)::Type;
  if (isIdle(update)) return;
  const Piece piece = pieceOf(batch, static_cast<int>(blockIdx.x));
  S* data[N];
  for (int k = 0; k < N; k++) data[k] = static_cast<S*>(batch.data[piece.entry][k]);
  const bool hasLast = data[N - 1] != nullptr;
  for (int64_t i = piece.begin + threadIdx.x * kVector; i < piece.vectorEnd;
       i += kPieceThreads * kVector) {
    Pack<S> rows[N] = {};
    for (int k = 0; k < N; k++) {
      if (k < N - 1 || hasLast) rows[k] = reinterpret_cast<const Pack<S>*>(data[k])[i / kVector];
    }
    for (int j = 0; j < kVector; j++) {
      T x[N];
      for (int k = 0; k < N; k++) x[k] = convert<T>(rows[k].value[j]);
      update(x, hasLast);
      for (int k = 0; k < N; k++) rows[k].value[j] = convert<S>(x[k]);
    }
    for (int k = 0; k < N; k++) {
      if (k != 1 && (k < N - 1 || hasLast)) {
        reinterpret_cast<Pack<S>*>(data[k])[i / kVector] = rows[k];
      }
    }
  }
  for (int64_t i = piece.vectorEnd + threadIdx.x; i < piece.end; i += kPieceThreads) {
    T x[N];
    for (int k = 0; k < N; k++) x[k] = k < N - 1 || hasLast ? convert<T>(data[k][i]) : T(0);
    update(x, hasLast);
    for (int k = 0; k < N; k++) {
      if (k != 1 && (k < N - 1 || hasLast)) data[k][i] = convert<S>(x[k]);
    }
  }
}

// Collects entries of one dtype until a launch is full: run(batch, blocks).
template <int N, class Run>
class Batches {
 public:
  explicit Batches(const Run& run) : run_(run) {}

  void add(const View* const (&views)[N]) {
    const int64_t numel = views[0]->numel();
    if (numel == 0) return;
    const int e = batch_.entries++;
    const int32_t before = e > 0 ? batch_.end[e - 1] : 0;
    batch_.end[e] = before + static_cast<int32_t>(ceilDiv(numel, kPiece));
    batch_.numel[e] = numel;
    batch_.vectors[e] = true;
    for (int k = 0; k < N; k++) {
      batch_.data[e][k] = views[k]->data;
      batch_.vectors[e] = batch_.vectors[e] && isVectorAligned(views[k]->data, views[0]->dtype);
    }
    if (batch_.entries == kMaxEntries<N>) flush();
  }
  void flush() {
    if (batch_.entries > 0) run_(batch_, batch_.end[batch_.entries - 1]);
    batch_.entries = 0;
  }

 private:
  Batch<N> batch_{};
  Run run_;
};
template <int N, class Run>
Batches<N, Run> batchesFor(const Run& run) {
  return Batches<N, Run>(run);
}
// Batches that an update runs over.
template <class S, int N, class Source>
auto updatesOf(const Source& source) {
  return batchesFor<N>([source](const Batch<N>& batch, int blocks) {
    launch(static_cast<unsigned>(blocks), kPieceThreads, 0, stream(), updateKernel<S, N, Source>,
           batch, source);
  });
}

}  // namespace adjoint::cuda
