import { requiresGrad_ } from '../core/autograd.js'
import {
  type Device,
  type DeviceLike,
  defaultDevice,
  device as findDevice,
} from '../core/device.js'
import type { DType } from '../core/dtype.js'
import { checkOptions } from '../core/errors.js'
import type { Tensor } from '../core/tensor.js'

export interface TensorOptions {
  /** Default: float32, or what the values say. */
  dtype?: DType
  /** Default: the default device. */
  device?: DeviceLike
  /** Whether `backward` is to compute its gradient; default false. */
  requiresGrad?: boolean
}

/** Checks the options and says where the tensor goes. */
export function place(op: string, options: TensorOptions): Device {
  checkOptions(op, options)
  return options.device === undefined ? defaultDevice() : findDevice(options.device)
}

/** Makes it a leaf that requires a gradient, if asked to. */
export function finish(t: Tensor, options: TensorOptions): Tensor {
  return options.requiresGrad ? requiresGrad_(t) : t
}
