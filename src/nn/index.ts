export {
  Dropout,
  ELU,
  Flatten,
  GELU,
  Identity,
  LeakyReLU,
  LogSoftmax,
  ReLU,
  Sigmoid,
  SiLU,
  Softmax,
  Softplus,
  Tanh,
} from './activations.js'
export { ModuleList, Sequential } from './containers.js'
export { Conv2d, type Conv2dOptions } from './conv.js'
export { Embedding, type EmbeddingOptions } from './embedding.js'
export * as functional from './functional.js'
export type { ForwardHook, ForwardPreHook } from './hooks.js'
export * as init from './init.js'
export type { LayerOptions } from './layer-options.js'
export { Linear, type LinearOptions } from './linear.js'
export { BCEWithLogitsLoss, CrossEntropyLoss, L1Loss, MSELoss, NLLLoss } from './losses.js'
export { type BufferOptions, type Layer, Module, type ModuleTarget } from './module.js'
export {
  BatchNorm1d,
  BatchNorm2d,
  type BatchNormOptions,
  LayerNorm,
  type LayerNormOptions,
  RMSNorm,
  type RMSNormOptions,
} from './norm.js'
export { Parameter } from './parameter.js'
export { AdaptiveAvgPool2d, AvgPool2d, MaxPool2d, type MaxPool2dOptions } from './pooling.js'
export { GRU, LSTM, type RecurrentOptions } from './recurrent.js'
export { GRUCell, LSTMCell, type RecurrentCellOptions } from './recurrent-cells.js'
export type { LoadResult, StateDict } from './state-dict.js'
