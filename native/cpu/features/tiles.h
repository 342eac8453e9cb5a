// The tile registers of AMX: eight of 16 rows of 64 bytes. ADJOINT_EMULATED_TILES puts their
// definition in C++ in the place of the instructions (Intel, Architecture Instruction Set
// Extensions Programming Reference, chapter 3), so that what is built on them runs on every
// processor and under sanitizers. Included by feature sources alone; everything has internal
// linkage.
#pragma once
#include <cstdint>

#include "shared/convert.h"
#include "shared/host_device.h"

namespace adjoint::cpu::ADJOINT_LEVEL {
namespace {

#if defined(ADJOINT_EMULATED_TILES)

struct Tiles {
  uint32_t word[8][16][16];
};
thread_local Tiles tiles;

ADJOINT_INLINE void beginTiles() {}
ADJOINT_INLINE void endTiles() {}
template <int T>
ADJOINT_INLINE void zeroTile() {
  memset(tiles.word[T], 0, sizeof tiles.word[T]);
}
template <int T>
ADJOINT_INLINE void loadTile(const void* p, int64_t strideBytes) {
  for (int i = 0; i < 16; i++) {
    memcpy(tiles.word[T][i], static_cast<const char*>(p) + i * strideBytes, 64);
  }
}
template <int T>
ADJOINT_INLINE void storeTile(void* p, int64_t strideBytes) {
  for (int i = 0; i < 16; i++) {
    memcpy(static_cast<char*>(p) + i * strideBytes, tiles.word[T][i], 64);
  }
}

ADJOINT_INLINE float flushed(float x) {
  return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.0f, x) : x;
}
// Element h of a pair of bfloat16; denormals count as zeros.
ADJOINT_INLINE float half(uint32_t pair, int h) {
  return flushed(bitCast<float>(h ? pair & 0xffff0000u : pair << 16));
}

// C[i][j] += sum_k A[i][2 k] B[k][2 j] + sum_k A[i][2 k + 1] B[k][2 j + 1]: the sums of the even
// and of the odd elements run apart, each by fused steps rounded to nearest; denormal results are
// zeros.
template <int C, int A, int B>
ADJOINT_INLINE void multiplyTiles() {
  for (int i = 0; i < 16; i++) {
    for (int j = 0; j < 16; j++) {
      float sum[2] = {0, 0};
      for (int k = 0; k < 16; k++) {
        for (int h = 0; h < 2; h++) {
          const float a = half(tiles.word[A][i][k], h), b = half(tiles.word[B][k][j], h);
          sum[h] = flushed(__builtin_fmaf(a, b, sum[h]));
        }
      }
      const float c = flushed(bitCast<float>(tiles.word[C][i][j]));
      tiles.word[C][i][j] = bitCast<uint32_t>(flushed(c + flushed(sum[0] + sum[1])));
    }
  }
}

#else

// Palette 1 with all tiles whole; the state belongs to the thread, and a thread that holds none is
// cheaper to switch to, so it is given up after use.
struct alignas(64) TileConfig {
  uint8_t palette, startRow, reserved[14];
  uint16_t rowBytes[16];
  uint8_t rows[16];
};

ADJOINT_INLINE void beginTiles() {
  static const TileConfig config = {
      1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
}
ADJOINT_INLINE void endTiles() {
  __asm__ volatile("tilerelease");
}
template <int T>
ADJOINT_INLINE void zeroTile() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
}
template <int T>
ADJOINT_INLINE void loadTile(const void* p, int64_t strideBytes) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(strideBytes), "i"(T) : "memory");
}
template <int T>
ADJOINT_INLINE void storeTile(void* p, int64_t strideBytes) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                   :
                   : "r"(p), "r"(strideBytes), "i"(T)
                   : "memory");
}
template <int C, int A, int B>
ADJOINT_INLINE void multiplyTiles() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

#endif

}  // namespace
}  // namespace adjoint::cpu::ADJOINT_LEVEL
