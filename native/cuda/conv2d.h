// The seam to convolutions: conv2d_cudnn.cpp calls NVIDIA's library,
// native/emulation/conv2d_host.cpp computes on the host. What the library lacks or refuses,
// conv2d_direct.cu computes.
#pragma once
#include <cstdint>
#include <string>

#include "contract.h"
#include "cuda/launch.h"

namespace adjoint::cuda {

enum class Conv2dOp { forward, backwardInput, backwardWeight };

// Four axes: images [N, C, H, W], filters [K, C / groups, R, S]. Strides are in elements.
struct Conv2dTensor {
  void* data;
  int64_t size[4], stride[4];
};

// y = conv2d(x, w) (+ bias, rectified), or dx (in x) from dy (in y) and w, or dw (in w) from dy (in
// y) and x. All of one floating dtype, summed in float32, or float64 where dtype is.
struct Conv2d {
  Conv2dOp op;
  DType dtype;
  backend::Conv2dShape shape;
  bool channelsLast;  // of all three tensors
  Conv2dTensor x, w, y;
  const void* bias;  // dense [K], or nullptr; forward alone
  bool relu;         // forward alone
  bool tf32;         // float32 may be multiplied as TF32
};

// The library and its version, or why there is none.
std::string convolutionLibrary();

// Whether it is there, for this device.
bool hasConvolutionLibrary();

// Whether the library takes this convolution of dense tensors, all of sizes of 1 or more, all in
// the order of the axes or all with the channels last. The tensors' memory need not be there yet.
bool libraryTakes(const Conv2d& c);
// Queues what libraryTakes.
void convolveByLibrary(const Conv2d& c, cudaStream_t stream);

// Queues it for any strides and sizes; channelsLast counts for nothing.
void convolveDirectly(const Conv2d& c, cudaStream_t stream);

}  // namespace adjoint::cuda
