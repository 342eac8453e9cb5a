#include "emulation/block.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "emulation/fiber.h"
#include "emulation/shared_arena.h"

namespace adjoint::emulation {

Running running;
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

using State = Thread::State;

// The threads of the block that runs now and the fibers that carry them. Work runs under the
// lock of the streams (stream.cpp), so one of these is enough for the process.
struct Scheduler {
  std::vector<Thread> threads;
  std::vector<unsigned> order;    // in which the threads start and go on
  std::vector<Thread*> runnable;  // released, in the order in which they go on
  std::vector<Thread*> released;  // by the warp operation that has just met
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  unsigned next = 0;  // the next of `order` to start
  unsigned finished = 0;
  KernelBody body = nullptr;
  void* arguments = nullptr;
  std::string error;  // set: the block is abandoned
} scheduler;

SharedArena arena;
std::mt19937 shuffler(20);

ThreadOrder orderFromEnvironment() {
  const char* name = std::getenv("ADJOINT_EMULATION_ORDER");
  const std::string order = name ? name : "forward";
  return order == "reverse"    ? ThreadOrder::reverse
         : order == "shuffled" ? ThreadOrder::shuffled
                               : ThreadOrder::forward;
}
ThreadOrder currentOrder = orderFromEnvironment();

template <class T>
void arrange(std::vector<T>& sequence) {
  if (currentOrder == ThreadOrder::reverse) std::reverse(sequence.begin(), sequence.end());
  if (currentOrder == ThreadOrder::shuffled) {
    std::shuffle(sequence.begin(), sequence.end(), shuffler);
  }
}

std::string where(const Thread& t) {
  char text[512];
  std::snprintf(text, sizeof text, "thread (%u, %u, %u) at %s:%d", t.index.x, t.index.y, t.index.z,
                t.site.file, t.site.line);
  return text;
}

void setRunning(Thread& t) {
  running.thread = &t;
  threadIdx = t.index;
}

// A fiber runs threads one after another until one of them waits; the rest go on elsewhere.
void runThreads() {
  while (scheduler.next < scheduler.order.size()) {
    Thread& t = scheduler.threads[scheduler.order[scheduler.next++]];
    setRunning(t);
    t.state = State::runnable;
    scheduler.body(scheduler.arguments);
    // The thread may have ended on this fiber after it had waited, so look it up again.
    running.thread->state = State::finished;
    scheduler.finished++;
  }
}

void wait(Thread& t, State state) {
  t.state = state;
  Fiber::suspend();
}

void describe(const char* what, const Thread& t) {
  scheduler.error = std::string(what) + ": " + where(t);
}
void describe(const char* what, const Thread& t, const Thread& other) {
  describe(what, t);
  scheduler.error += ", " + where(other);
}

template <class... Threads>
[[noreturn]] void abandonBlock(const char* what, const Threads&... threads) {
  describe(what, threads...);
  failBlock(scheduler.error.c_str());
}

Fiber* takeFiber() {
  if (scheduler.idle.empty()) {
    scheduler.fibers.push_back(std::make_unique<Fiber>(runThreads));
    return scheduler.fibers.back().get();
  }
  Fiber* fiber = scheduler.idle.back();
  scheduler.idle.pop_back();
  return fiber;
}

void resume(Fiber* fiber) {
  fiber->resume();
  Thread& t = *running.thread;
  if (t.state == State::finished) {
    scheduler.idle.push_back(fiber);
  } else {
    t.fiber = fiber;
  }
}

// All threads wait or have ended: lets them pass if they met at one barrier, else says why not.
bool passBarrier() {
  Thread* first = nullptr;
  for (Thread& t : scheduler.threads) {
    if (t.state == State::inWarp) {
      describe("deadlock: a warp operation waits for lanes that never come", t);
      return false;
    }
    if (t.state == State::atBarrier && !first) first = &t;
  }
  for (Thread& t : scheduler.threads) {
    if (t.state == State::finished) {
      describe("divergent barrier: a thread has returned while others wait", *first);
      return false;
    }
    if (!(t.site == first->site)) {
      describe("divergent barrier", *first, t);
      return false;
    }
  }
  for (unsigned i : scheduler.order) {
    scheduler.threads[i].blockEpoch++;
    scheduler.threads[i].state = State::runnable;
    scheduler.runnable.push_back(&scheduler.threads[i]);
  }
  return true;
}

void startBlock(uint3 index) {
  blockIdx = index;
  running.blockSerial++;
  scheduler.next = scheduler.finished = 0;
  scheduler.runnable.clear();
  for (Thread& t : scheduler.threads) {
    t.state = State::waiting;
    t.blockEpoch = t.warpEpoch = 0;
  }
  if (currentOrder == ThreadOrder::shuffled) arrange(scheduler.order);
}

void runBlock(uint3 index) {
  startBlock(index);
  size_t resumed = 0;  // of `runnable`
  while (scheduler.error.empty() && scheduler.finished < scheduler.threads.size()) {
    if (resumed < scheduler.runnable.size()) {
      Thread* t = scheduler.runnable[resumed++];
      setRunning(*t);
      resume(t->fiber);
    } else if (scheduler.next < scheduler.order.size()) {
      resume(takeFiber());
    } else {
      scheduler.runnable.clear();
      resumed = 0;
      passBarrier();
    }
  }
}

void prepareThreads(dim3 block) {
  const unsigned count = block.x * block.y * block.z;
  scheduler.threads.assign(count, Thread());
  scheduler.order.resize(count);
  for (unsigned i = 0; i < count; i++) {
    Thread& t = scheduler.threads[i];
    t.linear = i;
    t.index.x = i % block.x;
    t.index.y = i / block.x % block.y;
    t.index.z = i / block.x / block.y;
    scheduler.order[i] = i;
  }
  if (currentOrder == ThreadOrder::reverse) arrange(scheduler.order);
}

// A fiber that was abandoned in mid-kernel starts over; what its frames held is lost.
void recoverFibers() {
  scheduler.idle.clear();
  for (auto& fiber : scheduler.fibers) {
    fiber->restart();
    scheduler.idle.push_back(fiber.get());
  }
}

}  // namespace

void setThreadOrder(ThreadOrder order) {
  currentOrder = order;
}
ThreadOrder threadOrder() {
  return currentOrder;
}

// The fiber is never resumed, so nothing that owns memory may be alive on its stack.
void failBlock(const char* message) {
  if (message != scheduler.error.c_str()) scheduler.error = message;
  while (true) Fiber::suspend();
}

void barrier(Site site) {
  running.thread->site = site;
  wait(*running.thread, State::atBarrier);
}

uint64_t warp(WarpOp op, unsigned mask, uint64_t value, unsigned source, Site site) {
  Thread& t = *running.thread;
  t.site = site;
  if (!(mask >> lane() & 1)) abandonBlock("warp operation: the mask lacks the caller", t);
  const unsigned first = t.linear - lane();
  const auto size = static_cast<unsigned>(scheduler.threads.size());
  const unsigned present = size - first >= 32 ? ~0u : (1u << (size - first)) - 1;
  if (mask & ~present) abandonBlock("warp operation: the mask names missing lanes", t);
  if (op == WarpOp::shuffle && !(mask >> source & 1)) {
    abandonBlock("shuffle: reads a lane outside the mask", t);
  }
  t.op = op;
  t.mask = mask;
  t.value = value;
  t.source = source;
  // The last lane to come computes for all and goes on; the others wait.
  Thread* lanes = &scheduler.threads[first];
  for (unsigned i = 0; i < 32; i++) {
    if (!(mask >> i & 1) || lanes + i == &t) continue;
    if (lanes[i].state != State::inWarp || lanes[i].mask != mask) {
      wait(t, State::inWarp);
      return t.result;
    }
    if (lanes[i].op != op || !(lanes[i].site == site)) {
      abandonBlock("divergent warp operation", t, lanes[i]);
    }
  }
  uint64_t ballot = 0;
  for (unsigned i = 0; i < 32; i++) {
    if (mask >> i & 1 && lanes[i].value) ballot |= uint64_t(1) << i;
  }
  std::vector<Thread*>& released = scheduler.released;
  released.clear();
  for (unsigned i = 0; i < 32; i++) {
    if (!(mask >> i & 1)) continue;
    lanes[i].result = op == WarpOp::shuffle ? lanes[lanes[i].source].value : ballot;
    if (op == WarpOp::sync) lanes[i].warpEpoch++;  // a shuffle orders no memory
    lanes[i].state = State::runnable;
    if (lanes + i != &t) released.push_back(lanes + i);
  }
  arrange(released);
  scheduler.runnable.insert(scheduler.runnable.end(), released.begin(), released.end());
  return t.result;
}

void* sharedMemory(SharedArray& array, size_t bytes, size_t alignment) {
  if (array.blockSerial != running.blockSerial) {
    array.address = arena.take(array.name, bytes, alignment);
    array.blockSerial = running.blockSerial;
    if (!array.address) {
      abandonBlock("more shared memory than the kernel may have", *running.thread);
    }
  }
  return array.address;
}

bool isSharedMemory(const void* p) {
  return arena.contains(p);
}

void* dynamicSharedMemory() {
  return arena.dynamic();
}

const void* hostThread() {
  static thread_local const char token = 0;
  return &token;
}

const char* runGrid(dim3 grid, dim3 block, size_t dynamicBytes, size_t sharedBytes, KernelBody body,
                    void* arguments) {
  static std::string message;
  scheduler.body = body;
  scheduler.arguments = arguments;
  scheduler.error.clear();
  blockDim = block;
  gridDim = grid;
  running.launchSerial++;
  running.host = hostThread();
  prepareThreads(block);
  std::vector<uint64_t> blocks(uint64_t(grid.x) * grid.y * grid.z);
  for (size_t i = 0; i < blocks.size(); i++) blocks[i] = i;
  arrange(blocks);
  for (uint64_t i : blocks) {
    arena.startBlock(dynamicBytes, sharedBytes);
    uint3 index;
    index.x = static_cast<unsigned>(i % grid.x);
    index.y = static_cast<unsigned>(i / grid.x % grid.y);
    index.z = static_cast<unsigned>(i / grid.x / grid.y);
    runBlock(index);
    const char* overrun = arena.endBlock();
    if (scheduler.error.empty() && overrun) {
      scheduler.error = std::string("write beyond the shared array ") + overrun;
    }
    if (!scheduler.error.empty()) break;
  }
  running.thread = nullptr;
  if (scheduler.error.empty()) return nullptr;
  recoverFibers();
  message = scheduler.error;
  return message.c_str();
}

}  // namespace adjoint::emulation
