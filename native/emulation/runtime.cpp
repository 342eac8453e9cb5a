// Devices, streams, events and graphs of the emulated machine.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "emulation/device_guard.h"
#include "emulation/emulation.h"
#include "emulation/machine.h"

namespace adjoint::emulation {

thread_local int currentDevice = 0;
bool isNullRuntime = false;

// Leaked, so that an addon that is still loaded at exit may go on using it.
Machine& machine() {
  static Machine* m = new Machine;
  return *m;
}

int deviceCount() {
  if (machine().count > 0) return machine().count;
  const char* count = std::getenv("ADJOINT_EMULATION_DEVICES");
  return count ? std::max(1, std::atoi(count)) : 1;
}

cudaError_t failWith(cudaError_t error, const std::string& message) {
  machine().message = message;
  return error;
}
cudaError_t spoilCapture(cudaStream_t stream, const char* what) {
  stream->capture->isSpoiled = true;
  return failWith(cudaErrorStreamCaptureUnsupported, what);
}

cudaError_t enqueue(cudaStream_t stream, Work work) {
  auto& all = machine().streams;
  if (std::find(all.begin(), all.end(), stream) == all.end()) {
    return failWith(cudaErrorInvalidResourceHandle, "no such stream (name one, not 0)");
  }
  if (machine().error != cudaSuccess) return machine().error;
  if (stream->capture) {
    stream->capture->work.push_back(std::move(work));
  } else {
    stream->queue.push_back(std::move(work));
  }
  return cudaSuccess;
}

namespace {

cudaError_t failForGood(cudaError_t error, const std::string& message) {
  machine().error = error;
  return failWith(error, message);
}

// Runs the work of a stream until `done` holds or nothing is left.
template <class Done>
cudaError_t drain(cudaStream_t stream, Done done) {
  while (!stream->queue.empty() && !done()) {
    if (machine().error != cudaSuccess) return machine().error;
    auto work = std::move(stream->queue.front());
    stream->queue.pop_front();
    enterDevice(stream->device);
    if (cudaError_t error = work(); error != cudaSuccess) return error;
  }
  return machine().error;
}

cudaError_t waitFor(cudaEvent_t event, uint64_t record) {
  if (event->reached >= record) return machine().error;
  return drain(event->stream, [=] { return event->reached >= record; });
}

}  // namespace

cudaError_t enqueueKernel(const cudaLaunchConfig_t& config, QueuedKernel* queued,
                          const void* function) {
  Lock lock(machine().mutex);
  std::shared_ptr<QueuedKernel> owner(queued);
  const dim3 g = config.gridDim, b = config.blockDim;
  const auto asked = machine().sharedBytes.find(function);
  const size_t dynamicBytes = asked == machine().sharedBytes.end() ? kSharedBytes : asked->second,
               sharedBytes = dynamicBytes > kSharedBytes ? kMostSharedBytes : kSharedBytes;
  const uint64_t threads = uint64_t(b.x) * b.y * b.z;
  const bool valid = g.x >= 1 && g.y >= 1 && g.z >= 1 && g.x <= 0x7fffffffu && g.y <= 65535 &&
                     g.z <= 65535 && threads >= 1 && threads <= 1024 && b.z <= 64 &&
                     config.dynamicSmemBytes <= dynamicBytes;
  if (!valid) {
    return failWith(cudaErrorInvalidConfiguration, "invalid sizes of grid, block or memory");
  }
  if (config.stream && config.stream->device != currentDevice) {
    return failWith(cudaErrorInvalidResourceHandle, "a launch on a stream of another device");
  }
  machine().counts.kernels++;
  if (!queued) return machine().error;
  return enqueue(config.stream, [=] {
    auto body = [](void* k) { static_cast<QueuedKernel*>(k)->run(); };
    const char* error = runGrid(g, b, config.dynamicSmemBytes, sharedBytes, body, owner.get());
    return error ? failForGood(cudaErrorLaunchFailure, error) : cudaSuccess;
  });
}

void enqueueHost(cudaStream_t stream, std::function<void()> work) {
  Lock lock(machine().mutex);
  machine().counts.libraryCalls++;
  if (isNullRuntime) return;
  const cudaError_t status = enqueue(stream, [work = std::move(work)] {
    work();
    return cudaSuccess;
  });
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

void setNullRuntime(bool enabled) {
  Lock lock(machine().mutex);
  isNullRuntime = enabled;
}
size_t pendingWork() {
  Lock lock(machine().mutex);
  size_t n = 0;
  for (EmulatedStream* s : machine().streams) n += s->queue.size();
  return n;
}
void clearError() {
  Lock lock(machine().mutex);
  machine().error = cudaSuccess;
  for (EmulatedStream* s : machine().streams) s->queue.clear();
}
CallCounts callCounts() {
  Lock lock(machine().mutex);
  return machine().counts;
}
void setDeviceCount(int count) {
  Lock lock(machine().mutex);
  machine().count = count;
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
      return machine().message.c_str();
  }
}

cudaError_t cudaGetDeviceCount(int* count) {
  Lock lock(machine().mutex);
  *count = deviceCount();
  const char* message = std::getenv("ADJOINT_EMULATION_ERROR");
  return message ? failWith(cudaErrorNoDevice, message) : cudaSuccess;
}
cudaError_t cudaSetDevice(int index) {
  Lock lock(machine().mutex);
  // One that was there stays, so that tests may change the number.
  const bool isKnown = index < deviceCount() || machine().allocated.count(index) > 0;
  if (index < 0 || !isKnown) {
    return failWith(cudaErrorInvalidDevice, "no such device");
  }
  currentDevice = index;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
  Lock lock(machine().mutex);
  if (peer == currentDevice || peer < 0 || peer >= deviceCount()) {
    return failWith(cudaErrorInvalidDevice, "no such peer");
  }
  const bool isNew = machine().peers.insert({currentDevice, peer}).second;
  return isNew ? cudaSuccess
               : failWith(cudaErrorPeerAccessAlreadyEnabled, "the peer has access already");
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  std::snprintf(p->name, sizeof p->name, "emulated");
  p->totalGlobalMem = machine().total;
  p->multiProcessorCount = 2;
  p->major = device < kOlderDevices ? 8 : 7;
  p->minor = 5;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute, int value) {
  Lock lock(machine().mutex);
  if (value < 0 || static_cast<size_t>(value) > adjoint::emulation::kMostSharedBytes) {
    return failWith(cudaErrorInvalidValue, "more shared memory than there is");
  }
  machine().sharedBytes[function] = static_cast<size_t>(value);
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
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  Lock lock(machine().mutex);
  *stream = new EmulatedStream;
  (*stream)->device = currentDevice;
  machine().streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Lock lock(machine().mutex);
  const cudaError_t error = cudaStreamSynchronize(stream);
  auto& all = machine().streams;
  all.erase(std::remove(all.begin(), all.end(), stream), all.end());
  delete stream;
  return error;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Lock lock(machine().mutex);
  machine().counts.streamWaits++;
  if (stream->capture) return spoilCapture(stream, "a wait for a stream that is captured");
  return drain(stream, [] { return false; });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* argument) {
  Lock lock(machine().mutex);
  return enqueue(stream, [=] {
    function(argument);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Lock lock(machine().mutex);
  if (stream->capture) return spoilCapture(stream, "an event from outside of the capture");
  return enqueue(stream, [event, record = event->recorded] { return waitFor(event, record); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new EmulatedEvent;
  (*event)->device = currentDevice;
  (*event)->isTimed = !(flags & cudaEventDisableTiming);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Lock lock(machine().mutex);
  const cudaError_t error = waitFor(event, event->recorded);
  delete event;
  return error;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Lock lock(machine().mutex);
  if (stream->capture) return spoilCapture(stream, "an event of a stream that is captured");
  if (stream->device != event->device) {
    return failWith(cudaErrorInvalidResourceHandle, "an event of another device than the stream's");
  }
  event->stream = stream;
  return enqueue(stream, [event, record = ++event->recorded] {
    event->reached = record;
    event->time = std::chrono::steady_clock::now();
    return cudaSuccess;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Lock lock(machine().mutex);
  machine().counts.eventWaits++;
  return waitFor(event, event->recorded);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  Lock lock(machine().mutex);
  return event->reached == event->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  Lock lock(machine().mutex);
  for (cudaEvent_t event : {start, end}) {
    if (!event->isTimed || event->recorded == 0 || event->reached != event->recorded) {
      return failWith(cudaErrorInvalidResourceHandle, "an event without a time");
    }
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  Lock lock(machine().mutex);
  if (stream->capture) return failWith(cudaErrorIllegalState, "the stream is captured already");
  stream->capture = new EmulatedGraph;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Lock lock(machine().mutex);
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
  Lock lock(machine().mutex);
  machine().counts.graphs++;
  if (isNullRuntime) return machine().error;
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
