import { adopt } from '../bindings/calls.js'
import { checkBigInt, checkDType, type DType, isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe, ShapeError } from '../core/errors.js'
import { checkShape, MAX_DIMS, numelOf, type Shape, showShape } from '../core/shape.js'
import { checkTensor, type NestedArray, Tensor } from '../core/tensor.js'
import { cast } from './copy.js'
import { finish, place, type TensorOptions } from './options.js'

/** The dtype of a typed array's elements, and the array as native code takes it. */
function fromTypedArray(array: NodeJS.TypedArray): { dtype: DType; array: NodeJS.TypedArray } {
  if (array.length === 0) checkAttached(array.buffer)
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

/** A detached buffer looks like an empty one until a view of it is made. */
function checkAttached(buffer: ArrayBufferLike): void {
  try {
    new Uint8Array(buffer)
  } catch {
    throw new ArgumentError('tensor: expected an array with a buffer, got a detached one')
  }
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
    if (v.length === 0 || shape.length > MAX_DIMS) break
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
      return checkBigInt('tensor', BigInt(v))
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
  const device = place('tensor', options)
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
  const t = Tensor.pending(device, flat.dtype, shape)
  adopt(t, device.native.fromHost(flat.array, t.dtypeCode, t))
  return finish(dtype === undefined ? t : cast(t, dtype), options)
}

function filled(
  op: string,
  shape: Shape,
  value: number | bigint | boolean,
  options: TensorOptions,
): Tensor {
  const device = place(op, options)
  const natural = { number: 'float32', bigint: 'int64', boolean: 'bool' } as const
  const kind = natural[typeof value as keyof typeof natural]
  if (kind === undefined) {
    throw new ArgumentError(`${op}: expected a number, got ${describe(value)}`)
  }
  if (typeof value === 'bigint') checkBigInt(op, value)
  const dtype = checkDType(op, options.dtype ?? kind)
  const t = Tensor.pending(device, dtype, checkShape(op, shape))
  const number = typeof value === 'boolean' ? Number(value) : value
  device.calls.begin('fill').operand(number).output(t).run()
  return finish(t, options)
}

/** A tensor filled with one number; a bigint gives int64 and a boolean bool, unless told. */
export function full(
  shape: Shape,
  value: number | bigint | boolean,
  options: TensorOptions = {},
): Tensor {
  return filled('full', shape, value, options)
}

/** Zeros. */
export function zeros(shape: Shape, options: TensorOptions = {}): Tensor {
  return filled('zeros', shape, 0, options)
}

/** Ones. */
export function ones(shape: Shape, options: TensorOptions = {}): Tensor {
  return filled('ones', shape, 1, options)
}

/** Memory with undefined contents. */
export function empty(shape: Shape, options: TensorOptions = {}): Tensor {
  return reserved('empty', shape, options)
}

function reserved(op: string, shape: Shape, options: TensorOptions): Tensor {
  const device = place(op, options)
  const dtype = checkDType(op, options.dtype ?? 'float32')
  return finish(Tensor.reserve(device, dtype, checkShape(op, shape)), options)
}

function like(op: string, x: Tensor, options: TensorOptions): TensorOptions {
  checkTensor(op, x)
  checkOptions(op, options)
  return { dtype: x.dtype, device: x.device, ...options }
}

/** Zeros of a tensor's shape, dtype and device. */
export function zerosLike(x: Tensor, options: TensorOptions = {}): Tensor {
  const all = like('zerosLike', x, options)
  return filled('zerosLike', x.shape, 0, all)
}

/** Ones of a tensor's shape, dtype and device. */
export function onesLike(x: Tensor, options: TensorOptions = {}): Tensor {
  const all = like('onesLike', x, options)
  return filled('onesLike', x.shape, 1, all)
}

/** A tensor of another's shape, dtype and device, filled with one number. */
export function fullLike(
  x: Tensor,
  value: number | bigint | boolean,
  options: TensorOptions = {},
): Tensor {
  const all = like('fullLike', x, options)
  return filled('fullLike', x.shape, value, all)
}

/** Memory with undefined contents, of a tensor's shape, dtype and device. */
export function emptyLike(x: Tensor, options: TensorOptions = {}): Tensor {
  const all = like('emptyLike', x, options)
  return reserved('emptyLike', x.shape, all)
}

/**
 * start, start + step, … up to but without `end`. With one argument, 0, 1, … below it. int64 if
 * all are whole numbers, else float32.
 */
export function arange(start: number, end?: number, step = 1, options: TensorOptions = {}): Tensor {
  const device = place('arange', options)
  const [from, to] = end === undefined ? [0, start] : [start, end]
  const numbers = [from, to, step]
  if (!numbers.every(Number.isFinite) || step === 0) {
    throw new ArgumentError(
      `arange: expected finite numbers and a step that is not 0, got ${describe(numbers)}`,
    )
  }
  const whole = numbers.every(Number.isInteger)
  const dtype = checkDType('arange', options.dtype ?? (whole ? 'int64' : 'float32'))
  const count = Math.max(0, Math.ceil((to - from) / step))
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
  const device = place('linspace', options)
  const dtype = checkDType('linspace', options.dtype ?? 'float32')
  if (!isFloating(dtype)) throw new DTypeError(`linspace: expected a floating dtype, got ${dtype}`)
  if (!Number.isFinite(start) || !Number.isFinite(end)) {
    throw new ArgumentError(`linspace: expected two finite numbers, got ${describe([start, end])}`)
  }
  const [n] = checkShape('linspace', [count])
  const step = n > 1 ? (end - start) / (n - 1) : 0
  const t = Tensor.reserve(device, dtype, [n])
  // Each half from its own end, so that both are met exactly.
  const half = Math.ceil(n / 2)
  const halves = [
    { first: start, length: half, offset: 0 },
    { first: end - (n - 1 - half) * step, length: n - half, offset: half },
  ]
  for (const { first, length, offset } of halves) {
    const part = t.alias([length], [1], offset)
    device.calls.begin('arange').operand(first).operand(step).output(part).run()
    part.dispose()
  }
  return finish(t, options)
}

/** The identity matrix, or with `columns` a rectangle with ones on its diagonal. */
export function eye(rows: number, columns = rows, options: TensorOptions = {}): Tensor {
  checkOptions('eye', options)
  const [m, n] = checkShape('eye', [rows, columns])
  const t = filled('eye', [m, n], 0, { ...options, requiresGrad: false })
  const diagonal = t.alias([Math.min(m, n)], [n + 1], 0)
  t.device.calls.begin('fill').operand(1).output(diagonal).run()
  diagonal.dispose()
  return finish(t, options)
}
