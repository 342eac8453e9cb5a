import type { DeviceLike } from '../core/device.js'
import type { FloatDType } from '../core/dtype.js'
import { ArgumentError, describe } from '../core/errors.js'
import { empty, type TensorOptions } from '../ops/index.js'
import { kaimingUniform_, uniform_ } from './init.js'
import { Parameter } from './parameter.js'

/** Of every layer with parameters. */
export interface LayerOptions {
  /** Of the parameters; default float32. */
  dtype?: FloatDType
  /** Of the parameters; default: the default device. */
  device?: DeviceLike
}

/** What of a layer's options a new tensor takes. */
export function placement({ dtype, device }: LayerOptions): TensorOptions {
  return { dtype, device }
}

/** A size of a layer. */
export function checkSize(layer: string, name: string, value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 1) {
    throw new ArgumentError(`${layer}: expected ${name} of 1 or more, got ${describe(value)}`)
  }
  return value as number
}

/** Weights [out, in, ..], uniform in ±1 / √fanIn: PyTorch's default, kaimingUniform with a = √5. */
export function defaultWeight(shape: readonly number[], options: LayerOptions): Parameter {
  const weight = new Parameter(empty(shape, placement(options)))
  kaimingUniform_(weight, { a: Math.sqrt(5) })
  return weight
}

/** The bias of such weights, uniform in ±1 / √fanIn. */
export function defaultBias(size: number, fanIn: number, options: LayerOptions): Parameter {
  const bias = new Parameter(empty([size], placement(options)))
  const bound = 1 / Math.sqrt(fanIn)
  uniform_(bias, -bound, bound)
  return bias
}

/** `in=1, out=2` from fields, as layers print themselves. */
export function listFields(fields: Readonly<Record<string, unknown>>): string {
  const show = (value: unknown) =>
    Array.isArray(value)
      ? `[${value.join(', ')}]`
      : typeof value === 'string'
        ? `'${value}'`
        : value
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${show(value)}`)
    .join(', ')
}
