// Device memory, copies and the queue as the contract promises them.
#include <thread>

#include "device_tensor.h"

namespace adjoint::test {
namespace {

TEST(DeviceMemory, workIsQueuedUntilSomebodyWaits) {
  backend::synchronize();
  std::vector<float> source(1000, 2), target(1000, 0);
  const size_t bytes = source.size() * sizeof(float);
  void* block = backend::allocate(bytes);
  backend::copyFromHost(block, source.data(), bytes);
  std::fill(source.begin(), source.end(), -1.f);  // has been read
  View x;
  x.data = block;
  x.ndim = 1;
  x.size[0] = 1000;
  x.stride[0] = 1;
  backend::unary(UnaryOp::square, x, x, DType::float32);
  EXPECT_GE(emulation::pendingWork(), 2u);
  backend::copyToHost(target.data(), block, bytes);
  EXPECT_EQ(emulation::pendingWork(), 0u);
  EXPECT_EQ(target, std::vector<float>(1000, 4));
  backend::release(block, bytes);
}

TEST(DeviceMemory, copiesLargerThanTheStagingBuffers) {
  std::vector<int64_t> source(1 << 20), target(source.size());
  for (size_t i = 0; i < source.size(); i++) source[i] = static_cast<int64_t>(i * i);
  const size_t bytes = source.size() * sizeof(int64_t);
  void* block = backend::allocate(bytes);
  backend::copyFromHost(block, source.data(), bytes);
  backend::copyToHost(target.data(), block, bytes);
  EXPECT_EQ(source, target);
  backend::release(block, bytes);
}

// What is queued after the copy began does not change it, though it runs before anybody waits.
TEST(DeviceMemory, copiesThatAnotherThreadWaitsFor) {
  for (const size_t n : {size_t(1), size_t(3000), size_t(1) << 20}) {
    const size_t bytes = n * sizeof(float);
    View x;
    x.data = backend::allocate(bytes);
    x.ndim = 1;
    x.size[0] = static_cast<int64_t>(n);
    x.stride[0] = 1;
    backend::fill(x, Scalar::of(3.0));
    backend::HostCopy* copy = backend::beginCopyToHost(x.data, bytes);
    backend::HostCopy* dropped = backend::beginCopyToHost(x.data, bytes);
    backend::fill(x, Scalar::of(7.0));
    backend::release(x.data, bytes);
    std::thread([&] {
      backend::waitForCopy(*copy);
      backend::waitForCopy(*dropped);
    }).join();
    std::vector<float> target(n, 0);
    backend::endCopy(copy, target.data(), bytes);
    backend::endCopy(dropped, nullptr, 0);
    EXPECT_EQ(target, std::vector<float>(n, 3));
  }
}

// The host goes on queueing work while another thread waits and, here, runs it.
TEST(DeviceMemory, workIsQueuedWhileACopyIsWaitedFor) {
  const size_t n = 10'000, bytes = n * sizeof(float);
  View x;
  x.data = backend::allocate(bytes);
  x.ndim = 1;
  x.size[0] = n;
  x.stride[0] = 1;
  Operand one;
  one.isScalar = true;
  one.scalar = Scalar::of(1.0);
  Operand operand;
  operand.view = x;
  backend::fill(x, Scalar::of(0.0));
  for (int round = 1; round <= 5; round++) {
    for (int i = 0; i < 20; i++) backend::binary(BinaryOp::add, x, operand, one, DType::float32);
    backend::HostCopy* copy = backend::beginCopyToHost(x.data, bytes);
    std::thread waiting([&] { backend::waitForCopy(*copy); });
    for (int i = 0; i < 20; i++) backend::binary(BinaryOp::add, x, operand, one, DType::float32);
    waiting.join();
    std::vector<float> target(n);
    backend::endCopy(copy, target.data(), bytes);
    EXPECT_EQ(target, std::vector<float>(n, static_cast<float>(40 * round - 20)));
  }
  backend::release(x.data, bytes);
}

// A block that is freed while queued work uses it may be handed out again at once: what uses it
// then comes later in the same queue.
TEST(DeviceMemory, freedBlocksAreReusedInStreamOrder) {
  const size_t bytes = 4096 * sizeof(float);
  View x;
  x.ndim = 1;
  x.size[0] = 4096;
  x.stride[0] = 1;
  View first = x, second = x, kept = x;
  kept.data = backend::allocate(bytes);
  first.data = backend::allocate(bytes);
  backend::fill(first, Scalar::of(3.0));
  backend::copy(kept, first);
  backend::release(first.data, bytes);
  second.data = backend::allocate(bytes);
  EXPECT_EQ(second.data, first.data);
  backend::fill(second, Scalar::of(7.0));
  std::vector<float> values(4096);
  backend::copyToHost(values.data(), kept.data, bytes);
  EXPECT_EQ(values, std::vector<float>(4096, 3));
  backend::release(second.data, bytes);
  backend::release(kept.data, bytes);
}

TEST(DeviceMemory, capsTrimsAndCounts) {
  backend::synchronize();
  backend::trimCache();
  const backend::AllocatorStats before = backend::allocatorStats();
  const size_t bytes = size_t(8) << 20;
  void* block = backend::allocate(bytes);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % 64, 0u);
  EXPECT_EQ(backend::allocatorStats().liveBytes, before.liveBytes + bytes);
  View x;
  x.data = block;
  x.ndim = 1;
  x.size[0] = 1000;
  x.stride[0] = 1;
  backend::fill(x, Scalar::of(1.0));
  backend::release(block, bytes);
  EXPECT_EQ(backend::allocatorStats().liveBytes, before.liveBytes);
  backend::trimCache();  // waits for the fill before the segment goes
  EXPECT_EQ(backend::allocatorStats().reservedBytes, before.reservedBytes);
  backend::setMemoryCap(before.reservedBytes + (size_t(4) << 20));
  EXPECT_EQ(backend::allocate(bytes), nullptr);
  backend::setMemoryCap(0);
  EXPECT_EQ(backend::allocate(size_t(1) << 40), nullptr) << "more than the device has";
}

// A replay: what changes is uploaded by one copy and its event, the rest is one launch.
TEST(DeviceMemory, aGraphIsQueuedAtOnce) {
  DeviceTensor y = DeviceTensor::empty(DType::float32, {1000});
  auto draw = [&](uint64_t offset) { backend::random(RandomOp::uniform, y, 0, 1, {1, offset}); };
  backend::Graph* graph = backend::beginGraph();
  for (uint64_t i = 0; i < 10; i++) draw(i);
  for (int i = 0; i < 10; i++) backend::unary(UnaryOp::square, y, y, DType::float32);
  backend::endGraph(graph);
  backend::synchronize();
  EXPECT_EQ(emulation::pendingWork(), 0u);
  backend::launchGraph(graph);
  EXPECT_EQ(emulation::pendingWork(), 3u);
  backend::renewGraph(graph);
  for (uint64_t i = 0; i < 10; i++) draw(i);
  backend::endGraph(graph);
  backend::launchGraph(graph);
  EXPECT_EQ(emulation::pendingWork(), 6u);
  backend::synchronize();
  backend::releaseGraph(graph);
}

TEST(DeviceMemory, tellsTheTimeBetweenMoments) {
  EXPECT_TRUE(backend::elapsed({}).empty());
  std::vector<float> values(1 << 20);
  const size_t bytes = values.size() * sizeof(float);
  View x;
  x.data = backend::allocate(bytes);
  x.ndim = 1;
  x.size[0] = 1 << 20;
  x.stride[0] = 1;
  for (int round = 0; round < 2; round++) {
    std::vector<backend::Moment> moments;
    moments.push_back(backend::mark());
    for (int i = 0; i < 4; i++) backend::fill(x, Scalar::of(1.0));
    moments.push_back(backend::mark());
    moments.push_back(backend::mark());
    const std::vector<double> times = backend::elapsed(moments);
    ASSERT_EQ(times.size(), 3u);
    EXPECT_EQ(times[0], 0);
    EXPECT_GT(times[1], 0);
    EXPECT_GE(times[2], times[1]);
    EXPECT_LT(times[2] - times[1], times[1]) << "nothing was queued between them";
  }
  backend::release(x.data, bytes);
}

TEST(DeviceMemory, namesItself) {
  EXPECT_STREQ(backend::name(), "cuda");
  backend::startup();
  bool found = false;
  for (const auto& [key, value] : backend::deviceInfo()) found = found || key == "device";
  EXPECT_TRUE(found);
  backend::setThreadCount(3);
  EXPECT_EQ(backend::threadCount(), 1);
  backend::shutdown();
}

// A block of pinned memory that is released while a copy of it is queued is not used again before
// the copy has read it; one that is to be changed is waited for.
TEST(DeviceMemory, copiesThatReadPinnedMemoryLater) {
  backend::synchronize();
  const PinnedMemory& memory = *backend::pinnedMemory();
  const size_t n = 3000, bytes = n * sizeof(float);
  void* first = backend::allocate(bytes);
  void* second = backend::allocate(bytes);
  auto* a = static_cast<float*>(memory.allocate(bytes));
  std::fill_n(a, n, 1.f);
  backend::copyFromPinned(first, a, bytes);
  memory.release(a);
  auto* b = static_cast<float*>(memory.allocate(bytes));
#ifndef ADJOINT_REAL_DEVICE
  EXPECT_NE(a, b);  // nothing has run yet
#endif
  std::fill_n(b, n, 2.f);
  backend::copyFromPinned(second, b + 1, bytes - sizeof(float));
  memory.wait(b);
  std::fill_n(b, n, 3.f);
  std::vector<float> target(n, 0);
  backend::copyToHost(target.data(), first, bytes);
  EXPECT_EQ(target, std::vector<float>(n, 1));
  backend::copyToHost(target.data(), second, bytes - sizeof(float));
  EXPECT_EQ(target[0], 2);
  EXPECT_EQ(target[n - 2], 2);
  memory.release(b);
  void* again = memory.allocate(bytes);
  EXPECT_TRUE(again == a || again == b);
  memory.release(again);
  EXPECT_THROW(backend::copyFromPinned(first, target.data(), bytes), Error);
  EXPECT_THROW(backend::copyFromPinned(first, a, size_t(1) << 20), Error);
  backend::release(first, bytes);
  backend::release(second, bytes);
}

}  // namespace
}  // namespace adjoint::test
