#include "cpu/kernels/convert.h"

#include "cpu/kernels/bf16_lanes.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

template <class To, class From>
void convertLoop(void* yv, const void* xv, int64_t n) {
  To* y = static_cast<To*>(yv);
  const From* x = static_cast<const From*>(xv);
  int64_t i = 0;
  // F16C and its AVX-512 form; elsewhere the bit arithmetic of shared/convert.h.
#if defined(ADJOINT_LEVEL_AVX2) || defined(ADJOINT_LEVEL_AVX512)
  if constexpr (std::is_same<To, float>::value && std::is_same<From, Float16>::value) {
    for (; i + 8 <= n; i += 8) {
      const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i));
      _mm256_storeu_ps(y + i, _mm256_cvtph_ps(half));
    }
  }
  if constexpr (std::is_same<To, Float16>::value && std::is_same<From, float>::value) {
    for (; i + 8 <= n; i += 8) {
      const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), half);
    }
  }
#endif
  if constexpr (std::is_same<To, float>::value && std::is_same<From, BFloat16>::value) {
    for (; i + kLanes<float> <= n; i += kLanes<float>) storeVector(y + i, loadElements(x + i));
  }
  if constexpr (std::is_same<To, BFloat16>::value && std::is_same<From, float>::value) {
    for (; i + kLanes<float> <= n; i += kLanes<float>) storeElements(y + i, load(x + i));
  }
  ADJOINT_INDEPENDENT
  for (; i < n; i++) y[i] = convert<To>(x[i]);
}

// T is an unsigned integer of the element's size.
template <class T>
void gatherLoop(void* yv, const void* xv, int64_t stride, int64_t n) {
  T* y = static_cast<T*>(yv);
  const T* x = static_cast<const T*>(xv);
  if (stride == 1) {
    memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
  } else if (stride == 0) {
    const T value = *x;
    for (int64_t i = 0; i < n; i++) y[i] = value;
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = x[i * stride];
  }
}

template <class T>
void scatterLoop(void* yv, const void* xv, int64_t stride, int64_t n) {
  T* y = static_cast<T*>(yv);
  const T* x = static_cast<const T*>(xv);
  if (stride == 1) {
    memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
  } else {
    for (int64_t i = 0; i < n; i++) y[i * stride] = x[i];
  }
}

// Tiles of a cache line or two on either side, turned in a buffer that stays in the first cache.
template <class T>
void transposeLoop(void* yv, const void* xv, int64_t rows, int64_t columns, int64_t yStride,
                   int64_t xStride) {
  constexpr int kTile = 32;
  T* y = static_cast<T*>(yv);
  const T* x = static_cast<const T*>(xv);
  T tile[kTile][kTile];  // [row][column]
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    const int nr = static_cast<int>(rows - r0 < kTile ? rows - r0 : kTile);
    for (int64_t c0 = 0; c0 < columns; c0 += kTile) {
      const int nc = static_cast<int>(columns - c0 < kTile ? columns - c0 : kTile);
      for (int c = 0; c < nc; c++) {
        const T* source = x + (c0 + c) * xStride + r0;
        for (int r = 0; r < nr; r++) tile[r][c] = source[r];
      }
      for (int r = 0; r < nr; r++) {
        memcpy(y + (r0 + r) * yStride + c0, tile[r], static_cast<size_t>(nc) * sizeof(T));
      }
    }
  }
}

}  // namespace

#define ADJOINT_LOAD(T) \
  { convertLoop<float, T>, convertLoop<double, T>, convertLoop<int64_t, T> }
#define ADJOINT_STORE(T)                                                           \
  {                                                                                \
    convertLoop<float, T>, convertLoop<double, T>, convertLoop<BFloat16, T>,       \
        convertLoop<Float16, T>, convertLoop<int64_t, T>, convertLoop<int32_t, T>, \
        convertLoop<int16_t, T>, convertLoop<int8_t, T>, convertLoop<uint8_t, T>,  \
        convertLoop<Boolean, T>                                                    \
  }

const ConvertTable convertTable = {
    {ADJOINT_LOAD(float), ADJOINT_LOAD(double), ADJOINT_LOAD(BFloat16), ADJOINT_LOAD(Float16),
     ADJOINT_LOAD(int64_t), ADJOINT_LOAD(int32_t), ADJOINT_LOAD(int16_t), ADJOINT_LOAD(int8_t),
     ADJOINT_LOAD(uint8_t), ADJOINT_LOAD(Boolean)},
    {ADJOINT_STORE(float), ADJOINT_STORE(double), ADJOINT_STORE(int64_t)},
    {gatherLoop<uint8_t>, gatherLoop<uint16_t>, gatherLoop<uint32_t>, gatherLoop<uint64_t>},
    {scatterLoop<uint8_t>, scatterLoop<uint16_t>, scatterLoop<uint32_t>, scatterLoop<uint64_t>},
    {transposeLoop<uint8_t>, transposeLoop<uint16_t>, transposeLoop<uint32_t>,
     transposeLoop<uint64_t>},
};

}  // namespace adjoint::cpu::ADJOINT_LEVEL
