// In place of the driver, libcuda.so.1, for tests that plan without a device: cuDNN loads it and
// looks these functions up. Each fails, but those that load code: engines that compile theirs load
// it as soon as it is planned. Linked into such tests alone.
extern "C" {

#define ADJOINT_DRIVER_FUNCTION(name)                 \
  __attribute__((visibility("default"))) int name() { \
    return 100; /* CUDA_ERROR_NO_DEVICE */            \
  }
// clang-format off
#define ADJOINT_DRIVER_FUNCTIONS(X)                                                              \
  X(cuInit) X(cuDriverGetVersion) X(cuGetErrorName) X(cuGetErrorString) X(cuGetProcAddress)      \
  X(cuGetProcAddress_v2) X(cuDeviceGet) X(cuDeviceGetCount) X(cuDeviceGetName)                   \
  X(cuDeviceGetAttribute) X(cuDeviceTotalMem_v2) X(cuDevicePrimaryCtxRetain)                     \
  X(cuDevicePrimaryCtxRelease_v2) X(cuCtxGetCurrent) X(cuCtxSetCurrent) X(cuCtxGetDevice)        \
  X(cuCtxGetLimit) X(cuCtxPushCurrent) X(cuCtxPushCurrent_v2) X(cuCtxPopCurrent)                 \
  X(cuCtxPopCurrent_v2) X(cuCtxSynchronize) X(cuModuleLoad) X(cuModuleLoadData)                  \
  X(cuModuleLoadDataEx) X(cuModuleUnload) X(cuModuleGetFunction) X(cuModuleGetGlobal_v2)         \
   X(cuLibraryLoadFromFile)           \
  X(cuLibraryGetModule)  X(cuKernelGetAttribute)    \
  X(cuLinkCreate) X(cuLinkAddData) X(cuLinkComplete) X(cuLinkDestroy) X(cuFuncGetAttribute)      \
  X(cuFuncSetAttribute) X(cuLaunchKernel) X(cuLaunchKernelEx) X(cuLaunchCooperativeKernel)       \
  X(cuTensorMapEncodeTiled) X(cuTensorMapEncodeIm2col) X(cuStreamGetCtx) X(cuStreamIsCapturing)  \
  X(cuOccupancyMaxActiveBlocksPerMultiprocessor) X(cuOccupancyMaxActiveClusters)                 \
  X(cuOccupancyMaxPotentialClusterSize) X(cuMemsetD8Async) X(cuMemcpyAsync)                      \
  X(cuPointerGetAttribute)
// clang-format on
ADJOINT_DRIVER_FUNCTIONS(ADJOINT_DRIVER_FUNCTION)

#define ADJOINT_DRIVER_LOADER(name)                                \
  __attribute__((visibility("default"))) int name(void** handle) { \
    static int loaded;                                             \
    *handle = &loaded;                                             \
    return 0;                                                      \
  }
ADJOINT_DRIVER_LOADER(cuLibraryLoadData)
ADJOINT_DRIVER_LOADER(cuLibraryGetKernel)
ADJOINT_DRIVER_LOADER(cuKernelGetFunction)
__attribute__((visibility("default"))) int cuLibraryUnload() {
  return 0;
}
__attribute__((visibility("default"))) int cuKernelSetAttribute() {
  return 0;
}

}  // extern "C"
