// Memory, streams and events of the emulated device.
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulation/emulation.h"

struct EmulatedEvent {
  EmulatedStream* stream = nullptr;  // where it was recorded last
  uint64_t recorded = 0;             // how often it was recorded
  uint64_t reached = 0;              // the last record that the stream has come to
  bool isTimed = false;
  std::chrono::steady_clock::time_point time;  // when it was reached last
};

using Work = std::function<cudaError_t()>;

struct EmulatedGraph {
  std::vector<Work> work;
  bool isSpoiled = false;
};

struct EmulatedGraphExec {
  std::shared_ptr<const std::vector<Work>> work;
};

struct EmulatedStream {
  std::deque<Work> queue;
  EmulatedGraph* capture = nullptr;  // takes what is queued, while there is one
};

namespace adjoint::emulation {
namespace {

constexpr size_t kDeviceAlignment = 256;

struct Device {
  std::recursive_mutex mutex;
  std::map<uintptr_t, size_t> blocks;  // address -> size
  std::map<uintptr_t, size_t> pinned;  // of the host
  size_t allocated = 0;
  size_t total = size_t(2) << 30;
  std::vector<EmulatedStream*> streams;
  cudaError_t error = cudaSuccess;  // of a kernel: sticky
  std::string message;
};

// Leaked, so that an addon that is still loaded at exit may go on using it.
Device& device() {
  static Device* d = new Device;
  return *d;
}
using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t failWith(cudaError_t error, const std::string& message) {
  device().message = message;
  return error;
}
cudaError_t failForGood(cudaError_t error, const std::string& message) {
  device().error = error;
  return failWith(error, message);
}

// Whether [p, p + bytes) lies in one of the blocks.
bool liesIn(const std::map<uintptr_t, size_t>& blocks, const void* p, size_t bytes) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  auto it = blocks.upper_bound(address);
  if (it == blocks.begin()) return false;
  --it;
  return address - it->first <= it->second && bytes <= it->second - (address - it->first);
}
bool isDeviceMemory(const void* p, size_t bytes) {
  return liesIn(device().blocks, p, bytes);
}

// What a stream that is captured cannot do.
cudaError_t spoilCapture(cudaStream_t stream, const char* what) {
  stream->capture->isSpoiled = true;
  return failWith(cudaErrorStreamCaptureUnsupported, what);
}

cudaError_t enqueue(cudaStream_t stream, Work work) {
  auto& all = device().streams;
  if (std::find(all.begin(), all.end(), stream) == all.end()) {
    return failWith(cudaErrorInvalidResourceHandle, "no such stream (name one, not 0)");
  }
  if (device().error != cudaSuccess) return device().error;
  if (stream->capture) {
    stream->capture->work.push_back(std::move(work));
  } else {
    stream->queue.push_back(std::move(work));
  }
  return cudaSuccess;
}

// Runs the work of a stream until `done` holds or nothing is left.
template <class Done>
cudaError_t drain(cudaStream_t stream, Done done) {
  while (!stream->queue.empty() && !done()) {
    if (device().error != cudaSuccess) return device().error;
    auto work = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (cudaError_t error = work(); error != cudaSuccess) return error;
  }
  return device().error;
}

cudaError_t waitFor(cudaEvent_t event, uint64_t record) {
  if (event->reached >= record) return device().error;
  return drain(event->stream, [=] { return event->reached >= record; });
}

}  // namespace

cudaError_t enqueueKernel(const cudaLaunchConfig_t& config, QueuedKernel* queued) {
  Lock lock(device().mutex);
  std::shared_ptr<QueuedKernel> owner(queued);
  const dim3 g = config.gridDim, b = config.blockDim;
  const uint64_t threads = uint64_t(b.x) * b.y * b.z;
  const bool valid = g.x >= 1 && g.y >= 1 && g.z >= 1 && g.x <= 0x7fffffffu && g.y <= 65535 &&
                     g.z <= 65535 && threads >= 1 && threads <= 1024 && b.z <= 64 &&
                     config.dynamicSmemBytes <= (48 << 10);
  if (!valid) {
    return failWith(cudaErrorInvalidConfiguration, "invalid sizes of grid, block or memory");
  }
  return enqueue(config.stream, [=] {
    auto body = [](void* k) { static_cast<QueuedKernel*>(k)->run(); };
    const char* error = runGrid(g, b, config.dynamicSmemBytes, body, owner.get());
    return error ? failForGood(cudaErrorLaunchFailure, error) : cudaSuccess;
  });
}

void enqueueHost(cudaStream_t stream, std::function<void()> work) {
  Lock lock(device().mutex);
  const cudaError_t status = enqueue(stream, [work = std::move(work)] {
    work();
    return cudaSuccess;
  });
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

size_t pendingWork() {
  Lock lock(device().mutex);
  size_t n = 0;
  for (EmulatedStream* s : device().streams) n += s->queue.size();
  return n;
}
void clearError() {
  Lock lock(device().mutex);
  device().error = cudaSuccess;
  for (EmulatedStream* s : device().streams) s->queue.clear();
}
void setDeviceMemory(size_t bytes) {
  Lock lock(device().mutex);
  device().total = bytes;
}
size_t allocatedBytes() {
  Lock lock(device().mutex);
  return device().allocated;
}
size_t allocatedBlocks() {
  Lock lock(device().mutex);
  return device().blocks.size();
}

}  // namespace adjoint::emulation

using namespace adjoint::emulation;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    default:
      return device().message.c_str();
  }
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  const char* message = std::getenv("ADJOINT_EMULATION_ERROR");
  return message ? failWith(cudaErrorNoDevice, message) : cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  std::snprintf(p->name, sizeof p->name, "emulated");
  p->totalGlobalMem = device().total;
  p->multiProcessorCount = 2;
  p->major = 8;
  p->minor = 5;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 12000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 12000;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Lock lock(device().mutex);
  *total = device().total;
  *free = *total - device().allocated;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  Lock lock(device().mutex);
  *pointer = nullptr;
  if (device().error != cudaSuccess) return device().error;
  if (bytes == 0) return cudaSuccess;
  if (bytes > device().total - device().allocated) return cudaErrorMemoryAllocation;
  if (posix_memalign(pointer, kDeviceAlignment, bytes) != 0) {
    *pointer = nullptr;
    return cudaErrorMemoryAllocation;
  }
  std::memset(*pointer, 0xff, bytes);  // NaN in every floating type
  device().blocks[reinterpret_cast<uintptr_t>(*pointer)] = bytes;
  device().allocated += bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  Lock lock(device().mutex);
  if (!pointer) return cudaSuccess;
  auto it = device().blocks.find(reinterpret_cast<uintptr_t>(pointer));
  if (it == device().blocks.end()) {
    return failWith(cudaErrorInvalidValue, "cudaFree: no block starts here");
  }
  for (EmulatedStream* stream : device().streams) cudaStreamSynchronize(stream);
  device().allocated -= it->second;
  device().blocks.erase(it);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  Lock lock(device().mutex);
  *pointer = std::malloc(bytes);
  if (!*pointer) return cudaErrorMemoryAllocation;
  device().pinned[reinterpret_cast<uintptr_t>(*pointer)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
  Lock lock(device().mutex);
  device().pinned.erase(reinterpret_cast<uintptr_t>(pointer));
  for (EmulatedStream* stream : device().streams) cudaStreamSynchronize(stream);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  Lock lock(device().mutex);
  const bool matches = isDeviceMemory(target, bytes) == (kind != cudaMemcpyDeviceToHost) &&
                       isDeviceMemory(source, bytes) == (kind != cudaMemcpyHostToDevice);
  if (bytes > 0 && !matches) {
    return failWith(cudaErrorInvalidValue, "cudaMemcpyAsync: pointers do not match the kind");
  }
  if (stream && stream->capture && kind != cudaMemcpyDeviceToDevice) {
    const void* host = kind == cudaMemcpyHostToDevice ? source : target;
    if (!liesIn(device().pinned, host, bytes)) {
      return spoilCapture(stream, "a captured copy of host memory that is not pinned");
    }
  }
  return enqueue(stream, [=] {
    std::memcpy(target, source, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  Lock lock(device().mutex);
  *stream = new EmulatedStream;
  device().streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Lock lock(device().mutex);
  const cudaError_t error = cudaStreamSynchronize(stream);
  auto& all = device().streams;
  all.erase(std::remove(all.begin(), all.end(), stream), all.end());
  delete stream;
  return error;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Lock lock(device().mutex);
  if (stream->capture) return spoilCapture(stream, "a wait for a stream that is captured");
  return drain(stream, [] { return false; });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* argument) {
  Lock lock(device().mutex);
  return enqueue(stream, [=] {
    function(argument);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Lock lock(device().mutex);
  if (stream->capture) return spoilCapture(stream, "an event from outside of the capture");
  return enqueue(stream, [event, record = event->recorded] { return waitFor(event, record); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new EmulatedEvent;
  (*event)->isTimed = !(flags & cudaEventDisableTiming);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Lock lock(device().mutex);
  const cudaError_t error = waitFor(event, event->recorded);
  delete event;
  return error;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Lock lock(device().mutex);
  if (stream->capture) return spoilCapture(stream, "an event of a stream that is captured");
  event->stream = stream;
  return enqueue(stream, [event, record = ++event->recorded] {
    event->reached = record;
    event->time = std::chrono::steady_clock::now();
    return cudaSuccess;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Lock lock(device().mutex);
  return waitFor(event, event->recorded);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  Lock lock(device().mutex);
  for (cudaEvent_t event : {start, end}) {
    if (!event->isTimed || event->recorded == 0 || event->reached != event->recorded) {
      return failWith(cudaErrorInvalidResourceHandle, "an event without a time");
    }
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  Lock lock(device().mutex);
  if (stream->capture) return failWith(cudaErrorIllegalState, "the stream is captured already");
  stream->capture = new EmulatedGraph;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Lock lock(device().mutex);
  *graph = nullptr;
  if (!stream->capture) return failWith(cudaErrorIllegalState, "the stream is not captured");
  std::unique_ptr<EmulatedGraph> captured(stream->capture);
  stream->capture = nullptr;
  if (captured->isSpoiled) {
    return failWith(cudaErrorStreamCaptureInvalidated, "the capture was spoiled before");
  }
  *graph = captured.release();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new EmulatedGraphExec{std::make_shared<const std::vector<Work>>(graph->work)};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  Lock lock(device().mutex);
  return enqueue(stream, [work = exec->work] {
    for (const Work& one : *work) {
      if (cudaError_t error = one(); error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}
// Launches that are queued still run.
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
