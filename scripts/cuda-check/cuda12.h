// Read before each file of `cuda12.mjs`: are these the headers that it means?
#include <cuda_runtime_api.h>
#if CUDART_VERSION < 12000 || CUDART_VERSION >= 13000
#error "expected the headers of CUDA 12"
#endif
