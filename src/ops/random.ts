import { numberOpcodes, opcodes, type RandomOpcode } from '../bindings/opcodes.js'
import type { Device } from '../core/device.js'
import { checkDType, type DType, isFloating } from '../core/dtype.js'
import { ArgumentError, DeviceError, DTypeError, describe } from '../core/errors.js'
import { Generator, generatorId } from '../core/generator.js'
import { checkShape, type Shape } from '../core/shape.js'
import { Tensor } from '../core/tensor.js'
import { cast } from './copy.js'
import { finish, place, type TensorOptions } from './options.js'

export interface RandomOptions extends TensorOptions {
  /** Default: the device's own, which `manualSeed` seeds. */
  generator?: Generator
}

const randomCodes = numberOpcodes(opcodes.random)

/** Checks the options and says where the numbers are drawn: where a given generator lives. */
function placeRandom(op: string, options: RandomOptions): Device {
  const device = place(op, options)
  const { generator } = options
  if (generator === undefined) return device
  if (!(generator instanceof Generator)) {
    throw new ArgumentError(`${op}: expected a Generator, got ${describe(generator)}`)
  }
  if (options.device === undefined || generator.device === device) return generator.device
  throw new DeviceError(`${op}: expected a generator on ${device}, got one on ${generator.device}`)
}

interface Distribution {
  readonly op: RandomOpcode
  readonly a: number
  readonly b: number
  readonly fallback: DType
}

function random(name: string, shape: Shape, d: Distribution, options: RandomOptions): Tensor {
  const device = placeRandom(name, options)
  const dtype = checkDType(name, options.dtype ?? d.fallback)
  if (d.fallback === 'float32' && d.op !== 'bernoulli' && !isFloating(dtype)) {
    throw new DTypeError(`${name}: expected a floating dtype, got ${dtype}`)
  }
  const t = Tensor.pending(device, dtype, checkShape(name, shape))
  const { calls } = device
  calls.begin('random').output(t).number(randomCodes[d.op]).number(d.a).number(d.b)
  calls.number(generatorId(options.generator, device)).run()
  return finish(t, options)
}

/** Uniform numbers in [0, 1). */
export function rand(shape: Shape, options: RandomOptions = {}): Tensor {
  return random('rand', shape, { op: 'uniform', a: 0, b: 1, fallback: 'float32' }, options)
}

/** Standard normal numbers. */
export function randn(shape: Shape, options: RandomOptions = {}): Tensor {
  return random('randn', shape, { op: 'normal', a: 0, b: 1, fallback: 'float32' }, options)
}

/** Uniform numbers in [low, high). */
export function uniform(
  shape: Shape,
  low: number,
  high: number,
  options: RandomOptions = {},
): Tensor {
  if (!Number.isFinite(low) || !Number.isFinite(high) || low > high) {
    throw new ArgumentError(`uniform: expected low <= high, got ${describe([low, high])}`)
  }
  return random('uniform', shape, { op: 'uniform', a: low, b: high, fallback: 'float32' }, options)
}

/** Normal numbers of a mean and a standard deviation. */
export function normal(
  shape: Shape,
  mean: number,
  std: number,
  options: RandomOptions = {},
): Tensor {
  if (!Number.isFinite(mean) || !Number.isFinite(std) || std < 0) {
    throw new ArgumentError(
      `normal: expected a mean and a deviation of 0 or more, got ${describe([mean, std])}`,
    )
  }
  return random('normal', shape, { op: 'normal', a: mean, b: std, fallback: 'float32' }, options)
}

/** Whole numbers from low to high - 1, int64 by default. */
export function randint(
  low: number,
  high: number,
  shape: Shape,
  options: RandomOptions = {},
): Tensor {
  if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high) || low >= high) {
    throw new ArgumentError(
      `randint: expected whole numbers low < high, got ${describe([low, high])}`,
    )
  }
  return random('randint', shape, { op: 'randint', a: low, b: high, fallback: 'int64' }, options)
}

/** 1 with probability p, else 0. */
export function bernoulli(shape: Shape, p: number, options: RandomOptions = {}): Tensor {
  if (typeof p !== 'number' || !(p >= 0 && p <= 1)) {
    throw new ArgumentError(`bernoulli: expected 0 <= p <= 1, got ${describe(p)}`)
  }
  return random('bernoulli', shape, { op: 'bernoulli', a: p, b: 0, fallback: 'float32' }, options)
}

/** The numbers 0 to n - 1 in random order, int64. */
export function randperm(n: number, options: RandomOptions = {}): Tensor {
  const device = placeRandom('randperm', options)
  const t = Tensor.pending(device, 'int64', checkShape('randperm', [n]))
  const { calls } = device
  calls.begin('randperm').output(t).number(generatorId(options.generator, device)).run()
  const values = options.dtype === undefined ? t : cast(t, checkDType('randperm', options.dtype))
  return finish(values, options)
}
