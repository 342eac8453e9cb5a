// Max pooling and its gradient, plane by plane.
#include "cpu/kernels/pool2d.h"

#include <algorithm>
#include <atomic>

#include "cpu/compute_view.h"
#include "cpu/kernels/convert.h"
#include "cpu/pool.h"
#include "shared/pool_checks.h"

namespace adjoint::cpu {
namespace {

constexpr int64_t kTaskElements = 1 << 14;

template <class T>
const Pool2dKernelsByTap<T>& pool2dKernelsByTap() {
  if constexpr (std::is_same<T, float>::value) {
    return pool2dTable().f32;
  } else if constexpr (std::is_same<T, double>::value) {
    return pool2dTable().f64;
  } else {
    return pool2dTable().i64;
  }
}
template <class T, class Tap>
const Pool2dKernels<T, Tap>& pool2dKernels() {
  if constexpr (std::is_same<Tap, uint8_t>::value) {
    return pool2dKernelsByTap<T>().u8;
  } else {
    return pool2dKernelsByTap<T>().i32;
  }
}

// Calls f(TypeTag<T>, TypeTag<Tap>) with the types of values as they are computed with, and of
// taps.
template <class F>
void visitPool(DType values, DType taps, const F& f) {
  visitCompute(computeType(values), [&](auto value) {
    taps == DType::uint8 ? f(value, TypeTag<uint8_t>()) : f(value, TypeTag<int32_t>());
  });
}

// Calls body(plane, first element of the plane, scratch) for each channel of each image of x.
template <class F>
void forEachPlane(const View& x, size_t scratchBytes, const F& body) {
  const int64_t elements = std::max<int64_t>(1, x.size[2] * x.size[3]);
  parallelFor(x.size[0] * x.size[1], std::max<int64_t>(1, kTaskElements / elements),
              [&](int64_t begin, int64_t end) {
                Workspace scratch(scratchBytes);
                for (int64_t i = begin; i < end; i++) {
                  body(i, i / x.size[1] * x.stride[0] + i % x.size[1] * x.stride[1],
                       scratch.as<void>());
                }
              });
}

// Dense rows of a plane as values of T: in place where they are stored so, else in a buffer.
template <class T>
class Planes {
 public:
  explicit Planes(const View& x)
      : x_(x), compute_(static_cast<int>(computeType(x.dtype))), dtype_(static_cast<int>(x.dtype)) {
    isConverted_ = x.dtype != computeDType(x.dtype);
  }
  int64_t pixels() const { return x_.size[2] * x_.size[3]; }
  int64_t bufferSize() const { return isConverted_ ? pixels() : 0; }
  int64_t rowStride() const { return isConverted_ ? x_.size[3] : x_.stride[2]; }

  // `at`: the plane's first element
  const T* read(int64_t at, T* buffer) const {
    if (!isConverted_) return x_.as<T>() + at;
    const auto convert = convertTable().load[dtype_][compute_];
    const int64_t w = x_.size[3], rows = x_.stride[2] == w ? 1 : x_.size[2];
    for (int64_t i = 0; i < rows; i++) {
      convert(buffer + i * w, stored(at + i * x_.stride[2]), pixels() / rows);
    }
    return buffer;
  }
  // Where to write a plane; commit() brings it there. The rows lie one after the other.
  T* target(int64_t at, T* buffer) const { return isConverted_ ? buffer : x_.as<T>() + at; }
  void commit(int64_t at, const T* buffer) const {
    if (isConverted_) convertTable().store[compute_][dtype_](stored(at), buffer, pixels());
  }

 private:
  char* stored(int64_t at) const {
    return x_.as<char>() + at * static_cast<int64_t>(itemSize(x_.dtype));
  }
  const View& x_;
  const int compute_, dtype_;
  bool isConverted_;
};

PoolWindow windowOf(const View& x, const View& y, const backend::Pool2dShape& s) {
  return {x.size[2], x.size[3], y.size[2], y.size[3], s.kernelH,   s.kernelW,
          s.strideH, s.strideW, s.padH,    s.padW,    s.dilationH, s.dilationW};
}

[[noreturn]] void failTap(const char* op) {
  fail(ErrorKind::index, "%s: expected taps of the window", op);
}

// Where the taps of a window lie.
class Taps {
 public:
  explicit Taps(const PoolWindow& z) : space_(static_cast<size_t>(z.taps()) * sizeof(PoolTap)) {
    PoolTap* tap = space_.as<PoolTap>();
    for (int64_t r = 0; r < z.kernelH; r++) {
      for (int64_t s = 0; s < z.kernelW; s++) *tap++ = {r * z.dilationH, s * z.dilationW};
    }
  }
  const PoolTap* get() { return space_.as<PoolTap>(); }

 private:
  Workspace space_;
};

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

void maxPool2d(const View& y, const View& tap, const View& x, const Pool2dShape& s) {
  using namespace cpu;
  if (y.numel() == 0) return;
  checkPool("maxPool2d", x, tap, s);
  const bool hasRows = x.stride[3] == 1;
  const ComputeInput computeX(x, hasRows ? Layout::any : Layout::dense, x.dtype);
  ComputeOutput computeY(y, Layout::dense, y.dtype), computeTap(tap, Layout::dense, tap.dtype);
  const View& from = computeX.view();
  const PoolWindow window = windowOf(x, y, s);
  visitPool(y.dtype, tap.dtype, [&](auto value, auto place) {
    using T = typename decltype(value)::type;
    using Tap = typename decltype(place)::type;
    const int64_t outputs = window.p * window.q;
    const int64_t slack = kPoolSlack * (window.strideW + 1);
    const int64_t slab = window.isPairs() ? 0 : window.slabRows() * window.slabColumns() + slack;
    const Planes<T> xs(from), ys(computeY.view());
    const size_t bytes = (slab + xs.bufferSize() + ys.bufferSize()) * sizeof(T);
    forEachPlane(from, bytes, [&](int64_t plane, int64_t at, void* scratch) {
      T* buffer = static_cast<T*>(scratch);
      T* bufferX = buffer + slab;
      T* to = ys.target(plane * outputs, bufferX + xs.bufferSize());
      pool2dKernels<T, Tap>().maxPool(to, computeTap.view().template as<Tap>() + plane * outputs,
                                      xs.read(at, bufferX), xs.rowStride(), window, buffer);
      ys.commit(plane * outputs, to);
    });
  });
  computeY.finish();
  computeTap.finish();
}

void maxPool2dBackward(const View& dx, const View& dy, const View& tap, const Pool2dShape& s) {
  using namespace cpu;
  if (dx.numel() == 0) return;
  checkPool("maxPool2dBackward", dx, tap, s);
  const ComputeInput computeDy(dy, Layout::dense, dy.dtype);
  const ComputeInput computeTap(tap, Layout::dense, tap.dtype);
  ComputeOutput computeDx(dx, Layout::dense, dx.dtype);
  const PoolWindow window = windowOf(dx, dy, s);
  Taps taps(window);
  std::atomic<bool> isValid{true};
  visitPool(dx.dtype, tap.dtype, [&](auto value, auto place) {
    using T = typename decltype(value)::type;
    using Tap = typename decltype(place)::type;
    const int64_t outputs = window.p * window.q;
    const Planes<T> dxs(computeDx.view()), dys(computeDy.view());
    const size_t bytes = (dxs.bufferSize() + dys.bufferSize()) * sizeof(T);
    forEachPlane(computeDx.view(), bytes, [&](int64_t plane, int64_t at, void* scratch) {
      T* buffer = static_cast<T*>(scratch);
      T* to = dxs.target(at, buffer);
      if (!pool2dKernels<T, Tap>().scatter(to, dys.read(plane * outputs, buffer + dxs.bufferSize()),
                                           computeTap.view().template as<Tap>() + plane * outputs,
                                           window, taps.get())) {
        isValid = false;
      }
      dxs.commit(at, to);
    });
  });
  if (!isValid) failTap("maxPool2dBackward");
  computeDx.finish();
}

void maxPool2dGather(const View& y, const View& x, const View& tap, const Pool2dShape& s) {
  using namespace cpu;
  if (y.numel() == 0) return;
  checkPool("maxPool2dGather", x, tap, s);
  const ComputeInput computeX(x, Layout::dense), computeTap(tap, Layout::dense, tap.dtype);
  ComputeOutput computeY(y, Layout::dense);
  const PoolWindow window = windowOf(x, y, s);
  Taps taps(window);
  std::atomic<bool> isValid{true};
  visitPool(y.dtype, tap.dtype, [&](auto value, auto place) {
    using T = typename decltype(value)::type;
    using Tap = typename decltype(place)::type;
    const int64_t outputs = window.p * window.q;
    forEachPlane(computeX.view(), 0, [&](int64_t plane, int64_t at, void*) {
      if (!pool2dKernels<T, Tap>().gather(computeY.view().template as<T>() + plane * outputs,
                                          computeX.view().template as<T>() + at,
                                          computeTap.view().template as<Tap>() + plane * outputs,
                                          window, taps.get())) {
        isValid = false;
      }
    });
  });
  if (!isValid) failTap("maxPool2dGather");
  computeY.finish();
}

}  // namespace adjoint::backend
