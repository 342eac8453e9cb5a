// The random stream that contract.h lays down, element by element.
#include "device_tensor.h"
#include "shared/philox.h"

namespace adjoint::test {
namespace {

class RandomOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(RandomOnDevice);

constexpr backend::RandomState kState = {0x123456789abcdefull, 0xfffffffffull};

// Element i takes lane i % 4 of counter offset + i / 4; of float64 two lanes of offset + i / 2.
uint32_t lane(int64_t i) {
  return philox(kState.seed, kState.offset + static_cast<uint64_t>(i / 4)).lane[i % 4];
}
uint64_t lanes(int64_t i) {
  const Philox4 r = philox(kState.seed, kState.offset + static_cast<uint64_t>(i / 2));
  return joinLanes(r.lane[i % 2 * 2], r.lane[i % 2 * 2 + 1]);
}

TEST_P(RandomOnDevice, uniformAndBernoulli) {
  for (int64_t n : {0, 1, 2, 3, 5, 1027}) {
    Values want32, want64, want8, wantTrue;
    for (int64_t i = 0; i < n; i++) {
      want32.push_back(uniformOf(lane(i)));
      want64.push_back(uniformOf(lanes(i)));
      want8.push_back(convert<double>(convert<BFloat16>(uniformOf(lane(i)))));
      wantTrue.push_back(uniformOf(lane(i)) < 0.3f);
    }
    DeviceTensor y32 = DeviceTensor::empty(DType::float32, {n});
    DeviceTensor y64 = DeviceTensor::empty(DType::float64, {n});
    DeviceTensor y16 = DeviceTensor::empty(DType::bfloat16, {n});
    DeviceTensor flags = DeviceTensor::empty(DType::boolean, {n});
    backend::random(RandomOp::uniform, y32, 0, 1, kState);
    backend::random(RandomOp::uniform, y64, 0, 1, kState);
    backend::random(RandomOp::uniform, y16, 0, 1, kState);
    backend::random(RandomOp::bernoulli, flags, 0.3, 0, kState);
    EXPECT_EQ(y32.read(), want32);
    EXPECT_EQ(y64.read(), want64);
    EXPECT_EQ(y16.read(), want8);
    EXPECT_EQ(flags.read(), wantTrue);
  }
}

TEST_P(RandomOnDevice, normalAndIntegers) {
  const int64_t n = 1001;
  DeviceTensor z32 = DeviceTensor::empty(DType::float32, {n});
  DeviceTensor z64 = DeviceTensor::empty(DType::float64, {n});
  backend::random(RandomOp::normal, z32, 3, 2, kState);
  backend::random(RandomOp::normal, z64, 3, 2, kState);
  auto normal = [](double u0, double u1, bool second) {
    const double r = std::sqrt(-2 * std::log(1 - u0)), angle = 2 * M_PI * u1;
    return 3 + 2 * r * (second ? std::sin(angle) : std::cos(angle));
  };
  Values want32, want64, wantDie, wantHuge;
  for (int64_t i = 0; i < n; i++) {
    const int64_t even = i / 2 * 2;
    want32.push_back(normal(uniformOf(lane(even)), uniformOf(lane(even + 1)), i % 2));
    want64.push_back(normal(uniformOf(lanes(even)), uniformOf(lanes(even + 1)), i % 2));
    wantDie.push_back(-3 + static_cast<double>((uint64_t(lane(i)) * 6) >> 32));
    const auto high = static_cast<unsigned __int128>(lanes(i)) * (uint64_t(1) << 40) >> 64;
    wantHuge.push_back(static_cast<double>(static_cast<uint64_t>(high)));
  }
  expectClose(z32.read(), want32, 16 * epsilonOf(DType::float32));
  expectClose(z64.read(), want64, 16 * epsilonOf(DType::float64));
  DeviceTensor die(DType::int32, {n}, {2}, 1, 2 * n);
  DeviceTensor huge = DeviceTensor::empty(DType::int64, {n});
  backend::random(RandomOp::randint, die, -3, 3, kState);
  backend::random(RandomOp::randint, huge, 0, 0x1p40, kState);
  EXPECT_EQ(die.read(), wantDie);
  EXPECT_EQ(huge.read(), wantHuge);
}

TEST_P(RandomOnDevice, permutations) {
  for (int64_t n : {0, 1, 2, 500}) {
    std::vector<int64_t> want(static_cast<size_t>(n));
    shuffledRange(want.data(), n, kState.seed, kState.offset);
    DeviceTensor y(DType::int64, {n}, {3}, 0, static_cast<size_t>(3 * n));
    backend::randperm(y, kState);
    EXPECT_EQ(y.read(), Values(want.begin(), want.end()));
  }
}

// The same state draws the same mask, also over a view of other strides.
TEST_P(RandomOnDevice, dropout) {
  for (DType dtype : {DType::float32, DType::float64, DType::float16}) {
    const Values x = randomValues(35, 1, 4);
    DeviceTensor state = DeviceTensor::empty(DType::int64, {2});
    backend::writeRandomState(state, kState);
    DeviceTensor y(dtype, {5, 7}, {1, 5}, 0, 35);
    backend::dropout(y, DeviceTensor(dtype, {5, 7}, x), 0.25, state);
    Values want;
    for (int64_t i = 0; i < 35; i++) {
      const bool dropped =
          dtype == DType::float64 ? uniformOf(lanes(i)) < 0.25 : uniformOf(lane(i)) < 0.25f;
      want.push_back(dropped ? 0 : x[static_cast<size_t>(i)] / 0.75);
    }
    expectClose(y.read(), want, epsilonOf(dtype));
    EXPECT_GT(std::count(want.begin(), want.end(), 0), 3);
    backend::dropout(y, y, 1, state);
    EXPECT_EQ(y.read(), Values(35, 0));
  }
}

}  // namespace
}  // namespace adjoint::test
