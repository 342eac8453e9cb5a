import './methods.js'
import { binaryFunctions, unaryFunctions } from './arithmetic.js'

export {
  type EluOptions,
  elu,
  type LeakyReluOptions,
  leakyRelu,
  type SoftplusOptions,
  softplus,
} from './activations.js'
export { clamp, frac, gelu, isclose, type Operand } from './arithmetic.js'
export { type AttentionOptions, scaledDotProductAttention } from './attention.js'
export {
  type AdaptiveSize,
  type AvgPool2dOptions,
  adaptiveAvgPool2d,
  avgPool2d,
} from './average-pool2d.js'
export { type BatchNormOptions, batchNorm } from './batch-norm.js'
export { type Conv2dOptions, conv2d } from './conv2d.js'
export { cast, clone, contiguous } from './copy.js'
export * from './creation.js'
export { type CrossEntropyOptions, crossEntropy } from './cross-entropy.js'
export {
  type CudaExtent,
  type CudaKernel,
  type CudaKernelCall,
  type CudaKernelOutput,
  type CudaKernelSpec,
  cudaKernel,
} from './cuda-kernel.js'
export { type DropoutOptions, dropout } from './dropout.js'
export { type EmbeddingOptions, embedding } from './embedding.js'
export { type FeedForwardOptions, feedForward } from './feed-forward.js'
export {
  cat,
  gather,
  type IndexSpec,
  index,
  indexSelect,
  type Range,
  scatterAdd,
  stack,
} from './indexing.js'
export { type LayerNormOptions, layerNorm, type RmsNormOptions, rmsNorm } from './layer-norm.js'
export { type LinearOptions, linear } from './linear.js'
export {
  type BCEWithLogitsOptions,
  binaryCrossEntropyWithLogits,
  type ClassLossOptions,
  type LossOptions,
  l1Loss,
  mseLoss,
  nllLoss,
  type Reduction,
} from './losses.js'
export { matmul } from './matmul.js'
export type { TensorOptions } from './options.js'
export { type MaxPool2dOptions, maxPool2d, type PoolOptions } from './pool2d.js'
export { probeRates, type Rates } from './probe.js'
export {
  bernoulli,
  normal,
  type RandomOptions,
  rand,
  randint,
  randn,
  randperm,
  uniform,
} from './random.js'
export {
  type Axes,
  all,
  amax,
  amin,
  any,
  argmax,
  argmin,
  logSumExp,
  max,
  mean,
  min,
  norm,
  prod,
  type ReduceOptions,
  type SumOptions,
  std,
  sum,
  type ValuesAndIndices,
  type VarianceOptions,
  variance,
} from './reduce.js'
export { logSoftmax, softmax } from './softmax.js'
export type { Pair } from './spatial.js'
export { chunk, split, unbind } from './split.js'
export {
  expand,
  flatten,
  narrow,
  permute,
  reshape,
  select,
  slice,
  squeeze,
  t,
  transpose,
  unsqueeze,
  view,
} from './views.js'
export { where } from './where.js'

export const {
  neg,
  abs,
  sign,
  square,
  sqrt,
  rsqrt,
  reciprocal,
  exp,
  exp2,
  expm1,
  log,
  log2,
  log10,
  log1p,
  sin,
  cos,
  tan,
  asin,
  acos,
  atan,
  sinh,
  cosh,
  tanh,
  asinh,
  acosh,
  atanh,
  floor,
  ceil,
  round,
  trunc,
  erf,
  erfc,
  sigmoid,
  relu,
  silu,
  isnan,
  isinf,
  isfinite,
  logicalNot,
  bitwiseNot,
} = unaryFunctions

export const {
  add,
  sub,
  mul,
  div,
  floorDivide,
  remainder,
  fmod,
  pow,
  atan2,
  hypot,
  maximum,
  minimum,
  eq,
  ne,
  lt,
  le,
  gt,
  ge,
  logicalAnd,
  logicalOr,
  logicalXor,
  bitwiseAnd,
  bitwiseOr,
  bitwiseXor,
  shiftLeft,
  shiftRight,
} = binaryFunctions
