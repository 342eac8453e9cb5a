// How a job is shared out. Each thread has a share, a run of the job's chunks side by side, and
// takes its own from the front; one whose share is empty takes from the back of the others'. So the
// same thread meets the same part of a tensor in one operation after another, as long as it keeps
// pace, and finds it in its own core's cache: another core's costs several times as much, and ten
// times as much again where the cores have no cache in common.
//
// A share is one word, the chunks left in it, and taking is a compare-and-swap: whoever succeeds
// has a chunk of the job that is running now, whatever was there when it looked. Only then does it
// look at the job, which its caller keeps alive until all chunks are reported as done. A thread
// that was asleep for whole jobs has touched nothing, and nobody ever waits for it.
#include "cpu/pool.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "cpu/os.h"
#include "shared/error.h"

namespace adjoint::cpu {
namespace {

// Bridges the gap between two operations of a training step. JavaScript that the last kernel has
// put out of the caches takes up to 100 µs; a worker that went to sleep meanwhile takes as long to
// wake.
constexpr std::chrono::microseconds kWorkerSpin{200};
// The caller only waits for chunks that run right now; asleep, it leaves its core to them.
constexpr std::chrono::microseconds kCallerSpin{20};

thread_local bool insideChunk = false;

struct Job {
  const RangeFunction& body;
  const int64_t n, grain;
  // The lowest chunk that threw so far. Those below it still run: the lowest of all is found.
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

// The chunks [front, back) that are left, both in one word. On a cache line of its own.
class alignas(64) Share {
 public:
  bool isEmpty() const {
    const uint64_t left = left_.load(std::memory_order_seq_cst);
    return front(left) >= back(left);
  }
  void fill(int64_t begin, int64_t end) {
    left_.store(static_cast<uint64_t>(end) << 32 | static_cast<uint64_t>(begin),
                std::memory_order_seq_cst);
  }
  // The chunk in front, or the last one; -1 if none is left.
  int64_t take(bool inFront) {
    uint64_t left = left_.load(std::memory_order_acquire);
    while (front(left) < back(left)) {
      const uint64_t rest = inFront ? left + 1 : left - (uint64_t{1} << 32);
      if (left_.compare_exchange_weak(left, rest, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
        return inFront ? front(left) : back(left) - 1;
      }
    }
    return -1;
  }

 private:
  static int64_t front(uint64_t left) { return static_cast<uint32_t>(left); }
  static int64_t back(uint64_t left) { return static_cast<int64_t>(left >> 32); }

  std::atomic<uint64_t> left_{0};
};

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
    return std::any_of(shares_.get(), shares_.get() + threads_,
                       [](const Share& share) { return !share.isEmpty(); });
  }
  uint32_t takeChunks(int self);
  void report(uint32_t chunks);
  void wakeWorkers(int count);
  void work(int index);

  std::mutex owner_;
  std::vector<std::thread> workers_;
  int asked_ = 0;  // number of threads that start() was last asked for
  std::chrono::microseconds workerSpin_{0};
  // One a thread, the caller's first. Changed only while there are no workers.
  std::unique_ptr<Share[]> shares_;
  int threads_ = 0;

  // Each on a cache line of its own: `jobs` is what spinning workers read, the rest is written by
  // many.
  alignas(64) std::atomic<uint64_t> jobs_{0};  // that ever were
  Job* job_ = nullptr;                         // the one that the shares are filled with
  std::atomic<bool> quit_{false};
  alignas(64) std::atomic<uint32_t> done_{0};  // chunks done of the job
  std::atomic<bool> callerSleeps_{false};
  alignas(64) std::atomic<uint32_t> signal_{0};  // what parked workers wait on
  std::atomic<int> sleepers_{0};
};

// Runs chunks until no share has any left; returns how many. The job can't end before they are
// reported, so all are of the same one.
uint32_t Pool::takeChunks(int self) {
  uint32_t taken = 0;
  for (int i = 0; i < threads_; i++) {
    Share& share = shares_[(self + i) % threads_];
    for (int64_t chunk; (chunk = share.take(i == 0)) >= 0; taken++) job_->runChunk(chunk);
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
  uint64_t seen = 0;   // of the jobs
  const auto called = [&] {
    return jobs_.load(std::memory_order_seq_cst) != seen || quit_.load(std::memory_order_acquire);
  };
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
    seen = jobs_.load(std::memory_order_seq_cst);
    if (const uint32_t taken = takeChunks(index)) report(taken);
  }
}

// Returns the number of threads that take part, fewer than asked where the system refuses them.
int Pool::start(int threads, int usable) {
  if (asked_ == threads) return static_cast<int>(workers_.size()) + 1;
  join();
  asked_ = threads_ = threads;
  shares_ = std::make_unique<Share[]>(static_cast<size_t>(threads));
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
  Job job{body, n, grain};
  job_ = &job;
  done_.store(0, std::memory_order_relaxed);
  const int64_t sharers = std::min<int64_t>(chunks, static_cast<int64_t>(workers_.size()) + 1);
  for (int64_t i = sharers; i-- > 0;) {
    shares_[i].fill(chunks * i / sharers, chunks * (i + 1) / sharers);
  }
  jobs_.fetch_add(1, std::memory_order_seq_cst);
  // Two at first: they go on to wake the others.
  wakeWorkers(static_cast<int>(std::min<int64_t>(chunks - 1, 2)));

  insideChunk = true;
  const uint32_t taken = takeChunks(0);
  insideChunk = false;
  const uint32_t all = static_cast<uint32_t>(chunks);
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

int threadsHere() {
  return insideChunk ? 1 : poolThreads();
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
  // A share holds 32 bits of each end: more chunks than that are a mistake, but not one to hang on.
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
