// Graphs leave the bits that the same calls leave one by one, with values that change.
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class GraphOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(GraphOnDevice);

constexpr int64_t kRows = 37, kColumns = 53;

// A training step in small: noise, a permutation, a product whose operand must be copied, dropout,
// a constant of the host, two optimizers.
struct Step {
  DeviceTensor x{DType::float32, {kRows, kColumns}, randomValues(kRows* kColumns, -2, 2)};
  DeviceTensor weight{DType::float32,
                      {kColumns, kColumns},
                      randomValues(kColumns* kColumns, -1, 1, DType::float32, 2)};
  DeviceTensor wide{DType::float64, {kColumns}, randomValues(kColumns, -1, 1)};
  DeviceTensor m = zeros(DType::float32, kColumns* kColumns, {kColumns, kColumns});
  DeviceTensor v = zeros(DType::float32, kColumns* kColumns, {kColumns, kColumns});
  DeviceTensor momentum = zeros(DType::float64, kColumns, {kColumns});
  DeviceTensor noise = DeviceTensor::empty(DType::float32, {kRows, kColumns});
  DeviceTensor order = DeviceTensor::empty(DType::int64, {kRows});
  DeviceTensor none = DeviceTensor::empty(DType::float32, {0});
  DeviceTensor state = DeviceTensor::empty(DType::int64, {2});
  DeviceTensor h = DeviceTensor::empty(DType::float32, {kRows, kColumns});
  DeviceTensor dropped = DeviceTensor::empty(DType::float32, {kRows, kColumns});
  DeviceTensor dweight = DeviceTensor::empty(DType::float32, {kColumns, kColumns});
  DeviceTensor dwide = DeviceTensor::empty(DType::float64, {kColumns});

  static DeviceTensor zeros(DType dtype, int64_t n, const Sizes& sizes) {
    return {dtype, sizes, Values(static_cast<size_t>(n), 0)};
  }

  struct Changes {
    double lr;
    int64_t step;
    uint64_t offset;
  };
  // The calls that depend on what changes are `changing`, all others `fixed`.
  void run(const Changes& c, bool fixed) {
    const backend::RandomState random{7, c.offset};
    backend::random(RandomOp::normal, noise, 0, 1, random);
    backend::random(RandomOp::uniform, none, 0, 1, random);
    backend::randperm(order, {random.seed, random.offset + 1000});
    if (fixed) {
      // Neither rows nor columns of this operand lie side by side.
      DeviceTensor every = x;
      every.view.size[1] = (kColumns + 1) / 2;
      every.view.stride[1] = 2;
      DeviceTensor half = weight;
      half.view.size[0] = every.view.size[1];
      backend::matmul(h, every, half, nullptr);
      backend::binary(BinaryOp::add, h, h, noise, DType::float32);
    }
    backend::writeRandomState(state, {random.seed, random.offset + 2000});
    if (fixed) {
      backend::dropout(dropped, h, 0.3, state);
      std::vector<float> row(kColumns, 0.25f);
      backend::copyFromHost(dropped.view.data, row.data(), row.size() * sizeof(float));
      std::fill(row.begin(), row.end(), -1.f);
      backend::matmul(dweight, dropped.permuted({1, 0}), noise, nullptr);
      DeviceTensor sums = dwide;
      sums.view.ndim = 2;
      sums.view.size[0] = 1;
      sums.view.stride[0] = sums.view.size[1] = kColumns;
      sums.view.stride[1] = 1;
      backend::reduce(ReduceOp::sum, sums, dropped);
    }
    backend::adam({{weight, dweight, m, v, View()}},
                  {c.lr, 0.9, 0.99, 1e-8, 0.1, c.step, true, false});
    backend::sgd({{wide, dwide, momentum}}, {c.lr, 0.9, 0, 0.01, true, false, c.step == 1});
  }
  std::vector<Values> values() const {
    return {noise.read(), order.read(), dropped.read(),  weight.read(), m.read(),
            v.read(),     wide.read(),  momentum.read(), state.read()};
  }
};

Step::Changes changesOf(int i) {
  return {0.1 / (1 + i), i + 1, static_cast<uint64_t>(5000 * i + 3)};
}

TEST_P(GraphOnDevice, leavesTheBitsOfTheCalls) {
  Step eager, graphed;
  backend::Graph* graph = nullptr;
  for (int i = 0; i < 6; i++) {
    SCOPED_TRACE("step " + std::to_string(i));
    eager.run(changesOf(i), true);
    if (i == 0) {
      graph = backend::beginGraph();
      ASSERT_NE(graph, nullptr);
      graphed.run(changesOf(i), true);
      backend::endGraph(graph);
      // noise, the empty one, the permutation, the state, and each optimizer for two types
      EXPECT_EQ(backend::changingValues(graph), 8u);
    } else {
      backend::renewGraph(graph);
      graphed.run(changesOf(i), false);
      backend::endGraph(graph);
    }
    backend::launchGraph(graph);
    EXPECT_EQ(graphed.values(), eager.values());
  }
  // Released while the last launch is queued.
  eager.run(changesOf(6), true);
  backend::renewGraph(graph);
  graphed.run(changesOf(6), false);
  backend::endGraph(graph);
  backend::launchGraph(graph);
  backend::releaseGraph(graph);
  EXPECT_EQ(graphed.values(), eager.values());
}

// What is allocated between replays is not what the graph's calls use in passing.
TEST_P(GraphOnDevice, keepsItsTemporaries) {
  Step graphed;
  const size_t before = backend::allocatorStats().liveBytes;
  backend::Graph* graph = backend::beginGraph();
  graphed.run(changesOf(0), true);
  backend::endGraph(graph);
  EXPECT_GT(backend::allocatorStats().liveBytes, before);
  constexpr size_t kBytes = 8192;
  std::vector<void*> blocks;
  const std::vector<char> marks(kBytes, 'x');
  for (int i = 0; i < 40; i++) {
    blocks.push_back(backend::allocate(kBytes));
    backend::copyFromHost(blocks.back(), marks.data(), kBytes);
  }
  backend::launchGraph(graph);
  for (void* block : blocks) {
    std::vector<char> seen(kBytes);
    backend::copyToHost(seen.data(), block, kBytes);
    EXPECT_EQ(seen, marks);
    backend::release(block, kBytes);
  }
  backend::releaseGraph(graph);
  EXPECT_EQ(backend::allocatorStats().liveBytes, before);
}

TEST_P(GraphOnDevice, refusesWhatItCannotKeep) {
  const size_t before = backend::allocatorStats().liveBytes;
  {
    DeviceTensor x(DType::float32, {3}, {1, 2, 3});
    float values[3];
    const std::function<void()> waits[] = {
        [] { backend::synchronize(); },
        [&] { backend::copyToHost(values, x.view.data, sizeof values); }};
    for (const auto& wait : waits) {
      backend::Graph* graph = backend::beginGraph();
      backend::unary(UnaryOp::neg, x, x, DType::float32);
      EXPECT_THROW(wait(), Error);
      EXPECT_THROW(backend::endGraph(graph), Error);
      backend::releaseGraph(graph);
      graph = backend::beginGraph();
      EXPECT_THROW(wait(), Error);
      backend::releaseGraph(graph);
    }
    EXPECT_EQ(x.read(), (Values{1, 2, 3})) << "nothing of it has run";
    // Other values than those that the graph was made with.
    DeviceTensor y = DeviceTensor::empty(DType::float32, {5});
    DeviceTensor order = DeviceTensor::empty(DType::int64, {5});
    backend::Graph* graph = backend::beginGraph();
    backend::random(RandomOp::uniform, y, 0, 1, {1, 2});
    backend::endGraph(graph);
    backend::renewGraph(graph);
    EXPECT_THROW(backend::randperm(order, {1, 2}), Error);
    EXPECT_THROW(backend::fill(y, Scalar::of(1.0)), Error) << "only values are renewed";
    backend::random(RandomOp::uniform, y, 0, 1, {1, 3});
    EXPECT_THROW(backend::random(RandomOp::uniform, y, 0, 1, {1, 3}), Error);
    backend::endGraph(graph);
    backend::launchGraph(graph);
    const Values got = y.read();
    backend::random(RandomOp::uniform, y, 0, 1, {1, 3});
    EXPECT_EQ(got, y.read());
    backend::releaseGraph(graph);
  }
  EXPECT_EQ(backend::allocatorStats().liveBytes, before);
}

}  // namespace
}  // namespace adjoint::test
