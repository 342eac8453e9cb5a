// Steps of optimizers over contiguous elements, for each stored floating-point type.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace adjoint::cpu {

struct SgdStep {
  double lr, momentum, dampening, weightDecay;
  bool nesterov, maximize, isFirst;  // isFirst: the momentum buffer becomes the gradient
};
// stepSize = lr / (1 - beta1^t), rootCorrection = sqrt(1 - beta2^t); decay multiplies the parameter
// (decoupled), weightDecay times the parameter is added to the gradient (L2).
struct AdamStep {
  double stepSize, beta1, beta2, eps, rootCorrection, decay, weightDecay;
  bool maximize;
};

struct OptimizerKernels {
  // momentum: nullptr for none
  void (*sgd)(void* param, const void* grad, void* momentum, int64_t n, const SgdStep& step);
  // vMax: nullptr for no amsgrad
  void (*adam)(void* param, const void* grad, void* m, void* v, void* vMax, int64_t n,
               const AdamStep& step);
  // grad = factor grad; whether all elements were finite before
  bool (*unscale)(void* grad, int64_t n, double factor);
};

struct OptimizerTable {
  OptimizerKernels byDType[4];  // float32, float64, bfloat16, float16
};

}  // namespace adjoint::cpu

ADJOINT_KERNEL_TABLE(OptimizerTable, optimizerTable)
