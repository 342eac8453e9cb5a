import { adopt } from '../bindings/calls.js'
import { numberOpcodes, opcodes, type RandomOpcode } from '../bindings/opcodes.js'
import { requiresGrad_ } from '../core/autograd.js'
import {
  type Device,
  type DeviceLike,
  defaultDevice,
  device as findDevice,
} from '../core/device.js'
import { checkDType, type DType, isFloating } from '../core/dtype.js'
import { ArgumentError, DTypeError, describe, ShapeError } from '../core/errors.js'
import { type Generator, generatorId } from '../core/generator.js'
import { checkShape, numelOf, type Shape, showShape } from '../core/shape.js'
import { type NestedArray, Tensor } from '../core/tensor.js'
import { cast } from './copy.js'

export interface TensorOptions {
  /** Default: float32, or what the values say. */
  dtype?: DType
  /** Default: the default device. */
  device?: DeviceLike
  /** Whether `backward` is to compute its gradient; default false. */
  requiresGrad?: boolean
}

export interface RandomOptions extends TensorOptions {
  /** Default: the device's own, which `manualSeed` seeds. */
  generator?: Generator
}

function place(options: TensorOptions): Device {
  return options.device === undefined ? defaultDevice() : findDevice(options.device)
}

function finish(t: Tensor, options: TensorOptions): Tensor {
  return options.requiresGrad ? requiresGrad_(t) : t
}

/** The dtype of a typed array's elements, and the array as native code takes it. */
function fromTypedArray(array: NodeJS.TypedArray): { dtype: DType; array: NodeJS.TypedArray } {
  if (array instanceof Float32Array) return { dtype: 'float32', array }
  if (array instanceof Float64Array) return { dtype: 'float64', array }
  if (array instanceof BigInt64Array) return { dtype: 'int64', array }
  if (array instanceof Int32Array) return { dtype: 'int32', array }
  if (array instanceof Int16Array) return { dtype: 'int16', array }
  if (array instanceof Int8Array) return { dtype: 'int8', array }
  if (array instanceof Uint8Array) return { dtype: 'uint8', array }
  if (array instanceof Uint8ClampedArray) {
    return { dtype: 'uint8', array: new Uint8Array(array.buffer, array.byteOffset, array.length) }
  }
  throw new DTypeError(
    `tensor: expected a typed array of a tensor's dtype, got ${describe(array)}; convert it first`,
  )
}

interface Flat {
  readonly shape: number[]
  readonly dtype: DType
  readonly array: NodeJS.TypedArray
}

/** Nested arrays as one typed array: numbers float32, bigint int64, booleans bool. */
function flattenNested(values: NestedArray, dtype: DType | undefined): Flat {
  const shape: number[] = []
  for (let v: NestedArray = values; Array.isArray(v); v = v[0]) {
    shape.push(v.length)
    if (v.length === 0) break
  }
  checkShape('tensor', shape)
  const flat: (number | bigint | boolean)[] = []
  const visit = (v: NestedArray, depth: number): void => {
    if (depth === shape.length) {
      if (typeof v !== 'number' && typeof v !== 'bigint' && typeof v !== 'boolean') {
        throw new ShapeError(
          `tensor: expected numbers at depth ${depth}, as in the first row, got ${describe(v)}`,
        )
      }
      flat.push(v)
      return
    }
    if (!Array.isArray(v) || v.length !== shape[depth]) {
      const got = Array.isArray(v) ? `a row of ${v.length}` : describe(v)
      throw new ShapeError(`tensor: expected rows of ${shape[depth]}, got ${got}`)
    }
    for (const item of v) visit(item, depth + 1)
  }
  visit(values, 0)
  if (flat.every((v) => typeof v === 'boolean') && flat.length > 0) {
    return { shape, dtype: 'bool', array: Uint8Array.from(flat, Number) }
  }
  if (flat.some((v) => typeof v === 'bigint') || dtype === 'int64') {
    const whole = flat.map((v) => {
      if (typeof v === 'number' && !Number.isInteger(v)) {
        throw new DTypeError(`tensor: expected whole numbers for int64, got ${v}`)
      }
      return BigInt(v)
    })
    return { shape, dtype: 'int64', array: BigInt64Array.from(whole) }
  }
  const numbers = flat.map(Number)
  // Through float64, so that int32 and float64 keep every digit.
  return dtype !== undefined && dtype !== 'float32'
    ? { shape, dtype: 'float64', array: Float64Array.from(numbers) }
    : { shape, dtype: 'float32', array: Float32Array.from(numbers) }
}

/**
 * A tensor from nested arrays, a number, or a typed array (which is copied, and may come with a
 * shape). Numbers give float32, bigint int64, booleans bool, typed arrays their own dtype.
 */
export function tensor(
  values: NestedArray | NodeJS.TypedArray,
  options: TensorOptions & { shape?: Shape } = {},
): Tensor {
  const dtype = options.dtype === undefined ? undefined : checkDType('tensor', options.dtype)
  let flat: Flat
  if (ArrayBuffer.isView(values)) {
    if (values instanceof DataView)
      throw new DTypeError('tensor: expected a typed array, got a DataView')
    const typed = fromTypedArray(values as NodeJS.TypedArray)
    flat = { ...typed, shape: [typed.array.length] }
  } else {
    flat = flattenNested(values, dtype)
  }
  const shape = options.shape === undefined ? flat.shape : checkShape('tensor', options.shape)
  if (numelOf(shape) !== flat.array.length) {
    throw new ShapeError(
      `tensor: expected ${numelOf(shape)} elements for shape ${showShape(shape)}, got ` +
        `${flat.array.length}`,
    )
  }
  // uint8 is how JavaScript holds bool: any value but 0 is true.
  const device = place(options)
  const t = Tensor.pending(device, flat.dtype, shape)
  adopt(t, device.native.fromHost(flat.array, t.dtypeCode, t))
  return finish(dtype === undefined ? t : cast(t, dtype), options)
}

/** A tensor filled with one number; a bigint gives int64 and a boolean bool, unless told. */
export function full(
  shape: Shape,
  value: number | bigint | boolean,
  options: TensorOptions = {},
): Tensor {
  const natural = { number: 'float32', bigint: 'int64', boolean: 'bool' } as const
  const kind = natural[typeof value as keyof typeof natural]
  if (kind === undefined) {
    throw new ArgumentError(`full: expected a number, got ${describe(value)}`)
  }
  const device = place(options)
  const dtype = checkDType('full', options.dtype ?? kind)
  const t = Tensor.pending(device, dtype, checkShape('full', shape))
  const number = typeof value === 'boolean' ? Number(value) : value
  device.calls.begin('fill').operand(number).output(t).run()
  return finish(t, options)
}

/** Zeros. */
export function zeros(shape: Shape, options: TensorOptions = {}): Tensor {
  return full(shape, 0, options)
}

/** Ones. */
export function ones(shape: Shape, options: TensorOptions = {}): Tensor {
  return full(shape, 1, options)
}

/** Memory with undefined contents. */
export function empty(shape: Shape, options: TensorOptions = {}): Tensor {
  const dtype = checkDType('empty', options.dtype ?? 'float32')
  return finish(Tensor.reserve(place(options), dtype, checkShape('empty', shape)), options)
}

const like = (x: Tensor, options: TensorOptions): TensorOptions => ({
  dtype: x.dtype,
  device: x.device,
  ...options,
})

/** Zeros of a tensor's shape, dtype and device. */
export function zerosLike(x: Tensor, options: TensorOptions = {}): Tensor {
  return full(x.shape, 0, like(x, options))
}

export function onesLike(x: Tensor, options: TensorOptions = {}): Tensor {
  return full(x.shape, 1, like(x, options))
}

export function fullLike(
  x: Tensor,
  value: number | bigint | boolean,
  options: TensorOptions = {},
): Tensor {
  return full(x.shape, value, like(x, options))
}

export function emptyLike(x: Tensor, options: TensorOptions = {}): Tensor {
  return empty(x.shape, like(x, options))
}

/**
 * start, start + step, … up to but without `end`. With one argument, 0, 1, … below it. int64 if
 * all are whole numbers, else float32.
 */
export function arange(start: number, end?: number, step = 1, options: TensorOptions = {}): Tensor {
  const [from, to] = end === undefined ? [0, start] : [start, end]
  if (![from, to, step].every(Number.isFinite) || step === 0) {
    throw new ArgumentError(
      `arange: expected finite numbers and a step that is not 0, got ${from}, ${to}, ${step}`,
    )
  }
  const whole = [from, to, step].every(Number.isInteger)
  const dtype = checkDType('arange', options.dtype ?? (whole ? 'int64' : 'float32'))
  const count = Math.max(0, Math.ceil((to - from) / step))
  const device = place(options)
  const t = Tensor.pending(device, dtype, checkShape('arange', [count]))
  device.calls.begin('arange').operand(from).operand(step).output(t).run()
  return finish(t, options)
}

/** `count` numbers from `start` to `end`, both included, at equal distances. */
export function linspace(
  start: number,
  end: number,
  count: number,
  options: TensorOptions = {},
): Tensor {
  const dtype = checkDType('linspace', options.dtype ?? 'float32')
  if (!isFloating(dtype)) throw new DTypeError(`linspace: expected a floating dtype, got ${dtype}`)
  const [n] = checkShape('linspace', [count])
  const step = n > 1 ? (end - start) / (n - 1) : 0
  const values = Float64Array.from({ length: n }, (_, i) =>
    // from the nearer end, so that both are met exactly
    i < n / 2 ? start + i * step : end - (n - 1 - i) * step,
  )
  return finish(tensor(values, { dtype, device: place(options) }), options)
}

/** The identity matrix, or with `columns` a rectangle with ones on its diagonal. */
export function eye(rows: number, columns = rows, options: TensorOptions = {}): Tensor {
  const [m, n] = checkShape('eye', [rows, columns])
  const t = zeros([m, n], { ...options, requiresGrad: false })
  const diagonal = t.alias([Math.min(m, n)], [n + 1], 0)
  t.device.calls.begin('fill').operand(1).output(diagonal).run()
  diagonal.dispose()
  return finish(t, options)
}

const randomCodes = numberOpcodes(opcodes.random)

function random(
  op: RandomOpcode,
  shape: Shape,
  a: number,
  b: number,
  fallback: DType,
  options: RandomOptions,
): Tensor {
  const device = options.generator?.device ?? place(options)
  const dtype = checkDType(op, options.dtype ?? fallback)
  const t = Tensor.pending(device, dtype, checkShape(op, shape))
  const { calls } = device
  calls.begin('random').output(t).number(randomCodes[op]).number(a).number(b)
  calls.number(generatorId(options.generator, device)).run()
  return finish(t, options)
}

function floatOnly(op: string, options: RandomOptions): void {
  if (options.dtype !== undefined && !isFloating(checkDType(op, options.dtype))) {
    throw new DTypeError(`${op}: expected a floating dtype, got ${options.dtype}`)
  }
}

/** Uniform numbers in [0, 1). */
export function rand(shape: Shape, options: RandomOptions = {}): Tensor {
  floatOnly('rand', options)
  return random('uniform', shape, 0, 1, 'float32', options)
}

/** Standard normal numbers. */
export function randn(shape: Shape, options: RandomOptions = {}): Tensor {
  floatOnly('randn', options)
  return random('normal', shape, 0, 1, 'float32', options)
}

/** Uniform numbers in [low, high). */
export function uniform(
  shape: Shape,
  low: number,
  high: number,
  options: RandomOptions = {},
): Tensor {
  floatOnly('uniform', options)
  if (!(low <= high)) throw new ArgumentError(`uniform: expected low <= high, got ${low}, ${high}`)
  return random('uniform', shape, low, high, 'float32', options)
}

/** Normal numbers of a mean and a standard deviation. */
export function normal(
  shape: Shape,
  mean: number,
  std: number,
  options: RandomOptions = {},
): Tensor {
  floatOnly('normal', options)
  if (!(std >= 0)) throw new ArgumentError(`normal: expected a deviation of 0 or more, got ${std}`)
  return random('normal', shape, mean, std, 'float32', options)
}

/** Whole numbers from low to high - 1, int64 by default. */
export function randint(
  low: number,
  high: number,
  shape: Shape,
  options: RandomOptions = {},
): Tensor {
  if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high) || low >= high) {
    throw new ArgumentError(`randint: expected whole numbers low < high, got ${low}, ${high}`)
  }
  return random('randint', shape, low, high, 'int64', options)
}

/** 1 with probability p, else 0. */
export function bernoulli(shape: Shape, p: number, options: RandomOptions = {}): Tensor {
  if (!(p >= 0 && p <= 1)) throw new ArgumentError(`bernoulli: expected 0 <= p <= 1, got ${p}`)
  return random('bernoulli', shape, p, 0, 'float32', options)
}

/** The numbers 0 to n - 1 in random order, int64. */
export function randperm(n: number, options: RandomOptions = {}): Tensor {
  const device = options.generator?.device ?? place(options)
  const t = Tensor.pending(device, 'int64', checkShape('randperm', [n]))
  const { calls } = device
  calls.begin('randperm').output(t).number(generatorId(options.generator, device)).run()
  return options.dtype === undefined ? t : cast(t, checkDType('randperm', options.dtype))
}
