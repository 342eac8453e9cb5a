// fill, copy and arange: moving and converting elements.
#include "contract.h"
#include "cpu/blocks.h"
#include "shared/convert.h"
#include "shared/functors.h"

namespace adjoint::cpu {
namespace {

// What a conversion passes through so that a value is rounded once.
Compute conversionType(DType from, DType to) {
  if (from == DType::float64 || to == DType::float64) return Compute::f64;
  return isFloating(from) || isFloating(to) ? Compute::f32 : Compute::i64;
}

void copyDense(const View& y, const View& x, int64_t n) {
  const int64_t size = static_cast<int64_t>(itemSize(y.dtype));
  const auto move = [&](int64_t begin, int64_t end) {
    std::memmove(y.as<char>() + begin * size, x.as<char>() + begin * size,
                 static_cast<size_t>((end - begin) * size));
  };
  if (n <= kGrain) return move(0, n);
  parallelFor(n, kGrain, move);
}

// The axis along which x is contiguous while y is along the last one; -1 where none is.
int transposedAxis(const Plan<2>& plan) {
  constexpr int64_t kWorthwhile = 8;
  const int last = plan.ndim - 1;
  if (last < 1 || plan.stride[0][last] != 1 || plan.stride[1][last] == 1) return -1;
  if (plan.size[last] < kWorthwhile) return -1;
  for (int i = 0; i < last; i++) {
    if (plan.stride[1][i] == 1 && plan.size[i] >= kWorthwhile) return i;
  }
  return -1;
}

// y [.., rows, .., columns] = x with its axis `axis` contiguous: one tiled transpose for each
// position of the other axes, cut into bands of rows.
void copyTransposed(const Plan<2>& plan, int axis, DType dtype) {
  constexpr int64_t kBand = 64;
  const int shift = log2Size(dtype), last = plan.ndim - 1;
  const auto transpose = convertTable().transpose[shift];
  const int64_t rows = plan.size[axis], columns = plan.size[last];
  Plan<2> outer;  // the axes but these two
  for (int i = 0; i < last; i++) {
    if (i == axis) continue;
    outer.size[outer.ndim] = plan.size[i];
    outer.numel *= plan.size[i];
    for (int k = 0; k < 2; k++) outer.stride[k][outer.ndim] = plan.stride[k][i];
    outer.ndim++;
  }
  const int64_t bands = (rows + kBand - 1) / kBand;
  const int64_t grain = std::max<int64_t>(1, kGrain / (std::min(rows, kBand) * columns));
  parallelFor(outer.numel * bands, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      const int64_t row = task % bands * kBand, position = task / bands;
      const int64_t offsetY = outer.offset(0, position) + row * plan.stride[0][axis];
      const int64_t offsetX = outer.offset(1, position) + row;
      transpose(static_cast<char*>(plan.data[0]) + (offsetY << shift),
                static_cast<const char*>(plan.data[1]) + (offsetX << shift),
                std::min(kBand, rows - row), columns, plan.stride[0][axis], plan.stride[1][last]);
    }
  });
}

void copySameType(const Plan<2>& plan, DType dtype) {
  parallelFor(plan.numel, kGrain, [&](int64_t begin, int64_t end) {
    Writer writer(plan, 0, dtype);
    Reader reader(plan, 1, dtype);
    const bool direct = writer.isDirect() && reader.isDirect();
    forEachBlock(plan, begin, end, direct, [&](const Cursor& at, int64_t n) {
      void* target = writer.target(at, n);
      reader.gather(at, n, target);
      writer.commit(at, n, target);
    });
  });
}

// Between dense views, where one of them holds what the conversion passes through: no block is
// stored between. False where that is not so.
bool convertDense(const Plan<2>& plan, DType to, DType from, Compute through) {
  if (!plan.isDense(0) || !plan.isDense(1)) return false;
  const bool isRead = to == storedAs(through);
  if (!isRead && from != storedAs(through)) return false;
  const auto convert = isRead
                           ? convertTable().load[static_cast<int>(from)][static_cast<int>(through)]
                           : convertTable().store[static_cast<int>(through)][static_cast<int>(to)];
  const int shiftTo = log2Size(to), shiftFrom = log2Size(from);
  parallelFor(plan.numel, kGrain, [&](int64_t begin, int64_t end) {
    convert(static_cast<char*>(plan.data[0]) + (begin << shiftTo),
            static_cast<const char*>(plan.data[1]) + (begin << shiftFrom), end - begin);
  });
  return true;
}

void copyConverting(const Plan<2>& plan, DType to, DType from) {
  const Compute through = conversionType(from, to);
  if (convertDense(plan, to, from, through)) return;
  parallelFor(plan.numel, kGrain, [&](int64_t begin, int64_t end) {
    Writer writer(plan, 0, to, through);
    Reader reader(plan, 1, from, through);
    forEachBlock(plan, begin, end, false, [&](const Cursor& at, int64_t n) {
      const void* values = reader.read(at, n);
      void* target = writer.target(at, n);
      if (to == storedAs(through))
        std::memcpy(target, values, static_cast<size_t>(n) * itemSize(to));
      writer.commit(at, n, to == storedAs(through) ? target : values);
    });
  });
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void copy(const View& y, const View& x) {
  const Plan<2> plan = makePlan<2>({&y, &x});
  if (plan.numel == 0) return;
  if (y.dtype != x.dtype) return copyConverting(plan, y.dtype, x.dtype);
  if (plan.isDense(0) && plan.isDense(1)) return copyDense(y, x, plan.numel);
  const int axis = transposedAxis(plan);
  if (axis >= 0) return copyTransposed(plan, axis, y.dtype);
  copySameType(plan, y.dtype);
}

void fill(const View& y, const Scalar& value) {
  alignas(8) char element[8];
  storeScalar(element, y.dtype, value);
  View constant;
  constant.data = element;
  constant.dtype = y.dtype;
  const Plan<2> plan = makePlan<2>({&y, &constant});
  if (!plan.isDense(0)) return copySameType(plan, y.dtype);
  const int shift = log2Size(y.dtype);
  const auto spread = convertTable().gather[shift];
  parallelFor(plan.numel, kGrain, [&](int64_t begin, int64_t end) {
    spread(y.as<char>() + (begin << shift), element, 0, end - begin);
  });
}

void arange(const View& y, const Scalar& start, const Scalar& step) {
  const Compute compute = isFloating(y.dtype) ? Compute::f64 : Compute::i64;
  const Plan<1> plan = makePlan<1>({&y}, AxisOrder::rowMajor);
  parallelFor(plan.numel, kGrain, [&](int64_t begin, int64_t end) {
    Writer writer(plan, 0, y.dtype, compute);
    forEachBlock(plan, begin, end, false, [&](const Cursor& at, int64_t n) {
      void* target = writer.target(at, n);
      visitCompute(compute, [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T first = scalarAs<T>(start), difference = scalarAs<T>(step);
        for (int64_t i = 0; i < n; i++) {
          static_cast<T*>(target)[i] =
              plus(first, times(static_cast<T>(at.linear() + i), difference));
        }
      });
      writer.commit(at, n, target);
    });
  });
}

}  // namespace adjoint::backend
