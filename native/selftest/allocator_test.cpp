// The caching allocator: blocks that do not overlap, exact figures, memory that goes back.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "contract.h"
#include "cpu/os.h"
#include "cpu/pool.h"
#include "shared/block_allocator.h"
#include "shared/poison.h"

namespace adjoint {
namespace {

constexpr size_t KiB = 1024, MiB = 1024 * KiB;

// Counts what is mapped and refuses to map more than it was told.
class TestSource final : public SegmentSource {
 public:
  explicit TestSource(size_t most = SIZE_MAX, size_t limit = 0) : most_(most), limit_(limit) {}
  ~TestSource() override { EXPECT_TRUE(segments_.empty()); }
  void* map(size_t bytes) override {
    if (bytes > most_ - mapped_) return nullptr;
    void* pages = cpu::os::mapPages(bytes);
    mapped_ += bytes;
    segments_[pages] = bytes;
    return pages;
  }
  void unmap(void* pages, size_t bytes) override {
    EXPECT_EQ(segments_.at(pages), bytes);
    segments_.erase(pages);
    mapped_ -= bytes;
    cpu::os::unmapPages(pages, bytes);
  }
  size_t limit() const override { return limit_; }
  size_t mapped() const { return mapped_; }

 private:
  const size_t most_, limit_;
  size_t mapped_ = 0;
  std::map<void*, size_t> segments_;
};

struct Block {
  unsigned char* data;
  size_t bytes;
  unsigned char mark;

  // Every byte of small blocks, samples and the last byte of large ones.
  size_t step() const { return bytes > 4096 ? 509 : 1; }
  void fill() {
    for (size_t i = 0; i < bytes; i += step()) data[i] = mark;
    data[bytes - 1] = mark;
  }
  bool intact() const {
    for (size_t i = 0; i < bytes; i += step()) {
      if (data[i] != mark) return false;
    }
    return data[bytes - 1] == mark;
  }
};

// Small sizes are the most frequent, as in a training step.
size_t randomSize(std::mt19937& random) {
  const unsigned kind = random() % 100;
  if (kind < 60) return 1 + random() % 256;
  if (kind < 85) return 1 + random() % (64 * KiB);
  if (kind < 97) return 1 + random() % MiB;
  return 1 + random() % (5 * MiB);
}

// Random allocations and releases; every block keeps its own pattern. Returns false on damage.
bool stress(BlockAllocator& allocator, unsigned seed, int steps, size_t maxBlocks) {
  std::mt19937 random(seed);
  std::vector<Block> blocks;
  bool sound = true;
  const auto drop = [&](size_t at) {
    sound = sound && blocks[at].intact();
    allocator.release(blocks[at].data, blocks[at].bytes);
    blocks[at] = blocks.back();
    blocks.pop_back();
  };
  for (int i = 0; i < steps && sound; i++) {
    if (blocks.size() < maxBlocks && random() % 5 < 3) {
      const size_t bytes = randomSize(random);
      Block block{static_cast<unsigned char*>(allocator.allocate(bytes)), bytes,
                  static_cast<unsigned char>(random())};
      if (block.data == nullptr) return false;
      block.fill();
      blocks.push_back(block);
    } else if (!blocks.empty()) {
      drop(random() % blocks.size());
    }
    if (i % 5000 == 4999) allocator.trim();
  }
  while (!blocks.empty()) drop(blocks.size() - 1);
  return sound;
}

TEST(Allocator, BlocksAreAlignedAndApart) {
  TestSource source;
  BlockAllocator allocator(source);
  std::vector<Block> blocks;
  for (size_t bytes = 1; bytes < 3 * MiB; bytes += 1 + bytes / 37) {
    for (size_t near : {bytes, (bytes + 63) / 64 * 64, (bytes + 63) / 64 * 64 + 1}) {
      Block block{static_cast<unsigned char*>(allocator.allocate(near)), near,
                  static_cast<unsigned char>(blocks.size())};
      ASSERT_NE(block.data, nullptr);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(block.data) % 64, 0u) << near;
      block.fill();
      blocks.push_back(block);
    }
  }
  for (const Block& block : blocks) ASSERT_TRUE(block.intact()) << block.bytes;
  for (const Block& block : blocks) allocator.release(block.data, block.bytes);
  allocator.trim();
  EXPECT_EQ(source.mapped(), 0u);
}

TEST(Allocator, WiderUnitsAlignForDevices) {
  TestSource source;
  BlockAllocator allocator(source, {9, 2 * MiB, true});
  std::vector<Block> blocks;
  for (size_t bytes = 1; bytes < 12 * MiB; bytes += 1 + bytes / 3) {
    Block block{static_cast<unsigned char*>(allocator.allocate(bytes)), bytes, 7};
    ASSERT_EQ(reinterpret_cast<uintptr_t>(block.data) % 512, 0u) << bytes;
    blocks.push_back(block);
  }
  for (const Block& block : blocks) allocator.release(block.data, block.bytes);
  allocator.trim();
  EXPECT_EQ(source.mapped(), 0u);
}

TEST(Allocator, RandomStressKeepsEveryPattern) {
  TestSource source;
  BlockAllocator allocator(source);
  for (unsigned seed : {1u, 2u, 3u}) EXPECT_TRUE(stress(allocator, seed, 20000, 300));
  EXPECT_EQ(allocator.stats().liveBytes, 0u);
  allocator.trim();
  EXPECT_EQ(source.mapped(), 0u);
}

TEST(Allocator, ThreadsShareIt) {
  TestSource source;
  BlockAllocator allocator(source);
  std::vector<std::thread> threads;
  std::atomic<int> sound{0};
  for (unsigned seed = 0; seed < 6; seed++) {
    threads.emplace_back([&, seed] { sound += stress(allocator, seed, 6000, 60); });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(sound, 6);
  EXPECT_EQ(allocator.stats().liveBytes, 0u);
  allocator.trim();
  EXPECT_EQ(source.mapped(), 0u);
}

TEST(Allocator, FiguresAreExact) {
  TestSource source;
  BlockAllocator allocator(source);
  std::mt19937 random(5);
  std::vector<std::pair<void*, size_t>> blocks;
  size_t live = 0, peak = 0;
  for (int i = 0; i < 3000; i++) {
    if (random() % 2 == 0 || blocks.empty()) {
      const size_t bytes = randomSize(random);
      blocks.emplace_back(allocator.allocate(bytes), bytes);
      live += bytes;
      peak = std::max(peak, live);
    } else {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      allocator.release(blocks.back().first, blocks.back().second);
      live -= blocks.back().second;
      blocks.pop_back();
    }
    const BlockAllocatorStats stats = allocator.stats();
    ASSERT_EQ(stats.liveBytes, live);
    ASSERT_EQ(stats.peakLiveBytes, peak);
    ASSERT_EQ(stats.reservedBytes, source.mapped());
    ASSERT_LE(stats.liveBytes + stats.cachedBytes, stats.reservedBytes);
  }
  for (const auto& [block, bytes] : blocks) allocator.release(block, bytes);
  const BlockAllocatorStats stats = allocator.stats();
  EXPECT_EQ(stats.liveBytes, 0u);
  EXPECT_EQ(stats.cachedBytes, stats.reservedBytes);
  allocator.trim();
  EXPECT_EQ(allocator.stats().reservedBytes, 0u);
}

TEST(Allocator, ASteadyLoopAsksTheSystemForNothing) {
  TestSource source;
  BlockAllocator allocator(source);
  std::mt19937 random(9);
  std::vector<size_t> sizes(500);
  for (size_t& bytes : sizes) bytes = randomSize(random);
  std::vector<void*> blocks(sizes.size());
  uint64_t after10 = 0;
  for (int step = 0; step < 200; step++) {
    for (size_t i = 0; i < sizes.size(); i++) blocks[i] = allocator.allocate(sizes[i]);
    for (size_t i = 0; i < sizes.size(); i++) allocator.release(blocks[i], sizes[i]);
    if (step == 10) after10 = allocator.stats().systemAllocations;
  }
  EXPECT_EQ(allocator.stats().systemAllocations, after10);
  allocator.trim();
}

TEST(Allocator, NeighboursCoalesceInAnyOrderOfRelease) {
  TestSource source;
  BlockAllocator allocator(source);
  std::mt19937 random(3);
  for (int round = 0; round < 20; round++) {
    std::vector<std::pair<void*, size_t>> blocks;
    for (int i = 0; i < 100; i++) {
      const size_t bytes = MiB + 1 + random() % (3 * MiB);
      blocks.emplace_back(allocator.allocate(bytes), bytes);
    }
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (const auto& [block, bytes] : blocks) allocator.release(block, bytes);
    allocator.trim();
    ASSERT_EQ(source.mapped(), 0u);  // only wholly free segments go back
  }
}

TEST(Allocator, FragmentationIsBounded) {
  TestSource source;
  BlockAllocator allocator(source);
  std::mt19937 random(4);
  std::vector<std::pair<void*, size_t>> blocks;
  size_t live = 0;
  constexpr size_t target = 200 * MiB;
  for (int i = 0; i < 60000; i++) {
    // Sizes that never repeat are the hard case.
    const size_t bytes = 1 + random() % (1 + random() % (4 * MiB));
    blocks.emplace_back(allocator.allocate(bytes), bytes);
    live += bytes;
    while (live > target) {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      allocator.release(blocks.back().first, blocks.back().second);
      live -= blocks.back().second;
      blocks.pop_back();
    }
  }
  EXPECT_LT(source.mapped(), target * 7 / 4);
  for (const auto& [block, bytes] : blocks) allocator.release(block, bytes);
  allocator.trim();
  EXPECT_EQ(source.mapped(), 0u);
}

TEST(Allocator, EmptySlabsServeOtherSizes) {
  TestSource source;
  BlockAllocator allocator(source);
  const auto fill = [&](size_t bytes, size_t total) {
    std::vector<void*> blocks(total / bytes);
    for (void*& block : blocks) block = allocator.allocate(bytes);
    for (void* block : blocks) allocator.release(block, bytes);
  };
  fill(32, 8 * MiB);
  const size_t before = source.mapped();
  for (size_t bytes : {100u, 1000u, 9000u, 15000u, 100000u, 1000000u, 3000000u}) {
    fill(bytes, 4 * MiB);
  }
  EXPECT_EQ(source.mapped(), before);
  allocator.trim();
}

TEST(Allocator, OneLiveBlockHoldsOneSegment) {
  TestSource source;
  BlockAllocator allocator(source);
  std::vector<void*> blocks(500000);
  for (void*& block : blocks) block = allocator.allocate(64);
  ASSERT_GT(source.mapped(), 30 * MiB);
  for (size_t i = 1; i < blocks.size(); i++) allocator.release(blocks[i], 64);
  allocator.trim();
  EXPECT_LE(source.mapped(), 4 * MiB);
  EXPECT_EQ(allocator.stats().liveBytes, 64u);
  allocator.release(blocks[0], 64);
  allocator.trim();
  EXPECT_EQ(source.mapped(), 0u);
}

TEST(Allocator, CapIsKeptAndCachedMemoryMakesRoom) {
  TestSource source;
  BlockAllocator allocator(source);
  allocator.setCap(16 * MiB);
  std::vector<void*> blocks;
  while (void* block = allocator.allocate(MiB - 100)) blocks.push_back(block);
  EXPECT_GE(blocks.size(), 13u);
  EXPECT_LE(source.mapped(), 16 * MiB);
  EXPECT_EQ(allocator.stats().liveBytes, blocks.size() * (MiB - 100));
  for (void* block : blocks) allocator.release(block, MiB - 100);
  // What is cached for one size must not stand in the way of another.
  void* large = allocator.allocate(15 * MiB);
  ASSERT_NE(large, nullptr);
  EXPECT_EQ(allocator.allocate(2 * MiB), nullptr);
  EXPECT_LE(source.mapped(), 16 * MiB);
  allocator.setCap(0);
  void* more = allocator.allocate(20 * MiB);
  EXPECT_NE(more, nullptr);
  allocator.release(more, 20 * MiB);
  allocator.release(large, 15 * MiB);
  allocator.trim();
}

TEST(Allocator, ATightCapStillServesSmallBlocks) {
  TestSource source;
  BlockAllocator allocator(source);
  allocator.setCap(200 * KiB);
  std::vector<void*> blocks;
  while (void* block = allocator.allocate(100)) blocks.push_back(block);
  EXPECT_GT(blocks.size(), 800u);
  EXPECT_LE(source.mapped(), 200 * KiB);
  for (void* block : blocks) allocator.release(block, 100);
  allocator.trim();
}

TEST(Allocator, TheSourcesLimitAndFailuresReturnNull) {
  for (const bool refuses : {false, true}) {
    TestSource source(refuses ? 32 * MiB : SIZE_MAX, refuses ? 0 : 32 * MiB);
    BlockAllocator allocator(source);
    EXPECT_EQ(allocator.allocate(33 * MiB), nullptr);
    EXPECT_EQ(allocator.allocate(SIZE_MAX), nullptr);
    EXPECT_EQ(allocator.allocate(SIZE_MAX / 2), nullptr);
    void* block = allocator.allocate(30 * MiB);
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(allocator.allocate(8 * MiB), nullptr);
    EXPECT_EQ(allocator.stats().liveBytes, 30 * MiB);
    allocator.release(block, 30 * MiB);
    allocator.trim();
  }
}

TEST(Allocator, CachedMemoryFollowsUseDown) {
  TestSource source;
  BlockAllocator allocator(source);
  std::vector<void*> blocks(64);
  for (void*& block : blocks) block = allocator.allocate(8 * MiB);
  for (void* block : blocks) allocator.release(block, 8 * MiB);
  EXPECT_GE(source.mapped(), 512 * MiB);  // the next step will want it
  for (int i = 0; i < 1000000; i++) allocator.release(allocator.allocate(1000), 1000);
  EXPECT_LE(source.mapped(), 80 * MiB);
  allocator.trim();
}

#ifdef ADJOINT_ASAN
TEST(AllocatorDeathTest, AddressSanitizerSeesMisuse) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (size_t bytes : {size_t{100}, size_t{128}, 40 * KiB, 4 * MiB}) {
    EXPECT_DEATH(
        {
          auto* block = static_cast<volatile char*>(backend::allocate(bytes));
          backend::release(const_cast<char*>(block), bytes);
          block[0] = 1;
        },
        "use-after-poison");
    EXPECT_DEATH(
        {
          auto* block = static_cast<volatile char*>(backend::allocate(bytes));
          block[bytes] = 1;
        },
        "use-after-poison");
  }
}
#endif

// ---------------------------------------------------------------- contract.h
TEST(Memory, AllocatesAndCopies) {
  const int before = cpu::poolThreads();
  cpu::setPoolThreads(3);
  const size_t live = backend::allocatorStats().liveBytes;
  for (size_t bytes : {size_t{1}, size_t{63}, size_t{4097}, MiB, 3 * MiB + 5, 9 * MiB}) {
    std::vector<unsigned char> from(bytes), to(bytes);
    for (size_t i = 0; i < bytes; i++) from[i] = static_cast<unsigned char>(i * 31 + i / 256);
    void* block = backend::allocate(bytes);
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(backend::allocatorStats().liveBytes, live + bytes);
    backend::copyFromHost(block, from.data(), bytes);
    backend::copyToHost(to.data(), block, bytes);
    EXPECT_TRUE(from == to) << bytes;
    backend::release(block, bytes);
  }
  backend::copyFromHost(nullptr, nullptr, 0);
  EXPECT_EQ(backend::allocatorStats().liveBytes, live);
  cpu::setPoolThreads(before);
}

TEST(Memory, RefusesMoreThanTheMachineHas) {
  const size_t machine = cpu::os::memoryLimit();
  if (machine > 0) {
    EXPECT_EQ(backend::allocate(machine), nullptr);
  }
  EXPECT_EQ(backend::allocate(SIZE_MAX), nullptr);
  void* block = backend::allocate(100);  // and goes on
  EXPECT_NE(block, nullptr);
  backend::release(block, 100);
}

TEST(Memory, TrimAndCapReachTheAllocator) {
  void* block = backend::allocate(40 * MiB);
  backend::release(block, 40 * MiB);
  EXPECT_GE(backend::allocatorStats().cachedBytes, 40 * MiB);
  backend::trimCache();
  EXPECT_LT(backend::allocatorStats().reservedBytes, 40 * MiB);
  backend::setMemoryCap(backend::allocatorStats().reservedBytes + 8 * MiB);
  EXPECT_EQ(backend::allocate(64 * MiB), nullptr);
  backend::setMemoryCap(0);
  block = backend::allocate(64 * MiB);
  EXPECT_NE(block, nullptr);
  backend::release(block, 64 * MiB);
}

}  // namespace
}  // namespace adjoint
