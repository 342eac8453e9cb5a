// How a job is shared out. Tickets number the chunks of all jobs that ever were: a job owns the
// tickets [first, first + chunks), the next one those behind. `next` is the first ticket not yet
// taken and `last` the end of the newest job's, so there is work exactly when next < last. A thread
// takes a ticket by compare-and-swap and only then looks at the job, which its caller keeps alive
// until all tickets taken are reported as done. As tickets never repeat, a thread that was asleep
// for whole jobs fails its swap and has touched nothing; nobody ever waits for it.
#include "cpu/pool.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "cpu/os.h"
#include "shared/error.h"

namespace adjoint::cpu {
namespace {

// Bridges the gap between two operations of a training step (MEASURED: 20 µs gaps want 50 µs).
constexpr std::chrono::microseconds kWorkerSpin{50};
// The caller only waits for chunks that run right now; asleep, it leaves its core to them.
constexpr std::chrono::microseconds kCallerSpin{20};

thread_local bool insideChunk = false;

struct Job {
  const RangeFunction& body;
  const int64_t n, grain;
  const uint64_t first;  // its first ticket
  // The lowest chunk that threw. Chunks are taken in order, so all below it have begun.
  std::atomic<int64_t> failed{std::numeric_limits<int64_t>::max()};
  std::mutex mutex{};  // guards error
  std::exception_ptr error{};

  void runChunk(int64_t chunk) {
    if (chunk > failed.load(std::memory_order_relaxed)) return;
    const int64_t begin = chunk * grain;
    try {
      body(begin, n - begin <= grain ? n : begin + grain);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      if (chunk < failed.load(std::memory_order_relaxed)) {
        failed.store(chunk, std::memory_order_relaxed);
        error = std::current_exception();
      }
    }
  }
};

void runSerially(int64_t n, int64_t grain, const RangeFunction& body) {
  int64_t begin = 0;
  for (; n - begin > grain; begin += grain) body(begin, begin + grain);
  body(begin, n);
}

// Yields about every 2 µs: the scheduler may have woken a worker on its caller's core, and there a
// mere spin would hold up the very thread that it serves.
template <class Condition>
bool spinUntil(Condition condition, std::chrono::microseconds limit) {
  if (condition()) return true;
  const auto end = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < 32; i++) {
      if (condition()) return true;
      os::spinPause();
    }
    std::this_thread::yield();
  } while (std::chrono::steady_clock::now() < end);
  return condition();
}

class Pool {
 public:
  // True if the calling thread now owns the pool.
  bool tryOwn() { return owner_.try_lock(); }
  void own() { owner_.lock(); }
  void disown() { owner_.unlock(); }

  // The rest is for the owner.
  int start(int threads, int usable);
  void join();
  void run(int64_t chunks, int64_t n, int64_t grain, const RangeFunction& body);

 private:
  bool hasWork() const {
    return next_.load(std::memory_order_acquire) < last_.load(std::memory_order_seq_cst);
  }
  uint32_t takeChunks();
  void report(uint32_t chunks);
  void wakeWorkers(int count);
  void work(int index);

  std::mutex owner_;
  std::vector<std::thread> workers_;
  int asked_ = 0;  // number of threads that start() was last asked for
  std::chrono::microseconds workerSpin_{0};

  // Each on a cache line of its own: `last` is what spinning workers read, the rest is written by
  // many.
  alignas(64) std::atomic<uint64_t> last_{0};
  Job* job_ = nullptr;  // the job of the tickets before last_
  std::atomic<bool> quit_{false};
  alignas(64) std::atomic<uint64_t> next_{0};
  alignas(64) std::atomic<uint32_t> done_{0};  // tickets done so far, modulo 2^32
  std::atomic<bool> callerSleeps_{false};
  alignas(64) std::atomic<uint32_t> signal_{0};  // what parked workers wait on
  std::atomic<int> sleepers_{0};
};

// Runs chunks until no ticket is left; returns how many.
uint32_t Pool::takeChunks() {
  uint32_t taken = 0;
  uint64_t ticket = next_.load(std::memory_order_acquire);
  while (ticket < last_.load(std::memory_order_seq_cst)) {
    if (!next_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                     std::memory_order_acquire)) {
      continue;
    }
    job_->runChunk(static_cast<int64_t>(ticket - job_->first));
    taken++;
    ticket = next_.load(std::memory_order_acquire);
  }
  return taken;
}

void Pool::report(uint32_t chunks) {
  done_.fetch_add(chunks, std::memory_order_seq_cst);
  // Either this sees that the caller sleeps, or the caller sees the new count before it does.
  if (callerSleeps_.load(std::memory_order_seq_cst)) os::wake(done_, 1);
}

void Pool::wakeWorkers(int count) {
  count = std::min(count, sleepers_.load(std::memory_order_seq_cst));
  if (count <= 0) return;
  signal_.fetch_add(1, std::memory_order_seq_cst);
  os::wake(signal_, count);
}

void Pool::work(int index) {
  os::enterWorkerThread(index);
  insideChunk = true;  // so that a nested call runs serially
  const auto called = [this] { return hasWork() || quit_.load(std::memory_order_acquire); };
  for (;;) {
    if (!spinUntil(called, workerSpin_)) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      const uint32_t signal = signal_.load(std::memory_order_seq_cst);
      if (!called()) os::wait(signal_, signal);
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      // Those who wake wake others, so that the caller need not pay for a call to each.
      if (hasWork()) wakeWorkers(2);
    }
    if (quit_.load(std::memory_order_acquire)) return;
    if (const uint32_t taken = takeChunks()) report(taken);
  }
}

// Returns the number of threads that take part, fewer than asked where the system refuses them.
int Pool::start(int threads, int usable) {
  if (asked_ == threads) return static_cast<int>(workers_.size()) + 1;
  join();
  asked_ = threads;
  // A spinning thread too many takes the core from one that has work.
  workerSpin_ = threads <= usable ? kWorkerSpin : std::chrono::microseconds{0};
  quit_.store(false, std::memory_order_release);
  try {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {
  }
  return static_cast<int>(workers_.size()) + 1;
}

void Pool::join() {
  quit_.store(true, std::memory_order_seq_cst);
  signal_.fetch_add(1, std::memory_order_seq_cst);
  os::wake(signal_, static_cast<int>(workers_.size()));
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
  asked_ = 0;
}

void Pool::run(int64_t chunks, int64_t n, int64_t grain, const RangeFunction& body) {
  const uint64_t first = last_.load(std::memory_order_relaxed);
  Job job{body, n, grain, first};
  job_ = &job;
  last_.store(first + static_cast<uint64_t>(chunks), std::memory_order_seq_cst);
  // Two at first: they go on to wake the others.
  wakeWorkers(static_cast<int>(std::min<int64_t>(chunks - 1, 2)));

  insideChunk = true;
  const uint32_t taken = takeChunks();
  insideChunk = false;
  const uint32_t all = static_cast<uint32_t>(first + static_cast<uint64_t>(chunks));
  uint32_t done = done_.fetch_add(taken, std::memory_order_seq_cst) + taken;
  const auto finished = [&] { return (done = done_.load(std::memory_order_seq_cst)) == all; };
  if (done != all && !spinUntil(finished, kCallerSpin)) {
    callerSleeps_.store(true, std::memory_order_seq_cst);
    while (!finished()) os::wait(done_, done);
    callerSleeps_.store(false, std::memory_order_relaxed);
  }
  if (job.error) std::rethrow_exception(job.error);
}

// ---------------------------------------------------------------- the process's one pool
// Never destroyed: threads may still look at it while static objects are. A forked child, which has
// none of the threads, takes a new one.
std::atomic<Pool*> currentPool{nullptr};
std::atomic<bool> exiting{false};

Pool& pool() {
  static const bool once = [] {
    currentPool.store(new Pool, std::memory_order_release);
    os::onForkChild([] {
      currentPool.store(new Pool, std::memory_order_release);
      insideChunk = false;
    });
    return true;
  }();
  static_cast<void>(once);
  return *currentPool.load(std::memory_order_acquire);
}

class Ownership {
 public:
  explicit Ownership(Pool& pool) : pool_(pool) {}
  ~Ownership() { pool_.disown(); }
  Ownership(const Ownership&) = delete;
  Ownership& operator=(const Ownership&) = delete;

 private:
  Pool& pool_;
};

// Joins the threads at exit, unless some thread is in the middle of a job just then: exit then ends
// the threads together with the process, as they touch nothing that is ever destroyed.
struct JoinAtExit {
  ~JoinAtExit() {
    exiting.store(true, std::memory_order_release);
    Pool& p = pool();
    if (insideChunk || !p.tryOwn()) return;
    Ownership ownership(p);
    p.join();
  }
};

// ---------------------------------------------------------------- the number of threads
struct Defaults {
  int threads;
  int usable;
  std::string why;
};

const Defaults& defaults() {
  static const Defaults* const value = [] {
    const os::Processors p = os::processors();
    std::string why = "hardware " + std::to_string(p.hardware) + ", affinity " +
                      std::to_string(p.affinity) + ", container quota " +
                      (p.quota > p.hardware ? "none" : std::to_string(p.quota));
    int threads = std::min(p.usable, kMaxPoolThreads);
    if (const char* text = std::getenv("ADJOINT_NUM_THREADS"); text != nullptr && *text != 0) {
      char* end = nullptr;
      errno = 0;
      const long asked = std::strtol(text, &end, 10);
      const std::string setting = std::string("ADJOINT_NUM_THREADS=") + text;
      if (*end == 0 && errno == 0 && asked >= 1 && asked <= kMaxPoolThreads) {
        threads = static_cast<int>(asked);
        why = setting;
      } else {
        why = setting + " ignored: expected an integer from 1 to " +
              std::to_string(kMaxPoolThreads) + "; " + why;
      }
    }
    return new Defaults{threads, p.usable, why};  // never destroyed, as above
  }();
  return *value;
}

std::atomic<int> chosenThreads{0};  // 0: the default

}  // namespace

int poolThreads() {
  const int chosen = chosenThreads.load(std::memory_order_relaxed);
  return chosen > 0 ? chosen : defaults().threads;
}

std::string poolThreadsWhy() {
  return chosenThreads.load(std::memory_order_relaxed) > 0 ? "set by the program" : defaults().why;
}

void setPoolThreads(int n) {
  if (n < 1 || n > kMaxPoolThreads) {
    fail(ErrorKind::argument, "setThreadCount: expected an integer from 1 to %d, got %d",
         kMaxPoolThreads, n);
  }
  stopPool();
  chosenThreads.store(n, std::memory_order_relaxed);
}

void stopPool() {
  if (insideChunk) fail(ErrorKind::internal, "stopPool: called from within parallelFor");
  Pool& p = pool();
  p.own();
  Ownership ownership(p);
  p.join();
}

void parallelFor(int64_t n, int64_t grain, RangeFunction body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (n <= grain) return body(0, n);
  const int64_t chunks = (n - 1) / grain + 1;
  // done_ counts modulo 2^32: more chunks than that are a mistake, but not one to hang on.
  if (insideChunk || chunks > std::numeric_limits<int32_t>::max() || poolThreads() == 1 ||
      exiting.load(std::memory_order_acquire)) {
    return runSerially(n, grain, body);
  }
  Pool& p = pool();
  if (!p.tryOwn()) return runSerially(n, grain, body);
  Ownership ownership(p);
  static const JoinAtExit joinAtExit;
  if (p.start(poolThreads(), defaults().usable) == 1) return runSerially(n, grain, body);
  p.run(chunks, n, grain, body);
}

}  // namespace adjoint::cpu
