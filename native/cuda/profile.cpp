// Moments in the order of the stream's work: events.
#include <vector>

#include "contract.h"
#include "cuda/free_list.h"
#include "cuda/launch.h"
#include "cuda/per_device.h"

namespace adjoint {
namespace cuda {
namespace {

PerDevice<FreeList<cudaEvent_t>> events;

cudaEvent_t makeEvent() {
  cudaEvent_t event = nullptr;
  ADJOINT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDefault));
  return event;
}

cudaEvent_t eventOf(backend::Moment moment) {
  return reinterpret_cast<cudaEvent_t>(moment);
}

}  // namespace
}  // namespace cuda

namespace backend {

Moment mark() {
  cudaEvent_t event = cuda::events.get().take(cuda::makeEvent);
  ADJOINT_CUDA(cudaEventRecord(event, cuda::stream()));
  return reinterpret_cast<Moment>(event);
}

std::vector<double> elapsed(const std::vector<Moment>& moments) {
  std::vector<double> times;
  if (moments.empty()) return times;
  ADJOINT_CUDA(cudaEventSynchronize(cuda::eventOf(moments.back())));
  times.push_back(0);
  for (size_t i = 1; i < moments.size(); i++) {
    // From one to the next: a float of milliseconds keeps what is short.
    float step = 0;
    ADJOINT_CUDA(
        cudaEventElapsedTime(&step, cuda::eventOf(moments[i - 1]), cuda::eventOf(moments[i])));
    times.push_back(times.back() + static_cast<double>(step));
  }
  for (Moment moment : moments) cuda::events.get().give(cuda::eventOf(moment));
  return times;
}

}  // namespace backend
}  // namespace adjoint
