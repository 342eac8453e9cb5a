#include "cpu/kernels/elementwise.h"

#include "cpu/kernels/vec_elements.h"
#include "cpu/kernels/vec_gelu.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

template <class T>
constexpr Compute computeOf() {
  return std::is_same<T, double>::value    ? Compute::f64
         : std::is_same<T, int64_t>::value ? Compute::i64
                                           : Compute::f32;
}

// A whole vector of results. Where T is bfloat16 a NaN came from a bfloat16 or from arithmetic: the
// lower half of its bits is zero.
template <class T>
ADJOINT_INLINE void putResult(T* p, Vec x) {
#if !defined(ADJOINT_LEVEL_SCALAR)
  if constexpr (std::is_same<T, BFloat16>::value) {
    return storeUpperHalves(&p->bits, roundedNumbers(x.v));
  }
#endif
  put(p, x, kLanes);
}

// While a long computation fills the processor's window, few loads are under way at a time: the
// next ones are asked for 2 KB ahead. Addresses beyond the end do no harm.
template <bool cheap, int forWriting = 0>
ADJOINT_INLINE void fetchAhead(const void* p) {
  constexpr int64_t kAhead = 2048;
  if constexpr (!cheap) __builtin_prefetch(static_cast<const char*>(p) + kAhead, forWriting);
}

// float32 and bfloat16 by vectors; float64 and int64 by a plain loop, which the compiler vectorises
// where the operation allows it.
template <UnaryOp op, class T>
void unaryLoop(void* yv, const void* xv, int64_t n) {
  const Unary<op> f;
  T* y = static_cast<T*>(yv);
  const T* x = static_cast<const T*>(xv);
  if constexpr (computeOf<T>() == Compute::f32) {
    forEachVector(
        n,
        [&](int64_t i) {
          fetchAhead<isCheap(op)>(x + i);
          fetchAhead<isCheap(op), 1>(y + i);
          putResult(y + i, f(get(x + i, kLanes)));
        },
        [&](int64_t i, int64_t rest) { put(y + i, f(get(x + i, rest)), rest); });
  } else {
    ADJOINT_INDEPENDENT
    for (int64_t i = 0; i < n; i++) y[i] = f(x[i]);
  }
}

template <BinaryOp op, class T>
void binaryLoop(void* yv, const void* av, const void* bv, int64_t n) {
  const Binary<op> f;
  T* y = static_cast<T*>(yv);
  const T* a = static_cast<const T*>(av);
  const T* b = static_cast<const T*>(bv);
  if constexpr (computeOf<T>() == Compute::f32) {
    forEachVector(
        n,
        [&](int64_t i) {
          fetchAhead<isCheap(op)>(a + i);
          fetchAhead<isCheap(op)>(b + i);
          fetchAhead<isCheap(op), 1>(y + i);
          putResult(y + i, f(get(a + i, kLanes), get(b + i, kLanes)));
        },
        [&](int64_t i, int64_t rest) { put(y + i, f(get(a + i, rest), get(b + i, rest)), rest); });
  } else {
    ADJOINT_INDEPENDENT
    for (int64_t i = 0; i < n; i++) y[i] = f(a[i], b[i]);
  }
}

template <class T>
void whereLoop(void* yv, const uint8_t* condition, const void* av, const void* bv, int64_t n) {
  T* y = static_cast<T*>(yv);
  const T* a = static_cast<const T*>(av);
  const T* b = static_cast<const T*>(bv);
  ADJOINT_INDEPENDENT
  for (int64_t i = 0; i < n; i++) y[i] = condition[i] ? a[i] : b[i];
}

void stream(void* y, const void* x, int64_t bytes) {
#if defined(ADJOINT_LEVEL_AVX2) || defined(ADJOINT_LEVEL_AVX512)
#if defined(ADJOINT_LEVEL_AVX512)
  using Line = __m512i;
#else
  using Line = __m256i;
#endif
  constexpr int64_t size = sizeof(Line);
  auto* to = static_cast<unsigned char*>(y);
  const auto* from = static_cast<const unsigned char*>(x);
  int64_t i = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(to) & (size - 1));
  if (i > bytes) i = bytes;
  memcpy(to, from, static_cast<size_t>(i));
  for (; i + size <= bytes; i += size) {
    Line line;
    memcpy(&line, from + i, sizeof line);
#if defined(ADJOINT_LEVEL_AVX512)
    _mm512_stream_si512(reinterpret_cast<Line*>(to + i), line);
#else
    _mm256_stream_si256(reinterpret_cast<Line*>(to + i), line);
#endif
  }
  memcpy(to + i, from + i, static_cast<size_t>(bytes - i));
  _mm_sfence();  // before another thread is told that the values are there
#else
  memcpy(y, x, static_cast<size_t>(bytes));
#endif
}

template <UnaryOp op, class T>
constexpr ElementwiseTable::UnaryLoop unaryEntry() {
  if constexpr (isDefined(op, computeOf<T>())) {
    return unaryLoop<op, T>;
  } else {
    return nullptr;
  }
}
template <BinaryOp op, class T>
constexpr ElementwiseTable::BinaryLoop binaryEntry() {
  if constexpr (isDefined(op, computeOf<T>())) {
    return binaryLoop<op, T>;
  } else {
    return nullptr;
  }
}

}  // namespace

#define ADJOINT_UNARY_F32(name) unaryEntry<UnaryOp::name, float>(),
#define ADJOINT_UNARY_F64(name) unaryEntry<UnaryOp::name, double>(),
#define ADJOINT_UNARY_I64(name) unaryEntry<UnaryOp::name, int64_t>(),
#define ADJOINT_UNARY_BF16(name) unaryEntry<UnaryOp::name, BFloat16>(),
#define ADJOINT_BINARY_F32(name) binaryEntry<BinaryOp::name, float>(),
#define ADJOINT_BINARY_F64(name) binaryEntry<BinaryOp::name, double>(),
#define ADJOINT_BINARY_I64(name) binaryEntry<BinaryOp::name, int64_t>(),
#define ADJOINT_BINARY_BF16(name) binaryEntry<BinaryOp::name, BFloat16>(),

const ElementwiseTable elementwiseTable = {
    {{ADJOINT_UNARY_OPS(ADJOINT_UNARY_F32)},
     {ADJOINT_UNARY_OPS(ADJOINT_UNARY_F64)},
     {ADJOINT_UNARY_OPS(ADJOINT_UNARY_I64)}},
    {{ADJOINT_BINARY_OPS(ADJOINT_BINARY_F32)},
     {ADJOINT_BINARY_OPS(ADJOINT_BINARY_F64)},
     {ADJOINT_BINARY_OPS(ADJOINT_BINARY_I64)}},
    {ADJOINT_UNARY_OPS(ADJOINT_UNARY_BF16)},
    {ADJOINT_BINARY_OPS(ADJOINT_BINARY_BF16)},
    {whereLoop<float>, whereLoop<double>, whereLoop<int64_t>},
    stream,
};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
