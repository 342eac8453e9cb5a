/**
 * An independent model of the library's numbers: arrays of float64 (or bigint) values, loops over
 * every index, no strides, nothing of the library. What an op must return is computed here and then
 * rounded once to the dtype.
 */
import type { DType } from '../../src/index.js'

export type Num = number | bigint

/** A row-major array. */
export interface NdArray<T extends Num = number> {
  readonly shape: readonly number[]
  readonly data: readonly T[]
}

export const count = (shape: readonly number[]) => shape.reduce((n, size) => n * size, 1)

/** All indices of a shape in row-major order. */
export function* indices(shape: readonly number[]): Generator<number[]> {
  if (shape.includes(0)) return
  const at = shape.map(() => 0)
  for (;;) {
    yield [...at]
    let axis = shape.length - 1
    while (axis >= 0 && ++at[axis] === shape[axis]) at[axis--] = 0
    if (axis < 0) return
  }
}

/** The element at an index; axes of size 1 and missing leading axes are repeated. */
export function at<T extends Num>(x: NdArray<T>, index: readonly number[]): T {
  const lead = index.length - x.shape.length
  let position = 0
  x.shape.forEach((size, axis) => {
    position = position * size + (size === 1 ? 0 : index[lead + axis])
  })
  return x.data[position]
}

export function build<T extends Num>(
  shape: readonly number[],
  element: (index: number[]) => T,
): NdArray<T> {
  return { shape, data: [...indices(shape)].map(element) }
}

export function broadcast(a: readonly number[], b: readonly number[]): number[] {
  const ndim = Math.max(a.length, b.length)
  return Array.from({ length: ndim }, (_, i) => {
    const x = a[a.length - ndim + i] ?? 1
    const y = b[b.length - ndim + i] ?? 1
    return x === 1 ? y : x
  })
}

// ---------------------------------------------------------------- formats
interface FloatFormat {
  /** Bits of the significand, the hidden one included. */
  readonly precision: number
  /** Exponents of the smallest normal and of the largest number. */
  readonly low: number
  readonly high: number
}

export const floatFormats = {
  float32: { precision: 24, low: -126, high: 127 },
  float64: { precision: 53, low: -1022, high: 1023 },
  bfloat16: { precision: 8, low: -126, high: 127 },
  float16: { precision: 11, low: -14, high: 15 },
} as const satisfies Partial<Record<DType, FloatFormat>>

export const integerFormats = {
  int64: { bits: 64, signed: true },
  int32: { bits: 32, signed: true },
  int16: { bits: 16, signed: true },
  int8: { bits: 8, signed: true },
  uint8: { bits: 8, signed: false },
} as const

export type FloatName = keyof typeof floatFormats
export type IntegerName = keyof typeof integerFormats
export const isFloat = (dtype: DType): dtype is FloatName => dtype in floatFormats
export const isInteger = (dtype: DType): dtype is IntegerName => dtype in integerFormats

/** The distance between neighbours of a format at x. */
export function ulp(dtype: FloatName, x: number): number {
  const { precision, low } = floatFormats[dtype]
  if (x === 0) return 2 ** Math.max(low - precision + 1, -1074)
  let exponent = Math.floor(Math.log2(Math.abs(x)))
  if (2 ** exponent > Math.abs(x)) exponent--
  return 2 ** Math.max(Math.max(exponent, low) - precision + 1, -1074)
}

/** Round to nearest, ties to even, into a format; beyond its largest number: infinity. */
export function roundTo(dtype: FloatName, x: number): number {
  if (dtype === 'float64' || x === 0 || !Number.isFinite(x)) return x
  const { precision, high } = floatFormats[dtype]
  const unit = ulp(dtype, x)
  const scaled = x / unit
  const floor = Math.floor(scaled)
  const rest = scaled - floor
  const up = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0)
  const rounded = (up ? floor + 1 : floor) * unit
  const largest = (2 - 2 ** (1 - precision)) * 2 ** high
  if (Math.abs(rounded) > largest) return Math.sign(x) * Infinity
  return rounded === 0 ? Math.sign(x) * 0 : rounded
}

/** Two's complement: what does not fit wraps around. */
export function wrap(dtype: IntegerName, x: bigint): bigint {
  const { bits, signed } = integerFormats[dtype]
  return signed ? BigInt.asIntN(bits, x) : BigInt.asUintN(bits, x)
}

/** A value of one dtype in another: floats are cut and held to the range, NaN becomes 0. */
export function convert(x: Num, to: DType): Num {
  if (to === 'bool') return Number(x) !== 0 ? 1 : 0
  // int64 reaches the half types through float32, as the kernels compute them
  if (isFloat(to)) {
    if (typeof x === 'bigint' && to !== 'float64') return roundTo(to, roundBigInt(x))
    return roundTo(to, Number(x))
  }
  const name = to as IntegerName
  if (typeof x === 'bigint') return wrap(name, x)
  const { bits, signed } = integerFormats[name]
  const high = signed ? 2n ** BigInt(bits - 1) - 1n : 2n ** BigInt(bits) - 1n
  const low = signed ? -(2n ** BigInt(bits - 1)) : 0n
  if (Number.isNaN(x)) return 0n
  if (x >= Number(high)) return high
  if (x <= Number(low)) return low
  return BigInt(Math.trunc(x))
}

/** An integer as float32, rounded once. */
function roundBigInt(x: bigint): number {
  const magnitude = x < 0n ? -x : x
  const excess = BigInt(Math.max(0, magnitude.toString(2).length - 24))
  const floor = magnitude >> excess
  const rest = magnitude - (floor << excess)
  const half = excess > 0n ? 1n << (excess - 1n) : 1n
  const up = rest > half || (rest === half && excess > 0n && floor % 2n === 1n)
  const rounded = Number((up ? floor + 1n : floor) << excess)
  return x < 0n ? -rounded : rounded
}

// ---------------------------------------------------------------- functions
/** e^(-x²): the rounding of x² would cost x² units of the last place. */
function gaussian(x: number): number {
  const high = Math.fround(x)
  return Math.exp(-high * high) * Math.exp(-(x - high) * (x + high))
}

/** erf and erfc: the series without cancellation near 0, the continued fraction in the tail. */
export function erfc(x: number): number {
  if (Number.isNaN(x)) return x
  if (x < 0.5) return 1 - erf(x)
  if (x > 28) return 0
  // e^(-x²) / (x √π) · 1 / (1 + q/(1 + 2q/(1 + …))), q = 1 / (2x²), from the inside
  let fraction = 0
  for (let k = x < 2 ? 4000 : 400; k >= 1; k--) fraction = k / 2 / (x + fraction)
  return gaussian(x) / Math.sqrt(Math.PI) / (x + fraction)
}

export function erf(x: number): number {
  if (Number.isNaN(x)) return x
  if (Math.abs(x) >= 1) return x < 0 ? erfc(-x) - 1 : 1 - erfc(x)
  // 2/√π e^(-x²) Σ 2ⁿ x²ⁿ⁺¹ / (1·3·…·(2n+1))
  let term = x
  let total = x
  for (let n = 1; n < 60; n++) {
    term *= (2 * x * x) / (2 * n + 1)
    total += term
  }
  return (2 / Math.sqrt(Math.PI)) * gaussian(x) * total
}

export const sigmoid = (x: number) => 1 / (1 + Math.exp(-x))

/** Half to even. */
export function roundEven(x: number): number {
  const floor = Math.floor(x)
  const rest = x - floor
  if (rest === 0 || !Number.isFinite(x)) return x
  const up = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0)
  const y = up ? floor + 1 : floor
  return y === 0 && x < 0 ? -0 : y
}

/** The remainder with the sign of the divisor. */
export function remainder(a: number, b: number): number {
  const r = a % b
  return r !== 0 && r < 0 !== b < 0 ? r + b : r
}
