// What kernels find wrong with their indices, raised by the next call that waits.
#include <string>

#include "cuda/index_guard.h"
#include "device_tensor.h"

namespace adjoint::test {
namespace {

class DeferredError : public Device {};
ADJOINT_IN_ALL_ORDERS(DeferredError);

// y[i] = the index that was admitted, or -1
__global__ void admitKernel(int64_t* y, const int64_t* index, int n, cuda::IndexGuard guard) {
  const auto i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = guard.admits(index[i], i) ? index[i] : -1;
}

DeviceTensor admit(const char* op, const Values& indices, int64_t size) {
  const auto n = static_cast<int64_t>(indices.size());
  const DeviceTensor index(DType::int64, {n}, indices);
  const DeviceTensor y = DeviceTensor::empty(DType::int64, {n});
  cuda::launch(static_cast<unsigned>(cuda::ceilDiv(n, 64)), 64, 0, cuda::stream(), admitKernel,
               y.view.as<int64_t>(), index.view.as<int64_t>(), static_cast<int>(n),
               cuda::indexGuard(op, "indices", size));
  return y;
}

// The message of what is thrown, or "".
template <class F>
std::string messageOf(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::index);
    return error.what();
  }
  return "";
}

TEST_P(DeferredError, isRaisedOnceByTheNextWait) {
  const DeviceTensor good = admit("gather", {0, 4, 2}, 5);
  EXPECT_EQ(messageOf([] { backend::synchronize(); }), "");
  const DeviceTensor y = admit("gather", {0, 4, 7, 2}, 5);
  EXPECT_EQ(messageOf([] { backend::synchronize(); }),
            "gather: expected indices in [0, 5), got 7 at 2");
  EXPECT_EQ(messageOf([] { backend::synchronize(); }), "");
  EXPECT_EQ(y.read(), (Values{0, 4, -1, 2}));
  EXPECT_EQ(good.read(), (Values{0, 4, 2}));
}

TEST_P(DeferredError, isRaisedByCopiesToTheHost) {
  const DeviceTensor y = admit("indexSelect", {-1}, 5);
  EXPECT_EQ(messageOf([&] { y.read(); }), "indexSelect: expected indices in [0, 5), got -1 at 0");
  EXPECT_EQ(y.read(), Values{-1});
}

TEST_P(DeferredError, theFirstKernelsComesFirst) {
  // The tensors' constructor waits, so both are made before the kernels.
  const DeviceTensor index(DType::int64, {3}, {1, -5, 9});
  const DeviceTensor y = DeviceTensor::empty(DType::int64, {3});
  for (const int64_t size : {2, 1}) {
    cuda::launch(1, 64, 0, cuda::stream(), admitKernel, y.view.as<int64_t>(),
                 index.view.as<int64_t>(), 3, cuda::indexGuard("gather", "indices", size));
  }
  EXPECT_EQ(messageOf([] { backend::synchronize(); }).find("gather: expected indices in [0, 2)"),
            0u);
  EXPECT_EQ(messageOf([] { backend::synchronize(); }), "") << "only the first is kept";
}

TEST_P(DeferredError, manyBadIndicesAreOneError) {
  const DeviceTensor y = admit("gather", Values(1000, 12), 12);
  EXPECT_EQ(messageOf([] { backend::synchronize(); }).find("gather: expected indices in [0, 12)"),
            0u);
  EXPECT_EQ(y.read(), Values(1000, -1));
}

TEST_P(DeferredError, isForgottenAtShutdown) {
  const DeviceTensor y = admit("gather", {3}, 3);
  backend::shutdown();
  EXPECT_EQ(messageOf([] { backend::synchronize(); }), "");
}

}  // namespace
}  // namespace adjoint::test
