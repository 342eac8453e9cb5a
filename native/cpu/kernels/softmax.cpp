#include "cpu/kernels/softmax.h"

#include "cpu/kernels/row.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

template <class T>
ADJOINT_INLINE T maximumOfRow(const T* x, int64_t n) {
  if constexpr (std::is_same<T, float>::value) {
    return foldFloats<MaximumOf>(x, n);
  } else {
    return foldLanewise<MaximumOf, T>(x, n);
  }
}

// sum e^(x - m); the exponentials themselves go to y where it is asked for.
template <class T, bool keep>
ADJOINT_INLINE double sumOfExponentials(T* y, const T* x, T m, int64_t n) {
  using V = typename Lanes<T>::V;
  return sumOfRow<T>(n, [&](int64_t i, int64_t rest) {
    const V e = expOrZero(get(x + i, rest, T(-HUGE_VALF)) - V(m));
    if constexpr (keep) put(y + i, e, rest);
    return e;
  });
}

// y = e^(x - m) / s, m the maximum, s the sum; or y = (x - m) - log s
template <class T, bool logarithm>
void forwardRow(void* out, const void* const* in, int64_t n) {
  using V = typename Lanes<T>::V;
  T* y = static_cast<T*>(out);
  const T* x = static_cast<const T*>(in[0]);
  const T m = maximumOfRow(x, n);
  const double sum = sumOfExponentials<T, !logarithm>(y, x, m, n);
  const V factor(static_cast<T>(logarithm ? ::log(sum) : 1 / sum));
  forEachLanes<T>(n, [&](int64_t i, int64_t rest) {
    if constexpr (logarithm) {
      put(y + i, (get(x + i, rest, T(0)) - V(m)) - factor, rest);
    } else {
      put(y + i, get(y + i, rest, T(0)) * factor, rest);
    }
  });
}

// dx = y (dy - sum(dy y)); of the logarithm dx = dy - e^y sum(dy)
template <class T, bool logarithm>
void backwardRow(void* out, const void* const* in, int64_t n) {
  using V = typename Lanes<T>::V;
  T* dx = static_cast<T*>(out);
  const T* dy = static_cast<const T*>(in[0]);
  const T* y = static_cast<const T*>(in[1]);
  const double sum = sumOfRow<T>(n, [&](int64_t i, int64_t rest) {
    const V g = get(dy + i, rest, T(0));
    if constexpr (logarithm) {
      return g;
    } else {
      return g * get(y + i, rest, T(0));
    }
  });
  const V s(static_cast<T>(sum));
  forEachLanes<T>(n, [&](int64_t i, int64_t rest) {
    const V g = get(dy + i, rest, T(0)), v = get(y + i, rest, T(0));
    if constexpr (logarithm) {
      put(dx + i, g - Math<V>::exp(v) * s, rest);
    } else {
      put(dx + i, v * (g - s), rest);
    }
  });
}

// The same down the columns of a tile [rows, n]: statistics of each column in small buffers, the
// tile read row by row.
template <class T, bool logarithm>
void forwardColumns(void* out, const void* const* in, int64_t rows, int64_t outStride,
                    const int64_t* inStride, int64_t n) {
  using V = typename Lanes<T>::V;
  alignas(64) T maximum[kSoftmaxColumns], factor[kSoftmaxColumns];
  T* y = static_cast<T*>(out);
  const T* x = static_cast<const T*>(in[0]);
  for (int64_t j = 0; j < n; j++) maximum[j] = T(-HUGE_VALF);
  for (int64_t j = 0; j < n; j++) factor[j] = T(0);
  for (int64_t r = 0; r < rows; r++) {
    forEachLanes<T>(n, [&](int64_t j, int64_t rest) {
      put(maximum + j,
          maximumOf(get(maximum + j, rest, T(0)), get(x + r * inStride[0] + j, rest, T(0))), rest);
    });
  }
  for (int64_t r = 0; r < rows; r++) {
    forEachLanes<T>(n, [&](int64_t j, int64_t rest) {
      const V e =
          Math<V>::exp(get(x + r * inStride[0] + j, rest, T(0)) - get(maximum + j, rest, T(0)));
      if constexpr (!logarithm) put(y + r * outStride + j, e, rest);
      put(factor + j, get(factor + j, rest, T(0)) + e, rest);
    });
  }
  forEachLanes<T>(n, [&](int64_t j, int64_t rest) {
    const V sum = get(factor + j, rest, T(1));
    put(factor + j, logarithm ? Math<V>::log(sum) : V(1) / sum, rest);
  });
  for (int64_t r = 0; r < rows; r++) {
    forEachLanes<T>(n, [&](int64_t j, int64_t rest) {
      const V f = get(factor + j, rest, T(0));
      T* target = y + r * outStride + j;
      if constexpr (logarithm) {
        const V shifted = get(x + r * inStride[0] + j, rest, T(0)) - get(maximum + j, rest, T(0));
        put(target, shifted - f, rest);
      } else {
        put(target, get(target, rest, T(0)) * f, rest);
      }
    });
  }
}

template <class T, bool logarithm>
void backwardColumns(void* out, const void* const* in, int64_t rows, int64_t outStride,
                     const int64_t* inStride, int64_t n) {
  using V = typename Lanes<T>::V;
  alignas(64) T sum[kSoftmaxColumns];
  T* dx = static_cast<T*>(out);
  const T* dy = static_cast<const T*>(in[0]);
  const T* y = static_cast<const T*>(in[1]);
  for (int64_t j = 0; j < n; j++) sum[j] = T(0);
  for (int64_t r = 0; r < rows; r++) {
    forEachLanes<T>(n, [&](int64_t j, int64_t rest) {
      V g = get(dy + r * inStride[0] + j, rest, T(0));
      if constexpr (!logarithm) g = g * get(y + r * inStride[1] + j, rest, T(0));
      put(sum + j, get(sum + j, rest, T(0)) + g, rest);
    });
  }
  for (int64_t r = 0; r < rows; r++) {
    forEachLanes<T>(n, [&](int64_t j, int64_t rest) {
      const V g = get(dy + r * inStride[0] + j, rest, T(0));
      const V v = get(y + r * inStride[1] + j, rest, T(0)), s = get(sum + j, rest, T(0));
      put(dx + r * outStride + j, logarithm ? g - Math<V>::exp(v) * s : v * (g - s), rest);
    });
  }
}

template <class T>
void logSumExp(const void* xv, int64_t n, double* maximum, double* logSum) {
  const T* x = static_cast<const T*>(xv);
  const T m = maximumOfRow(x, n);
  *maximum = static_cast<double>(m);
  *logSum = ::log(sumOfExponentials<T, false>(nullptr, x, m, n));
}

template <class T>
void scaledExp(void* yv, const void* xv, int64_t n, double lse, double scale) {
  using V = typename Lanes<T>::V;
  T* y = static_cast<T*>(yv);
  const T* x = static_cast<const T*>(xv);
  const V shift(static_cast<T>(lse)), factor(static_cast<T>(scale));
  forEachLanes<T>(n, [&](int64_t i, int64_t rest) {
    put(y + i, factor * Math<V>::exp(get(x + i, rest, T(0)) - shift), rest);
  });
}

}  // namespace

#define ADJOINT_SOFTMAX(direction, logarithm)                                   \
  {                                                                             \
    {direction##Row<float, logarithm>, direction##Columns<float, logarithm>}, { \
      direction##Row<double, logarithm>, direction##Columns<double, logarithm>  \
    }                                                                           \
  }

const SoftmaxTable softmaxTable = {
    ADJOINT_SOFTMAX(forward, false),       ADJOINT_SOFTMAX(forward, true),
    ADJOINT_SOFTMAX(backward, false),      ADJOINT_SOFTMAX(backward, true),
    {logSumExp<float>, logSumExp<double>}, {scaledExp<float>, scaledExp<double>},
};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
