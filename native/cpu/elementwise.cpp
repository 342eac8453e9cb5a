// Elementwise kernels: fast ways for contiguous operands of one type, blocks for everything else.
#include "cpu/kernels/elementwise.h"

#include "contract.h"
#include "cpu/blocks.h"
#include "shared/convert.h"
#include "shared/functors.h"

namespace adjoint::cpu {
namespace {

// Row-major and of one shape.
bool sameContiguous(const View& a, const View& b) {
  if (a.ndim != b.ndim) return false;
  int64_t expected = 1;
  for (int i = a.ndim - 1; i >= 0; i--) {
    if (a.size[i] != b.size[i]) return false;
    if (a.size[i] == 1) continue;
    if (a.stride[i] != expected || b.stride[i] != expected) return false;
    expected *= a.size[i];
  }
  return true;
}

// The loop over elements as they are stored, in the type of computation or as bfloat16; nullptr for
// none.
template <class Loop>
Loop storedLoop(DType stored, Compute compute, Loop computed, Loop bfloat16) {
  if (stored == storedAs(compute)) return computed;
  return stored == DType::bfloat16 && compute == Compute::f32 ? bfloat16 : nullptr;
}

bool isComparison(BinaryOp op) {
  return op >= BinaryOp::eq && op <= BinaryOp::ge;
}

// The loop of an operation, or an error that names it.
template <class Loop, class Op>
Loop checkedLoop(Loop loop, Op op, DType common) {
  if (!loop) {
    fail(ErrorKind::dtype, "%s: expected %s dtype, got %s", opName(op),
         isFloating(common) ? "an integer or bool" : "a floating-point", dtypeName(common));
  }
  return loop;
}

// A number as a 0-d view of the type of computation.
struct Immediate {
  alignas(8) char bytes[8];
  View view(const Scalar& s, Compute compute) {
    View v;
    v.data = bytes;
    v.dtype = storedAs(compute);
    storeScalar(bytes, v.dtype, s);
    return v;
  }
};

// Comparisons see a number as the tensor's dtype holds it, as PyTorch's do.
Scalar roundedTo(DType dtype, const Scalar& s) {
  if (dtype == DType::bfloat16) return Scalar::of(double(convert<float>(scalarAs<BFloat16>(s))));
  if (dtype == DType::float16) return Scalar::of(double(convert<float>(scalarAs<Float16>(s))));
  return s;
}

bool dividesIntegers(BinaryOp op, Compute compute) {
  return compute == Compute::i64 &&
         (op == BinaryOp::floorDivide || op == BinaryOp::remainder || op == BinaryOp::fmod);
}

void checkDivisor(BinaryOp op, const View& b, Compute compute) {
  const Plan<1> plan = makePlan<1>({&b});
  Reader reader(plan, 0, b.dtype, compute);
  forEachBlock(plan, 0, plan.numel, false, [&](const Cursor& at, int64_t n) {
    const auto* values = static_cast<const int64_t*>(reader.read(at, n));
    if (std::find(values, values + n, 0) != values + n) {
      fail(ErrorKind::argument, "%s: division by zero in %s", opName(op), dtypeName(b.dtype));
    }
  });
}

// PyTorch's shortcuts for powers that have a cheaper form.
UnaryOp shortcutOfPow(BinaryOp op, const Operand& b, Compute compute) {
  if (op != BinaryOp::pow || !b.isScalar) return UnaryOp::count;
  if (b.scalar.f == 2) return UnaryOp::square;
  if (compute == Compute::i64) return UnaryOp::count;
  if (b.scalar.f == 0.5) return UnaryOp::sqrt;
  if (b.scalar.f == -0.5) return UnaryOp::rsqrt;
  if (b.scalar.f == -1) return UnaryOp::reciprocal;
  return UnaryOp::count;
}

// A result this large is out of the caches before anybody reads it. An ordinary store would fetch
// each of its lines first; so blocks of it are computed in the L1 cache and written past the
// others.
// A computation that takes longer than its stores gains nothing by that.
constexpr int64_t kStreamedBytes = int64_t{32} << 20;
constexpr int64_t kStageBytes = 4096;

// Calls compute(target, first byte, elements) for the elements of y, in chunks.
template <class F>
void forEachChunk(const View& y, int64_t grain, const F& compute) {
  const int64_t n = y.numel(), size = static_cast<int64_t>(itemSize(y.dtype));
  char* const to = y.as<char>();
  if (n <= grain) return compute(to, 0, n);
  const bool streams = grain == kGrain && n * size >= kStreamedBytes;
  parallelFor(n, grain, [&](int64_t begin, int64_t end) {
    if (!streams) return compute(to + begin * size, begin * size, end - begin);
    alignas(64) char stage[kStageBytes];
    const int64_t most = kStageBytes / size;
    for (int64_t i = begin; i < end; i += most) {
      const int64_t count = std::min(most, end - i);
      compute(stage, i * size, count);
      elementwiseTable().stream(to + i * size, stage, count * size);
    }
  });
}

void unaryContiguous(ElementwiseTable::UnaryLoop loop, const View& y, const View& x,
                     int64_t grain) {
  forEachChunk(y, grain, [&](char* to, int64_t at, int64_t n) { loop(to, x.as<char>() + at, n); });
}

void binaryContiguous(ElementwiseTable::BinaryLoop loop, const View& y, const View& a,
                      const View& b, int64_t grain) {
  forEachChunk(y, grain, [&](char* to, int64_t at, int64_t n) {
    loop(to, a.as<char>() + at, b.as<char>() + at, n);
  });
}

// y and x are of one shape, contiguous and of the type of computation; the number stands on the
// left or on the right of x.
void binaryWithNumber(ElementwiseTable::BinaryLoop loop, const View& y, const View& x,
                      const Scalar& scalar, bool isLeft, Compute compute, int64_t grain) {
  Immediate immediate;
  immediate.view(scalar, compute);
  const int shift = log2Size(y.dtype);
  const auto repeat = convertTable().gather[shift];
  forEachChunk(y, grain, [&](char* to, int64_t at, int64_t n) {
    alignas(64) char number[kBlock * sizeof(double)];
    repeat(number, immediate.bytes, 0, std::min(n, kBlock));
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t offset = i << shift;
      const char* values = x.as<char>() + at + offset;
      loop(to + offset, isLeft ? number : values, isLeft ? values : number,
           std::min(n - i, kBlock));
    }
  });
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

using namespace cpu;

void unary(UnaryOp requested, const View& y, const View& x, DType common) {
  const Compute compute = computeType(common);
  const UnaryOp op = resolve(requested, common);
  const auto loop = checkedLoop(
      elementwiseTable().unary[static_cast<int>(compute)][static_cast<int>(op)], op, common);
  const int64_t grain = isCheap(op) ? kGrain : kGrainExpensive;
  if (y.dtype == x.dtype && sameContiguous(y, x)) {
    const auto bfloat16 = elementwiseTable().unaryBFloat16[static_cast<int>(op)];
    const auto stored = storedLoop(y.dtype, compute, loop, bfloat16);
    if (stored) return unaryContiguous(stored, y, x, grain);
  }
  const Plan<2> plan = makePlan<2>({&y, &x});
  parallelFor(plan.numel, grain, [&](int64_t begin, int64_t end) {
    Writer writer(plan, 0, y.dtype, compute);
    Reader reader(plan, 1, x.dtype, compute);
    const bool direct = writer.isDirect() && reader.isDirect();
    forEachBlock(plan, begin, end, direct, [&](const Cursor& at, int64_t n) {
      void* target = writer.target(at, n);
      loop(target, reader.read(at, n), n);
      writer.commit(at, n, target);
    });
  });
}

void binary(BinaryOp op, const View& y, const Operand& a, const Operand& b, DType common) {
  const Compute compute = computeType(common);
  const auto loop = checkedLoop(
      elementwiseTable().binary[static_cast<int>(compute)][static_cast<int>(op)], op, common);
  const int64_t grain = isCheap(op) ? kGrain : kGrainExpensive;
  const bool integerDivision = dividesIntegers(op, compute);
  if (!integerDivision && !a.isScalar && !b.isScalar && y.dtype == a.view.dtype &&
      y.dtype == b.view.dtype && sameContiguous(y, a.view) && sameContiguous(y, b.view)) {
    const auto bfloat16 = elementwiseTable().binaryBFloat16[static_cast<int>(op)];
    const auto stored = storedLoop(y.dtype, compute, loop, bfloat16);
    if (stored) return binaryContiguous(stored, y, a.view, b.view, grain);
  }
  const UnaryOp shortcut = shortcutOfPow(op, b, compute);
  if (shortcut != UnaryOp::count && !a.isScalar && a.view.ndim == y.ndim &&
      a.view.numel() == y.numel()) {
    return unary(shortcut, y, a.view, common);
  }
  if (!integerDivision && a.isScalar != b.isScalar && y.dtype == storedAs(compute)) {
    const Operand& x = a.isScalar ? b : a;
    if (x.view.dtype == y.dtype && sameContiguous(y, x.view)) {
      return binaryWithNumber(loop, y, x.view, (a.isScalar ? a : b).scalar, a.isScalar, compute,
                              grain);
    }
  }

  Immediate immediateA, immediateB;
  const auto viewOf = [&](const Operand& operand, Immediate& immediate) {
    if (!operand.isScalar) return operand.view;
    return immediate.view(isComparison(op) ? roundedTo(common, operand.scalar) : operand.scalar,
                          compute);
  };
  const View va = viewOf(a, immediateA), vb = viewOf(b, immediateB);
  if (integerDivision) checkDivisor(op, vb, compute);
  const Plan<3> plan = makePlan<3>({&y, &va, &vb});
  parallelFor(plan.numel, grain, [&](int64_t begin, int64_t end) {
    Writer writer(plan, 0, y.dtype, compute);
    Reader readA(plan, 1, va.dtype, compute), readB(plan, 2, vb.dtype, compute);
    const bool direct = writer.isDirect() && readA.isDirect() && readB.isDirect();
    forEachBlock(plan, begin, end, direct, [&](const Cursor& at, int64_t n) {
      void* target = writer.target(at, n);
      loop(target, readA.read(at, n), readB.read(at, n), n);
      writer.commit(at, n, target);
    });
  });
}

void where(const View& y, const View& condition, const Operand& a, const Operand& b) {
  const Compute compute = computeType(y.dtype);
  const auto loop = elementwiseTable().where[static_cast<int>(compute)];
  Immediate immediateA, immediateB;
  const View va = a.isScalar ? immediateA.view(a.scalar, compute) : a.view;
  const View vb = b.isScalar ? immediateB.view(b.scalar, compute) : b.view;
  const Plan<4> plan = makePlan<4>({&y, &condition, &va, &vb});
  parallelFor(plan.numel, kGrain, [&](int64_t begin, int64_t end) {
    Writer writer(plan, 0, y.dtype, compute);
    Reader readCondition(plan, 1, condition.dtype);
    Reader readA(plan, 2, va.dtype, compute), readB(plan, 3, vb.dtype, compute);
    const bool direct =
        writer.isDirect() && readCondition.isDirect() && readA.isDirect() && readB.isDirect();
    forEachBlock(plan, begin, end, direct, [&](const Cursor& at, int64_t n) {
      void* target = writer.target(at, n);
      loop(target, static_cast<const uint8_t*>(readCondition.read(at, n)), readA.read(at, n),
           readB.read(at, n), n);
      writer.commit(at, n, target);
    });
  });
}

}  // namespace adjoint::backend
