import { traceLeaks } from './core/leaks.js'

if (process.env.ADJOINT_TRACE_LEAKS === '1') traceLeaks()

export { type AutocastDType, autocast, autocastAsync } from './core/autocast.js'
export { type GradOptions, grad } from './core/autograd.js'
export type { BackwardOptions } from './core/backward.js'
export { type CapturedStep, type CaptureOptions, capture } from './core/capture.js'
export * as cuda from './core/cuda.js'
export { customFunction, FunctionContext, type FunctionSpec } from './core/custom-function.js'
export {
  areDeterministicAlgorithmsEnabled,
  useDeterministicAlgorithms,
} from './core/determinism.js'
export { Device, type DeviceLike, defaultDevice, device, setDefaultDevice } from './core/device.js'
export type { DType, FloatDType } from './core/dtype.js'
export { promoteTypes } from './core/dtype.js'
export {
  AdjointError,
  ArgumentError,
  AutogradError,
  CaptureError,
  DeviceError,
  DisposedError,
  DTypeError,
  FileError,
  IndexError,
  OutOfMemoryError,
  ShapeError,
} from './core/errors.js'
export {
  Generator,
  type GeneratorState,
  getRandomState,
  manualSeed,
  setRandomState,
} from './core/generator.js'
export {
  enableGrad,
  enableGradAsync,
  isGradEnabled,
  noGrad,
  noGradAsync,
} from './core/grad-mode.js'
export { type LeakSite, liveTensors } from './core/leaks.js'
export {
  collectGarbage,
  emptyCache,
  getNumThreads,
  type MemoryStats,
  memoryStats,
  setMemoryCap,
  setNumThreads,
  synchronize,
} from './core/memory.js'
export {
  getFloat32MatmulPrecision,
  type MatmulPrecision,
  setFloat32MatmulPrecision,
} from './core/precision.js'
export { Profile, profile, profileAsync } from './core/profile.js'
export {
  type MemoryUse,
  type OpTotal,
  type ProfiledCall,
  ProfileReport,
} from './core/profile-report.js'
export { keep, tidy } from './core/scope.js'
export type { Shape } from './core/shape.js'
export type { TensorHook } from './core/tape.js'
export { type NestedArray, Tensor, type TypedArray } from './core/tensor.js'
export * from './ops/index.js'
