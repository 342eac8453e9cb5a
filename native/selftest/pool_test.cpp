// The thread pool: every chunk exactly once, whatever else goes on.
#include "cpu/pool.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "shared/error.h"

namespace adjoint::cpu {
namespace {

// Runs each test with the number of threads it asks for and gives the old number back.
class PoolTest : public ::testing::Test {
 protected:
  void SetUp() override { before_ = poolThreads(); }
  void TearDown() override { setPoolThreads(before_); }

 private:
  int before_ = 1;
};

// Counts each index, checks the chunks' edges, and expects every index once.
void expectEachIndexOnce(int64_t n, int64_t grain) {
  std::vector<std::atomic<int>> count(static_cast<size_t>(n));
  std::atomic<int64_t> badChunks{0};
  parallelFor(n, grain, [&](int64_t begin, int64_t end) {
    if (begin % grain != 0 || end != std::min(n, begin + grain)) badChunks++;
    for (int64_t i = begin; i < end; i++) count[static_cast<size_t>(i)]++;
  });
  EXPECT_EQ(badChunks, 0) << "n " << n << " grain " << grain;
  for (auto& c : count) ASSERT_EQ(c, 1) << "n " << n << " grain " << grain;
}

TEST_F(PoolTest, RunsEveryIndexOnce) {
  for (int threads : {1, 2, 3, 8}) {
    setPoolThreads(threads);
    for (int64_t n : {1, 2, 3, 7, 64, 1000, 4097}) {
      for (int64_t grain : {1, 2, 5, 64, 1000, 5000}) expectEachIndexOnce(n, grain);
    }
  }
}

TEST_F(PoolTest, EmptyRangesCallNothing) {
  int calls = 0;
  for (int64_t n : {int64_t{0}, int64_t{-1}, INT64_MIN}) {
    parallelFor(n, 1, [&](int64_t, int64_t) { calls++; });
  }
  EXPECT_EQ(calls, 0);
}

TEST_F(PoolTest, GrainBelowOneCountsAsOne) {
  setPoolThreads(2);
  std::atomic<int> calls{0};
  parallelFor(5, 0, [&](int64_t begin, int64_t end) { calls += end - begin == 1 ? 1 : 100; });
  EXPECT_EQ(calls, 5);
}

TEST_F(PoolTest, LargestRangeDoesNotOverflow) {
  setPoolThreads(2);
  std::atomic<int64_t> total{0};
  parallelFor(INT64_MAX, INT64_MAX / 3, [&](int64_t begin, int64_t end) { total += end - begin; });
  EXPECT_EQ(total, INT64_MAX);
}

TEST_F(PoolTest, ManySmallJobs) {
  setPoolThreads(4);
  for (int job = 0; job < 5000; job++) {
    std::atomic<int64_t> sum{0};
    const int64_t n = 2 + job % 7;
    parallelFor(n, 1, [&](int64_t begin, int64_t) { sum += begin + 1; });
    ASSERT_EQ(sum, n * (n + 1) / 2);
    if (job % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // let them park
  }
}

// Until `condition` holds; whoever waits for what never comes fails by its own checks.
template <class Condition>
void await(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
}

TEST_F(PoolTest, OtherThreadsTakePart) {
  setPoolThreads(2);
  std::atomic<int> inside{0};
  std::atomic<bool> met{false};
  // Each chunk waits for the other: only two threads at once get through.
  parallelFor(2, 1, [&](int64_t, int64_t) {
    inside++;
    await([&] { return inside == 2; });
    if (inside == 2) met = true;
  });
  EXPECT_TRUE(met);
}

TEST_F(PoolTest, EachThreadBeginsWithARunOfItsOwn) {
  setPoolThreads(2);
  constexpr int64_t n = 10;
  for (int round = 0; round < 100; round++) {
    std::atomic<int64_t> second{-1};  // the chunk that began after the caller's first
    parallelFor(n, 1, [&](int64_t begin, int64_t) {
      int64_t none = -1;
      if (begin == 0) {
        await([&] { return second >= 0; });
      } else {
        second.compare_exchange_strong(none, begin);
      }
    });
    ASSERT_EQ(second, n / 2);
  }
}

TEST_F(PoolTest, WhoeverIsDoneTakesTheOthersChunks) {
  setPoolThreads(2);
  for (int64_t slow : {0, 5}) {  // the caller's first chunk, the worker's
    std::atomic<int> others{0};
    bool allRan = false;
    parallelFor(10, 1, [&](int64_t begin, int64_t) {
      if (begin != slow) {
        others++;
        return;
      }
      await([&] { return others == 9; });
      allRan = others == 9;
    });
    EXPECT_TRUE(allRan) << "beside chunk " << slow;
  }
}

TEST_F(PoolTest, CallerFinishesAloneWhenWorkersAreLate) {
  setPoolThreads(8);
  // The first chunk takes a worker's whole attention; the caller still ends all the others.
  for (int round = 0; round < 50; round++) {
    std::atomic<int> count{0};
    parallelFor(64, 1, [&](int64_t begin, int64_t) {
      if (begin == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
      count++;
    });
    ASSERT_EQ(count, 64);
  }
}

TEST_F(PoolTest, NestedCallsRunSeriallyInTheSameThread) {
  setPoolThreads(4);
  std::atomic<int> inner{0}, strangers{0};
  parallelFor(16, 1, [&](int64_t, int64_t) {
    const auto self = std::this_thread::get_id();
    int64_t expected = 0;
    parallelFor(10, 3, [&](int64_t begin, int64_t end) {
      if (std::this_thread::get_id() != self || begin != expected) strangers++;
      expected = end;
      inner += static_cast<int>(end - begin);
    });
  });
  EXPECT_EQ(inner, 160);
  EXPECT_EQ(strangers, 0);
}

TEST_F(PoolTest, RethrowsTheExceptionOfTheFirstFailingChunk) {
  setPoolThreads(4);
  for (int round = 0; round < 300; round++) {
    try {
      parallelFor(100, 1, [&](int64_t begin, int64_t) {
        if (begin >= 20 && begin % 10 == 0) throw std::runtime_error(std::to_string(begin));
      });
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      ASSERT_STREQ(error.what(), "20");
    }
    expectEachIndexOnce(10, 1);  // and the pool still works
  }
}

TEST_F(PoolTest, ExceptionsPassThroughNestedAndSerialCalls) {
  for (int threads : {1, 4}) {
    setPoolThreads(threads);
    EXPECT_THROW(parallelFor(8, 1,
                             [](int64_t, int64_t) {
                               parallelFor(4, 1, [](int64_t begin, int64_t) {
                                 if (begin == 3) fail(ErrorKind::index, "gather: out of range");
                               });
                             }),
                 Error);
  }
}

TEST_F(PoolTest, ManyCallersAtOnce) {
  setPoolThreads(4);
  std::atomic<int> failures{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 8; c++) {
    callers.emplace_back([&failures, c] {
      for (int job = 0; job < 400; job++) {
        std::atomic<int64_t> sum{0};
        const int64_t n = 50 + c;
        parallelFor(n, 3, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++) sum += i;
        });
        if (sum != n * (n - 1) / 2) failures++;
      }
    });
  }
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(failures, 0);
}

TEST_F(PoolTest, ThreadCountMayChangeUnderLoad) {
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0}, jobs{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; c++) {
    callers.emplace_back([&] {
      while (!stop) {
        std::atomic<int64_t> count{0};
        parallelFor(40, 1, [&](int64_t, int64_t) { count++; });
        if (count != 40) failures++;
        jobs++;
      }
    });
  }
  for (int change = 0; change < 100; change++) {
    const int before = jobs;
    setPoolThreads(1 + change % 6);
    while (jobs == before) std::this_thread::yield();
  }
  stop = true;
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(failures, 0);
}

TEST_F(PoolTest, StopsAndStartsAThousandTimes) {
  setPoolThreads(3);
  for (int round = 0; round < 1000; round++) {
    std::atomic<int> count{0};
    parallelFor(6, 1, [&](int64_t, int64_t) { count++; });
    ASSERT_EQ(count, 6);
    stopPool();
  }
}

TEST_F(PoolTest, ResultsDoNotDependOnTheNumberOfThreads) {
  std::vector<float> x(100000);
  for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(static_cast<float>(i));
  const auto sum = [&] {
    constexpr int64_t grain = 777;
    const int64_t n = static_cast<int64_t>(x.size());
    std::vector<float> partial(static_cast<size_t>((n + grain - 1) / grain));
    parallelFor(n, grain, [&](int64_t begin, int64_t end) {
      partial[static_cast<size_t>(begin / grain)] =
          std::accumulate(x.begin() + begin, x.begin() + end, 0.0f);
    });
    return std::accumulate(partial.begin(), partial.end(), 0.0f);
  };
  setPoolThreads(1);
  const float serial = sum();
  for (int threads : {2, 3, 7}) {
    setPoolThreads(threads);
    for (int round = 0; round < 20; round++) ASSERT_EQ(sum(), serial);
  }
}

TEST_F(PoolTest, RefusesBadThreadCounts) {
  const int before = poolThreads();
  for (int n : {0, -1, kMaxPoolThreads + 1}) EXPECT_THROW(setPoolThreads(n), Error);
  EXPECT_EQ(poolThreads(), before);
  setPoolThreads(5);
  EXPECT_EQ(poolThreads(), 5);
  EXPECT_EQ(poolThreadsWhy(), "set by the program");
}

TEST_F(PoolTest, ChangingThePoolFromWithinAChunkIsAnError) {
  setPoolThreads(2);
  EXPECT_THROW(parallelFor(2, 1, [](int64_t, int64_t) { setPoolThreads(3); }), Error);
}

// The portable twin knows nothing of fork, ThreadSanitizer nothing of threads in forked children.
#if defined(__linux__) && !defined(ADJOINT_PORTABLE) && !defined(__SANITIZE_THREAD__)
int exitStatusOfChild(void (*child)()) {
  const pid_t pid = fork();
  if (pid == 0) {
    child();
    std::exit(::testing::Test::HasFailure() ? 8 : 7);  // runs the exit handlers
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(PoolTest, AForkedChildHasAPoolOfItsOwn) {
  setPoolThreads(3);
  expectEachIndexOnce(100, 1);
  EXPECT_EQ(exitStatusOfChild([] { expectEachIndexOnce(100, 1); }), 7);
  expectEachIndexOnce(100, 1);
}

TEST_F(PoolTest, ExitWhileAnotherThreadComputes) {
  setPoolThreads(3);
  stopPool();
  const int status = exitStatusOfChild([] {
    static std::atomic<bool> begun{false};
    std::thread([] {
      for (;;) {
        parallelFor(64, 1, [](int64_t, int64_t) { begun = true; });
      }
    }).detach();
    while (!begun) std::this_thread::yield();
  });
  EXPECT_EQ(status, 7);
}
#endif

}  // namespace
}  // namespace adjoint::cpu
