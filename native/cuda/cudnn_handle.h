// cuDNN 9, loaded at run time: for files that end in _cudnn.cpp.
#pragma once
#include <cudnn.h>

#include <mutex>
#include <string>

#include "cuda/launch.h"
#include "cuda/library.h"

namespace adjoint::cuda {

// Loads cuDNN at the first call; where it can't, the library says why.
const Library& cudnnLibrary();
// "9.28.1"; cuDNN must be loaded.
std::string cudnnVersion();

// The current device's one handle, made at first use, on the stream that is asked for, one of it.
// Throws Error (device) where cuDNN is not there or refuses the device. A handle takes one thread
// at a time: lock cudnnMutex() around what uses it.
cudnnHandle_t cudnnHandle(cudaStream_t stream);
std::mutex& cudnnMutex();

}  // namespace adjoint::cuda
