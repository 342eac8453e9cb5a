#include "cpu/kernels/reduce.h"

#include "cpu/kernels/fold.h"
#include "cpu/kernels/vec_math.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

template <class T>
using Accumulator = typename std::conditional<std::is_integral<T>::value, int64_t, double>::type;

// float32 is summed in float32 within a block and in double from block to block: about 8 roundings
// in float32 at most. float64 carries the error of each addition along (Knuth's TwoSum).
constexpr int64_t kBlockOfRow = 512;
constexpr int64_t kRowsAtOnce = 16;

template <class Op, class T>
constexpr bool kCarriesError = std::is_same<Op, SumOf>::value&& std::is_same<T, double>::value;

template <class Op, class T, class A>
ADJOINT_INLINE void accumulate(A& value, double& low, A x) {
  if constexpr (kCarriesError<Op, T>) {
    const double sum = value + x;
    const double part = sum - value;
    low += (value - (sum - part)) + (x - part);
    value = sum;
  } else {
    value = Op()(value, x);
  }
}

template <class Op, class T>
void init(void* valueOut, void* lowOut, int64_t n) {
  using A = Accumulator<T>;
  for (int64_t j = 0; j < n; j++) static_cast<A*>(valueOut)[j] = Op::template identity<A>();
  if constexpr (kCarriesError<Op, T>) {
    for (int64_t j = 0; j < n; j++) static_cast<double*>(lowOut)[j] = 0;
  }
}

template <class Op, class T>
void row(void* valueOut, void* lowOut, const void* xv, int64_t n) {
  using A = Accumulator<T>;
  const T* x = static_cast<const T*>(xv);
  for (int64_t i = 0; i < n; i += kBlockOfRow) {
    const int64_t m = n - i < kBlockOfRow ? n - i : kBlockOfRow;
    A block;
    if constexpr (std::is_same<T, float>::value && !std::is_same<Op, ProductOf>::value) {
      block = static_cast<A>(foldFloats<Op>(x + i, m));
    } else {
      block = foldLanewise<Op, A>(x + i, m);
    }
    accumulate<Op, T>(*static_cast<A*>(valueOut), *static_cast<double*>(lowOut), block);
  }
}

// Up to kRowsAtOnce rows of float32 are folded in float32, a vector of columns at a time; the other
// types take four rows at once.
template <class Op, class T>
void columns(void* valueOut, void* lowOut, const void* xv, int64_t rows, int64_t rowStride,
             int64_t n) {
  using A = Accumulator<T>;
  constexpr Op op;
  A* value = static_cast<A*>(valueOut);
  double* low = static_cast<double*>(lowOut);
  const T* x = static_cast<const T*>(xv);
  constexpr bool vectors =
      std::is_same<T, float>::value && !std::is_same<Op, ProductOf>::value && kLanes > 1;
  for (int64_t r0 = 0; r0 < rows; r0 += kRowsAtOnce) {
    const int64_t r1 = rows - r0 < kRowsAtOnce ? rows : r0 + kRowsAtOnce;
    if constexpr (vectors) {
      float partial[kLanes];
      const auto fold = [&](int64_t j, auto get) {
        Vec running = Op::template identity<Vec>();
        for (int64_t r = r0; r < r1; r++) {
          running = op(running, Op::template lift<Vec>(get(x + r * rowStride + j)));
        }
        store(partial, running);
      };
      const auto add = [&](int64_t j, int64_t m) {
        ADJOINT_INDEPENDENT
        for (int64_t k = 0; k < m; k++) {
          accumulate<Op, T>(value[j + k], low[0], static_cast<A>(partial[k]));
        }
      };
      forEachVector(
          n,
          [&](int64_t j) {
            fold(j, [](const float* p) { return load(p); });
            add(j, kLanes);
          },
          [&](int64_t j, int64_t rest) {
            fold(j, [&](const float* p) { return loadPartial(p, rest); });
            add(j, rest);
          });
    } else {
      const auto lifted = [](T v) { return Op::template lift<A>(static_cast<A>(v)); };
      int64_t r = r0;
      for (; r + 4 <= r1; r += 4) {
        const T *x0 = x + r * rowStride, *x1 = x0 + rowStride, *x2 = x1 + rowStride,
                *x3 = x2 + rowStride;
        ADJOINT_INDEPENDENT
        for (int64_t j = 0; j < n; j++) {
          const A four = op(op(lifted(x0[j]), lifted(x1[j])), op(lifted(x2[j]), lifted(x3[j])));
          accumulate<Op, T>(value[j], low[kCarriesError<Op, T> ? j : 0], four);
        }
      }
      for (; r < r1; r++) {
        const T* line = x + r * rowStride;
        ADJOINT_INDEPENDENT
        for (int64_t j = 0; j < n; j++) {
          accumulate<Op, T>(value[j], low[kCarriesError<Op, T> ? j : 0], lifted(line[j]));
        }
      }
    }
  }
}

template <class Op, class T>
void merge(void* valueOut, void* lowOut, const void* otherValue, const void* otherLow, int64_t n) {
  using A = Accumulator<T>;
  A* value = static_cast<A*>(valueOut);
  double* low = static_cast<double*>(lowOut);
  for (int64_t j = 0; j < n; j++) {
    accumulate<Op, T>(value[j], low[kCarriesError<Op, T> ? j : 0],
                      static_cast<const A*>(otherValue)[j]);
    if constexpr (kCarriesError<Op, T>) low[j] += static_cast<const double*>(otherLow)[j];
  }
}

// ---------------------------------------------------------------- argmax, argmin
// Whether a later x replaces the best so far. NaN beats numbers and is never beaten.
template <ArgOp op, class T>
ADJOINT_INLINE bool isBetter(T x, T best) {
  return (op == ArgOp::argmax ? x > best : x < best) || (x != x && best == best);
}

template <ArgOp op, class T>
void argRow(void* bestOut, int64_t* index, const void* xv, int64_t first, int64_t n) {
  using Op = typename std::conditional<op == ArgOp::argmax, MaximumOf, MinimumOf>::type;
  T& best = *static_cast<T*>(bestOut);
  const T* x = static_cast<const T*>(xv);
  for (int64_t i = 0; i < n; i += kBlockOfRow) {
    const int64_t m = n - i < kBlockOfRow ? n - i : kBlockOfRow;
    T block;  // the best of a block by vectors; where it stands is looked for only if it wins
    if constexpr (std::is_same<T, float>::value) {
      block = foldFloats<Op>(x + i, m);
    } else {
      block = foldLanewise<Op, T>(x + i, m);
    }
    if (*index >= 0 && !isBetter<op>(block, best)) continue;
    int64_t k = 0;
    while (!(x[i + k] == block || (block != block && x[i + k] != x[i + k]))) k++;
    best = block;
    *index = first + i + k;
  }
}

template <ArgOp op, class T>
void argColumns(void* bestOut, int64_t* index, const void* xv, int64_t row, int64_t n) {
  T* best = static_cast<T*>(bestOut);
  const T* x = static_cast<const T*>(xv);
  ADJOINT_INDEPENDENT
  for (int64_t j = 0; j < n; j++) {
    const bool better = index[j] < 0 || isBetter<op>(x[j], best[j]);
    best[j] = better ? x[j] : best[j];
    index[j] = better ? row : index[j];
  }
}

template <ArgOp op, class T>
void argMerge(void* bestOut, int64_t* index, const void* otherBest, const int64_t* otherIndex,
              int64_t n) {
  T* best = static_cast<T*>(bestOut);
  const T* other = static_cast<const T*>(otherBest);
  for (int64_t j = 0; j < n; j++) {
    if (index[j] >= 0 && !isBetter<op>(other[j], best[j])) continue;
    best[j] = other[j];
    index[j] = otherIndex[j];
  }
}

}  // namespace

#define ADJOINT_FOLD(Op, T) \
  { init<Op, T>, row<Op, T>, columns<Op, T>, merge<Op, T> }
#define ADJOINT_FOLDS(Op) \
  { ADJOINT_FOLD(Op, float), ADJOINT_FOLD(Op, double), ADJOINT_FOLD(Op, int64_t) }
#define ADJOINT_ARG(op, T) \
  { argRow<op, T>, argColumns<op, T>, argMerge<op, T> }
#define ADJOINT_ARGS(op) \
  { ADJOINT_ARG(op, float), ADJOINT_ARG(op, double), ADJOINT_ARG(op, int64_t) }

const ReduceTable reduceTable = {
    {ADJOINT_FOLDS(SumOf), ADJOINT_FOLDS(ProductOf), ADJOINT_FOLDS(MaximumOf),
     ADJOINT_FOLDS(MinimumOf), ADJOINT_FOLDS(AnyOf), ADJOINT_FOLDS(AllOf)},
    {ADJOINT_ARGS(ArgOp::argmax), ADJOINT_ARGS(ArgOp::argmin)},
};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
