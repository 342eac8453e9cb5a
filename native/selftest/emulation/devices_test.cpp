// Two devices in one process: what each has of its own, and copies from one to the other.
#include <thread>

#include "cuda/per_device.h"
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class Devices : public ::testing::Test {
 protected:
  void SetUp() override {
#ifndef ADJOINT_REAL_DEVICE
    emulation::setDeviceCount(2);
#endif
    if (backend::deviceCount() < 2) GTEST_SKIP() << "there is one device";
  }
  void TearDown() override {
    backend::useDevice(0);
#ifndef ADJOINT_REAL_DEVICE
    emulation::setDeviceCount(1);
#endif
  }
};

// A tensor of the allocator's memory, which may be freed while it is in use.
struct Block {
  Block(int64_t n, double value) : bytes(static_cast<size_t>(n) * sizeof(float)) {
    view.data = backend::allocate(bytes);
    view.ndim = 1;
    view.size[0] = n;
    view.stride[0] = 1;
    backend::fill(view, Scalar::of(value));
  }
  void release() { backend::release(view.data, bytes); }
  std::vector<float> read() const {
    std::vector<float> values(bytes / sizeof(float));
    backend::copyToHost(values.data(), view.data, bytes);
    return values;
  }
  const size_t bytes;
  View view;
};

template <class F>
std::string messageOf(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_F(Devices, areNamedByNumbers) {
  EXPECT_EQ(cuda::currentDevice(), 0);
  for (const int device : {1, 0, 1, 1, 0}) {
    backend::useDevice(device);
    EXPECT_EQ(cuda::currentDevice(), device);
  }
  for (const int device : {-1, backend::deviceCount(), 1000}) {
    EXPECT_NE(messageOf([&] { backend::useDevice(device); }).find("expected a device below"),
              std::string::npos);
    EXPECT_EQ(cuda::currentDevice(), 0);
  }
}

TEST_F(Devices, eachComputes) {
  const Sizes shape = {7, 9};
  const Values values = randomValues(63, -2, 2);
  Values results[2];
  for (const int device : {0, 1, 0, 1}) {
    backend::useDevice(device);
    const DeviceTensor x(DType::float32, shape, values);
    const DeviceTensor y = DeviceTensor::empty(DType::float32, {7, 7});
    const DeviceTensor sum = DeviceTensor::empty(DType::float32, {1, 1});
    backend::unary(UnaryOp::tanh, x, x, DType::float32);
    backend::matmul(y, x, x.permuted({1, 0}), nullptr);
    backend::reduce(ReduceOp::sum, sum, y);
    results[device] = sum.read();
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST_F(Devices, eachCountsItsMemory) {
  backend::AllocatorStats before[2];
  for (const int device : {0, 1}) {
    backend::useDevice(device);
    backend::trimCache();
    before[device] = backend::allocatorStats();
  }
  backend::setMemoryCap(before[1].reservedBytes + (size_t(4) << 20));
  EXPECT_EQ(backend::allocate(size_t(8) << 20), nullptr);
  backend::useDevice(0);
  Block block(2 << 20, 1);
  EXPECT_EQ(backend::allocatorStats().liveBytes, before[0].liveBytes + block.bytes);
  backend::useDevice(1);
  EXPECT_EQ(backend::allocatorStats().liveBytes, before[1].liveBytes);
  EXPECT_EQ(backend::allocatorStats().reservedBytes, before[1].reservedBytes);
  backend::setMemoryCap(0);
  backend::trimCache();
  backend::useDevice(0);
  block.release();
  backend::trimCache();
  EXPECT_EQ(backend::allocatorStats().reservedBytes, before[0].reservedBytes);
}

// A copy comes after what was queued on both devices, and before what is queued later.
TEST_F(Devices, copiesAreOrderedWithTheWorkOfBoth) {
  const int64_t n = 100'000;
  for (const int target : {1, 0, 1}) {
    const int source = 1 - target;
    backend::useDevice(source);
    Block x(n, 2);
    backend::unary(UnaryOp::square, x.view, x.view, DType::float32);
    backend::useDevice(target);
    Block y(n, 9);
    backend::copyFromDevice(y.view.data, x.view.data, source, x.bytes);
    EXPECT_EQ(cuda::currentDevice(), target);
    backend::unary(UnaryOp::neg, y.view, y.view, DType::float32);
    backend::useDevice(source);
    backend::fill(x.view, Scalar::of(7.0));
#ifndef ADJOINT_REAL_DEVICE
    EXPECT_GE(emulation::pendingWork(), 6u) << "nothing has been waited for";
#endif
    EXPECT_EQ(x.read(), std::vector<float>(n, 7));
    x.release();
    backend::useDevice(target);
    EXPECT_EQ(y.read(), std::vector<float>(n, -4));
    y.release();
  }
}

// The source's memory may be freed as soon as the copy is queued.
TEST_F(Devices, copiesOutliveTheirSource) {
  const int64_t n = 5000;
  Block x(n, 3);
  backend::useDevice(1);
  Block y(n, 0);
  backend::copyFromDevice(y.view.data, x.view.data, 0, x.bytes);
  backend::useDevice(0);
  x.release();
  Block other(n, 5);
  EXPECT_EQ(other.view.data, x.view.data);
  EXPECT_EQ(other.read(), std::vector<float>(n, 5));
  other.release();
  backend::useDevice(1);
  EXPECT_EQ(y.read(), std::vector<float>(n, 3));
  backend::copyFromDevice(y.view.data, x.view.data, 0, 0);
  y.release();
}

TEST_F(Devices, eachFindsItsBadIndices) {
  backend::synchronize();
  backend::useDevice(1);
  const DeviceTensor x(DType::float32, {3}, {1, 2, 3}), index(DType::int64, {2}, {1, 8});
  const DeviceTensor y = DeviceTensor::empty(DType::float32, {2});
  backend::indexSelect(y, x, index, 0);
  backend::useDevice(0);
  EXPECT_EQ(messageOf([] { backend::synchronize(); }), "");
  backend::useDevice(1);
  EXPECT_NE(messageOf([] { backend::synchronize(); }).find("in [0, 3), got 8"), std::string::npos);
  EXPECT_EQ(messageOf([] { backend::synchronize(); }), "");
}

TEST_F(Devices, eachMakesGraphs) {
  backend::useDevice(1);
  Block y(1000, 1);
  backend::Graph* graph = backend::beginGraph();
  const RandomOp op = RandomOp::uniform;
  backend::random(op, y.view, 0, 1, {1, 0});
  for (int i = 0; i < 3; i++) backend::unary(UnaryOp::square, y.view, y.view, DType::float32);
  backend::endGraph(graph);
  for (uint64_t round = 1; round < 3; round++) {
    backend::renewGraph(graph);
    backend::random(op, y.view, 0, 1, {1, round});
    backend::endGraph(graph);
    backend::launchGraph(graph);
    // Other devices go on between two replays.
    backend::useDevice(0);
    Block x(1000, 1);
    backend::random(op, x.view, 0, 1, {1, round});
    for (int i = 0; i < 3; i++) backend::unary(UnaryOp::square, x.view, x.view, DType::float32);
    const std::vector<float> wanted = x.read();
    x.release();
    backend::useDevice(1);
    EXPECT_EQ(y.read(), wanted);
  }
  backend::releaseGraph(graph);
  y.release();
}

TEST_F(Devices, eachCopiesToAHostThatWaitsElsewhere) {
  backend::useDevice(1);
  Block x(3000, 4);
  backend::HostCopy* copy = backend::beginCopyToHost(x.view.data, x.bytes);
  backend::fill(x.view, Scalar::of(1.0));
  backend::useDevice(0);
  std::thread([&] { backend::waitForCopy(*copy); }).join();
  std::vector<float> values(3000);
  backend::endCopy(copy, values.data(), x.bytes);
  EXPECT_EQ(values, std::vector<float>(3000, 4));
  backend::useDevice(1);
  x.release();
}

TEST_F(Devices, eachTellsTheTime) {
  for (const int device : {1, 0, 1}) {
    backend::useDevice(device);
    std::vector<backend::Moment> moments = {backend::mark()};
    Block x(100'000, 4);
    moments.push_back(backend::mark());
    const std::vector<double> times = backend::elapsed(moments);
    ASSERT_EQ(times.size(), 2u);
    EXPECT_GT(times[1], 0);
    x.release();
  }
}

TEST_F(Devices, eachCompilesKernels) {
  const std::string source = "__global__ void twice(float* x) { x[threadIdx.x] *= 2; }";
  for (const int device : {1, 0}) {
    backend::useDevice(device);
    const int kernel = backend::compileCudaKernel(source, "twice", {});
    Block x(32, 3);
    backend::CudaKernelArgument argument{sizeof x.view.data, {}};
    std::memcpy(argument.value, &x.view.data, sizeof x.view.data);
    backend::launchCudaKernel(kernel, {{1, 1, 1}, {32, 1, 1}, 0}, {argument});
    EXPECT_EQ(x.read(), std::vector<float>(32, 6));
    x.release();
  }
}

TEST_F(Devices, threadsAreEachAtTheirOwn) {
  const auto work = [](int device) {
    backend::useDevice(device);
    for (int round = 0; round < 20; round++) {
      Block x(2000, round);
      for (int i = 0; i < 3; i++) backend::unary(UnaryOp::neg, x.view, x.view, DType::float32);
      EXPECT_EQ(x.read(), std::vector<float>(2000, static_cast<float>(-round)));
      x.release();
    }
  };
  std::thread first(work, 1), second(work, 0), third(work, 1);
  first.join();
  second.join();
  third.join();
  EXPECT_EQ(cuda::currentDevice(), 0);
}

}  // namespace
}  // namespace adjoint::test
