// How functions that run both on the host and in CUDA kernels are declared. Forced inlining also
// keeps them out of the symbol table: a weak copy compiled for AVX-512 might otherwise be the one
// that the linker keeps for every processor.
#pragma once

#if defined(__CUDACC__)
#define ADJOINT_HD __host__ __device__
#else
#define ADJOINT_HD
#endif

#if defined(__GNUC__)
#define ADJOINT_INLINE ADJOINT_HD inline __attribute__((always_inline))
#else
#define ADJOINT_INLINE ADJOINT_HD inline
#endif

// In front of a loop whose iterations are independent, outputs that are inputs (in-place) included.
#if defined(__clang__)
#define ADJOINT_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define ADJOINT_INDEPENDENT _Pragma("GCC ivdep")
#endif
