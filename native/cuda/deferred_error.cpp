#include "cuda/deferred_error.h"

#include <mutex>
#include <new>

#include "cuda/launch.h"
#include "cuda/per_device.h"

namespace adjoint::cuda {
namespace {

// Two threads of the host may wait at the same time.
std::mutex& mutex() {
  static std::mutex* m = new std::mutex;
  return *m;
}

struct Pinned {
  Pinned() {
    void* memory = nullptr;
    ADJOINT_CUDA(cudaHostAlloc(&memory, sizeof(IndexReport), cudaHostAllocMapped));
    report = new (memory) IndexReport{};
  }
  IndexReport* report;
};
PerDevice<Pinned> pinned;

}  // namespace

IndexReport* indexReport() {
  return pinned.get().report;
}

void raiseDeferredError() {
  std::lock_guard<std::mutex> lock(mutex());
  volatile IndexReport& r = *indexReport();
  if (r.state != IndexReport::complete) return;
  const char *op = r.op, *subject = r.subject;
  const auto index = static_cast<long long>(r.index);
  const auto position = static_cast<long long>(r.position), size = static_cast<long long>(r.size);
  r.state = IndexReport::empty;
  fail(ErrorKind::index, "%s: expected %s in [0, %lld), got %lld at %lld", op, subject, size, index,
       position);
}

void forgetDeferredError() {
  std::lock_guard<std::mutex> lock(mutex());
  indexReport()->state = IndexReport::empty;
}

}  // namespace adjoint::cuda
