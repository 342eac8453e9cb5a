// fill, copy, unary, binary, where, arange against float64 (int64 for integers).
#include "cuda/elementwise.h"

#include "device_tensor.h"
#include "shared/functors.h"

namespace adjoint::test {
namespace {

class ElementwiseOnDevice : public Device {};
ADJOINT_IN_ALL_ORDERS(ElementwiseOnDevice);

constexpr int64_t kSizes[] = {0, 1, 3, 4, 5, 255, 257, 1030};

template <class Op>
struct Reference;
template <UnaryOp op>
struct Reference<Unary<op>> {
  static double of(double a, double, bool integer) {
    if constexpr (isDefined(op, Compute::i64)) {
      if (integer) return static_cast<double>(Unary<op>()(static_cast<int64_t>(a)));
    }
    if constexpr (isDefined(op, Compute::f64)) return Unary<op>()(a);
    return 0;
  }
};
template <BinaryOp op>
struct Reference<Binary<op>> {
  static double of(double a, double b, bool integer) {
    if constexpr (isDefined(op, Compute::i64)) {
      const auto ai = static_cast<int64_t>(a), bi = static_cast<int64_t>(b);
      if (integer) return static_cast<double>(Binary<op>()(ai, bi));
    }
    if constexpr (isDefined(op, Compute::f64)) return Binary<op>()(a, b);
    return 0;
  }
};
double referenceOf(UnaryOp op, double x, bool integer) {
  switch (op) {
#define ADJOINT_CASE(name) \
  case UnaryOp::name:      \
    return Reference<Unary<UnaryOp::name>>::of(x, 0, integer);
    ADJOINT_UNARY_OPS(ADJOINT_CASE)
#undef ADJOINT_CASE
    default:
      return 0;
  }
}
double referenceOf(BinaryOp op, double a, double b, bool integer) {
  switch (op) {
#define ADJOINT_CASE(name) \
  case BinaryOp::name:     \
    return Reference<Binary<BinaryOp::name>>::of(a, b, integer);
    ADJOINT_BINARY_OPS(ADJOINT_CASE)
#undef ADJOINT_CASE
    default:
      return 0;
  }
}

// What a dtype holds of a result: integers wrap around.
double stored(DType dtype, double x) {
  double y = x;
  if (dtype == DType::boolean) return x != 0;
  if (isFloating(dtype)) return x;
  visitDType(dtype, [&](auto tag) {
    y = convert<double>(convert<typename decltype(tag)::type>(static_cast<int64_t>(x)));
  });
  return y;
}

TEST_P(ElementwiseOnDevice, unaryOperations) {
  for (int o = 0; o < static_cast<int>(UnaryOp::count); o++) {
    const auto op = static_cast<UnaryOp>(o);
    for (DType dtype :
         {DType::float32, DType::float64, DType::bfloat16, DType::int32, DType::uint8}) {
      if (!isDefined(op, computeType(dtype))) continue;
      const int64_t n = kSizes[o % std::size(kSizes)];
      SCOPED_TRACE(std::string(opName(op)) + " " + dtypeName(dtype) + " " + std::to_string(n));
      const Values x = randomValues(n, -4, 4, dtype);
      DeviceTensor y = DeviceTensor::empty(dtype, {n});
      backend::unary(op, y, DeviceTensor(dtype, {n}, x), dtype);
      Values want;
      for (double v : x) want.push_back(stored(dtype, referenceOf(op, v, !isFloating(dtype))));
      expectClose(y.read(), want, 16 * epsilonOf(dtype));
    }
  }
}

TEST_P(ElementwiseOnDevice, binaryOperations) {
  for (int o = 0; o < static_cast<int>(BinaryOp::count); o++) {
    const auto op = static_cast<BinaryOp>(o);
    for (DType dtype :
         {DType::float32, DType::float64, DType::float16, DType::int64, DType::int8}) {
      if (!isDefined(op, computeType(dtype))) continue;
      const int64_t n = kSizes[(o + 3) % std::size(kSizes)];
      SCOPED_TRACE(std::string(opName(op)) + " " + dtypeName(dtype) + " " + std::to_string(n));
      const Values a = randomValues(n, -3, 5, dtype, 2), b = randomValues(n, 1, 4, dtype, 3);
      DeviceTensor y = DeviceTensor::empty(dtype, {n});
      backend::binary(op, y, DeviceTensor(dtype, {n}, a), DeviceTensor(dtype, {n}, b), dtype);
      Values want;
      for (size_t i = 0; i < a.size(); i++) {
        want.push_back(stored(dtype, referenceOf(op, a[i], b[i], !isFloating(dtype))));
      }
      expectClose(y.read(), want, 16 * epsilonOf(dtype));
    }
  }
}

TEST_P(ElementwiseOnDevice, unequalTypesAndNumbers) {
  const Values a = {-2, 0.5, 7, NAN, INFINITY}, b = {1, 2, 7, 3, 4};
  DeviceTensor y = DeviceTensor::empty(DType::boolean, {5});
  backend::binary(BinaryOp::lt, y, DeviceTensor(DType::float32, {5}, a),
                  DeviceTensor(DType::int16, {5}, b), DType::float32);
  EXPECT_EQ(y.read(), (Values{1, 1, 0, 0, 0}));
  DeviceTensor z = DeviceTensor::empty(DType::float32, {5});
  backend::binary(BinaryOp::sub, z, number(10), DeviceTensor(DType::int16, {5}, b), DType::float32);
  EXPECT_EQ(z.read(), (Values{9, 8, 3, 7, 6}));
  // 0.1 is rounded to the tensor's dtype before it is compared.
  DeviceTensor half(DType::bfloat16, {1}, {0.1});
  DeviceTensor same = DeviceTensor::empty(DType::boolean, {1});
  backend::binary(BinaryOp::eq, same, half, number(0.1), DType::bfloat16);
  EXPECT_EQ(same.read(), Values{1});
}

TEST_P(ElementwiseOnDevice, refusesWhatIsNotDefined) {
  DeviceTensor y = DeviceTensor::empty(DType::int32, {3});
  DeviceTensor x(DType::int32, {3}, {4, 0, 1});
  EXPECT_THROW(backend::unary(UnaryOp::exp, y, x, DType::int32), Error);
  EXPECT_THROW(backend::binary(BinaryOp::remainder, y, x, x, DType::int32), Error);
  EXPECT_THROW(backend::binary(BinaryOp::floorDivide, y, x, number(0), DType::int32), Error);
  backend::binary(BinaryOp::remainder, y, x, number(3), DType::int32);
  EXPECT_EQ(y.read(), (Values{1, 0, 1}));
}

// y [4, 3, 5] from a transposed, a broadcast and a shifted operand.
TEST_P(ElementwiseOnDevice, stridesAndBroadcasting) {
  const Values base = randomValues(60, -9, 9);
  for (DType dtype : {DType::float32, DType::int16}) {
    const Values values = randomValues(60, -9, 9, dtype), row = randomValues(5, -9, 9, dtype, 7);
    DeviceTensor transposed = DeviceTensor(dtype, {5, 3, 4}, values).permuted({2, 1, 0});
    DeviceTensor broadcast(dtype, {5}, row);
    DeviceTensor y(dtype, {4, 3, 5}, {40, 10, 2}, 3, 163);
    backend::binary(BinaryOp::add, y, transposed, broadcast, dtype);
    Values want;
    for (size_t i = 0; i < 4; i++) {
      for (size_t j = 0; j < 3; j++) {
        for (size_t k = 0; k < 5; k++) want.push_back(values[k * 12 + j * 4 + i] + row[k]);
      }
    }
    EXPECT_EQ(y.read(), want);
    // In place, and through a misaligned view.
    View odd = broadcast.view;
    odd.data = broadcast.view.as<char>() + itemSize(dtype);
    odd.size[0] = 4;
    backend::unary(UnaryOp::neg, odd, odd, dtype);
    EXPECT_EQ(broadcast.read(), (Values{row[0], -row[1], -row[2], -row[3], -row[4]}));
  }
  DeviceTensor x(DType::float32, {60}, base);
  View reversed = x.view;
  reversed.data = x.view.as<float>() + 59;
  reversed.stride[0] = -1;
  DeviceTensor y = DeviceTensor::empty(DType::float32, {60});
  backend::copy(y, reversed);
  EXPECT_EQ(y.read(), Values(base.rbegin(), base.rend()));
}

TEST_P(ElementwiseOnDevice, copyConvertsBetweenAllTypes) {
  std::vector<DType> all(std::begin(kFloats), std::end(kFloats));
  all.insert(all.end(), std::begin(kIntegers), std::end(kIntegers));
  const Values values = {0, 1, 2.5, 100, 3.75, 17, 126.5};
  for (DType from : all) {
    for (DType to : all) {
      SCOPED_TRACE(std::string(dtypeName(from)) + " to " + dtypeName(to));
      DeviceTensor x(from, {7}, values), y = DeviceTensor::empty(to, {2, 7});
      backend::copy(y, x);
      Values want;
      for (int repeat = 0; repeat < 2; repeat++) {
        for (double v : x.read()) want.push_back(isFloating(to) ? v : stored(to, v));
      }
      expectClose(y.read(), want, epsilonOf(to));
    }
  }
}

TEST_P(ElementwiseOnDevice, fillWhereArange) {
  DeviceTensor filled(DType::uint8, {3, 4}, {8, 2}, 1, 32);
  backend::fill(filled, Scalar::of(int64_t(259)));
  EXPECT_EQ(filled.read(), Values(12, 3));
  DeviceTensor flags = DeviceTensor::empty(DType::boolean, {9});
  backend::fill(flags, Scalar::of(0.5));
  EXPECT_EQ(flags.read(), Values(9, 1));
  DeviceTensor big = DeviceTensor::empty(DType::int64, {1});
  backend::fill(big, Scalar::of(int64_t(1) << 53));
  EXPECT_EQ(big.read(), Values(1, 0x1p53));

  DeviceTensor condition(DType::boolean, {2, 1}, {1, 0});
  DeviceTensor a(DType::float32, {3}, {1, NAN, 3});
  DeviceTensor y = DeviceTensor::empty(DType::float32, {2, 3});
  backend::where(y, condition, a, number(-1));
  expectClose(y.read(), {1, NAN, 3, -1, -1, -1}, 0);

  DeviceTensor range = DeviceTensor::empty(DType::float32, {1001});
  backend::arange(range, Scalar::of(0.5), Scalar::of(0.25));
  DeviceTensor down(DType::int32, {300}, {3}, 2, 900);
  backend::arange(down, Scalar::of(int64_t(5)), Scalar::of(int64_t(-2)));
  Values wantRange, wantDown;
  for (int i = 0; i < 1001; i++) wantRange.push_back(0.5 + i * 0.25);
  for (int i = 0; i < 300; i++) wantDown.push_back(5 - 2 * i);
  EXPECT_EQ(range.read(), wantRange);
  EXPECT_EQ(down.read(), wantDown);
}

TEST(Walk, dividerDividesAsDivisionDoes) {
  for (uint32_t d : {1u, 2u, 3u, 7u, 64u, 641u, 65537u, 0x40000001u, 0x7fffffffu}) {
    const cuda::Divider divider(d);
    for (uint32_t n : {0u, 1u, d - 1, d, d + 1, 12345u, 0x7ffffffeu, 0x7fffffffu}) {
      if (n > 0x7fffffffu) continue;
      EXPECT_EQ(divider.quotient(n), n / d) << n << " / " << d;
    }
  }
}

TEST(Walk, piecesCoverThePlan) {
  std::vector<int> visited(7 * 300, 0);
  View y;
  y.data = visited.data();
  y.dtype = DType::int32;
  y.ndim = 2;
  y.size[0] = 300;
  y.size[1] = 7;
  y.stride[0] = 1;
  y.stride[1] = 300;
  const View* const views[] = {&y};
  cuda::forEachPiece(
      makePlan<1>(views), {sizeof(int)},
      [&](const Plan<1>& piece) {
        EXPECT_LE(piece.numel, 100);
        for (int64_t i = 0; i < piece.numel; i++) {
          static_cast<int*>(piece.data[0])[piece.offset(0, i)]++;
        }
      },
      100);
  EXPECT_EQ(visited, std::vector<int>(7 * 300, 1));
}

}  // namespace
}  // namespace adjoint::test
