// CUDA graphs: the calls of a captured step are queued on a stream of their own that is captured,
// and later replays are one launch. Three things differ for the code that queues work then:
// temporaries stay reserved as long as the graph lives, host memory that is copied to the device
// becomes a constant of the graph, and what changes from replay to replay (a learning rate, a
// random state) must be read from memory. `Workspace`, `copyFromHost` and `Changing` see to that.
#pragma once
#include <cstddef>

#include "contract.h"
#include "cuda/launch.h"

namespace adjoint::cuda {

// Whether this thread renews a graph's changing values: then no work may be queued.
bool isRenewing();

// Where the changing bytes of this call lie on the device, so that a graph's kernels can read them,
// 16-byte aligned. nullptr while no graph is made or renewed.
const void* changingBytes(const void* bytes, size_t count);

// An argument of a kernel that may change from replay to replay.
template <class T>
struct Changing {
  T value;
  const T* place;  // what counts, where it is not nullptr
  ADJOINT_DEVICE T get() const { return place ? *place : value; }
};
template <class T>
Changing<T> changing(const T& value) {
  return {value, static_cast<const T*>(changingBytes(&value, sizeof value))};
}

// The stream that takes this thread's work instead of the one stream, or nullptr.
cudaStream_t graphStream();
// Memory for queued work: as backend::allocate and release, or a part of the graph that is made.
void* takeTemporary(size_t bytes);
void giveBackTemporary(void* block, size_t bytes);
// Whether a graph is made; then the copy is a part of it, of the bytes as they are now.
bool copyToGraph(void* target, const void* source, size_t bytes);

// memory.cpp: the copy on the one stream, whatever is captured beside it.
void uploadNow(void* target, const void* source, size_t bytes);

}  // namespace adjoint::cuda
