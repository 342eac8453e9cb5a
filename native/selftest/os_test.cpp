// What the system says, and the device functions that pass it on.
#include "cpu/os.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>

#include "contract.h"
#include "cpu/pool.h"

namespace adjoint::cpu::os {
namespace {

// A folder that stands before /proc and /sys.
class FakeRoot {
 public:
  FakeRoot() {
    std::string pattern = (std::filesystem::temp_directory_path() / "adjointXXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~FakeRoot() { std::filesystem::remove_all(root_); }
  FakeRoot& with(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
    return *this;
  }
  const std::string& path() const { return root_; }

 private:
  std::string root_;
};

TEST(Os, ReadsLimitsOfControlGroups2) {
  FakeRoot root;
  root.with("/proc/self/cgroup", "0::/pod/container")
      .with("/sys/fs/cgroup/pod/cpu.max", "150000 100000")
      .with("/sys/fs/cgroup/pod/container/cpu.max", "max 100000")
      .with("/sys/fs/cgroup/pod/memory.max", "max")
      .with("/sys/fs/cgroup/pod/container/memory.max", "1073741824");
  EXPECT_DOUBLE_EQ(cgroupQuota(root.path()), 1.5);
  EXPECT_EQ(cgroupMemoryLimit(root.path()), 1073741824u);
}

TEST(Os, ReadsLimitsOfAContainersOwnMount) {
  FakeRoot root;  // /proc names the host's path; the mount shows only the group itself
  root.with("/proc/self/cgroup", "0::/kubepods/pod1/abc")
      .with("/sys/fs/cgroup/cpu.max", "50000 100000")
      .with("/sys/fs/cgroup/memory.max", "2000000000");
  EXPECT_DOUBLE_EQ(cgroupQuota(root.path()), 0.5);
  EXPECT_EQ(cgroupMemoryLimit(root.path()), 2000000000u);
}

TEST(Os, ReadsLimitsOfControlGroups1) {
  FakeRoot root;
  root.with("/proc/self/cgroup", "4:memory:/a/b\n1:cpuacct,cpu:/a\n0::/")
      .with("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "300000")
      .with("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000")
      .with("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712")
      .with("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4000000000");
  EXPECT_DOUBLE_EQ(cgroupQuota(root.path()), 3);
  EXPECT_EQ(cgroupMemoryLimit(root.path()), 4000000000u);
}

TEST(Os, NoGroupOrNonsenseMeansNoLimit) {
  FakeRoot empty;
  EXPECT_TRUE(std::isinf(cgroupQuota(empty.path())));
  EXPECT_EQ(cgroupMemoryLimit(empty.path()), UINT64_MAX);
  FakeRoot odd;
  odd.with("/proc/self/cgroup", "nonsense\n1:cpu:/\n:\n")
      .with("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
      .with("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
  EXPECT_TRUE(std::isinf(cgroupQuota(odd.path())));
}

TEST(Os, ProcessorsArePlausible) {
  const Processors p = processors();
  EXPECT_GE(p.usable, 1);
  EXPECT_LE(p.usable, p.hardware);
  EXPECT_LE(p.usable, p.affinity);
}

TEST(Os, WaitReturnsAtOnceOnAnotherValueAndWhenWoken) {
  std::atomic<uint32_t> word{1};
  wait(word, 0);  // would hang if it blocked
  std::thread waiter([&] {
    while (word.load() == 1) wait(word, 1);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  word.store(2);
  wake(word, 1);
  waiter.join();
}

TEST(Os, PagesAreAlignedAndWritable) {
  for (size_t bytes : {size_t{65536}, kHugePage, 3 * kHugePage}) {
    auto* pages = static_cast<char*>(mapPages(bytes));
    ASSERT_NE(pages, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(pages) % (bytes % kHugePage == 0 ? kHugePage : 4096), 0u);
    pages[0] = pages[bytes - 1] = 1;
    unmapPages(pages, bytes);
  }
  EXPECT_EQ(mapPages(SIZE_MAX - 2 * kHugePage + 1), nullptr);
}

TEST(Device, InfoNamesWhatDoctorPrints) {
  std::map<std::string, std::string> info;
  for (const auto& [key, value] : backend::deviceInfo()) info[key] = value;
  for (const char* key : {"processor", "features", "simd", "simd supported", "simd features",
                          "threads", "memory", "system calls"}) {
    EXPECT_FALSE(info[key].empty()) << key;
  }
  EXPECT_STREQ(backend::name(), "cpu");
}

TEST(Device, ThreadCountIsThePools) {
  const int before = backend::threadCount();
  backend::setThreadCount(4);
  EXPECT_EQ(cpu::poolThreads(), 4);
  EXPECT_EQ(backend::threadCount(), 4);
  EXPECT_THROW(backend::setThreadCount(0), Error);
  backend::setThreadCount(before);
}

TEST(Device, StartsAndShutsDownRepeatedly) {
  for (int round = 0; round < 3; round++) {
    backend::startup();
    std::atomic<int> calls{0};
    parallelFor(8, 1, [&](int64_t, int64_t) { calls++; });
    EXPECT_EQ(calls, 8);
    backend::synchronize();
    backend::shutdown();
  }
}

}  // namespace
}  // namespace adjoint::cpu::os
