import { expect } from 'vitest'
import { type DType, type Tensor, tensor } from '../../src/index.js'
import {
  count,
  type FloatName,
  isFloat,
  type NdArray,
  type Num,
  roundTo,
  ulp,
} from './reference.js'
import type { Random } from './sampler.js'

/** Shapes at which loops go wrong: none, one, odd, longer than a vector, empty in the middle. */
export const shapes: readonly (readonly number[])[] = [
  [],
  [0],
  [1],
  [7],
  [131],
  [3, 5],
  [2, 0, 3],
  [1, 9, 1],
  [2, 3, 2, 3],
]

/** Ways to lay the elements of one array out in memory. */
export type Layout = 'dense' | 'permuted' | 'stepped' | 'offset'
export const layouts: readonly Layout[] = ['dense', 'permuted', 'stepped', 'offset']

function host(data: readonly Num[]): Float64Array | BigInt64Array {
  return typeof data[0] === 'bigint'
    ? BigInt64Array.from(data as readonly bigint[])
    : Float64Array.from(data as readonly number[])
}

export function dense(x: NdArray<Num>, dtype: DType): Tensor {
  return tensor(host(x.data), { shape: x.shape, dtype })
}

/** A tensor with the elements of x, stored so. */
export function laidOut(x: NdArray<Num>, dtype: DType, layout: Layout): Tensor {
  const ndim = x.shape.length
  if (layout === 'dense' || ndim === 0) return dense(x, dtype)
  const zero = typeof x.data[0] === 'bigint' ? 0n : 0
  if (layout === 'permuted') {
    const reversed = x.shape.map((_, axis) => ndim - 1 - axis)
    return dense(x, dtype).permute(reversed).clone().permute(reversed)
  }
  if (layout === 'offset') {
    const padded = [zero, zero, zero, ...x.data]
    return tensor(host(padded), { dtype }).slice(0, 3).view(x.shape)
  }
  // every other element of the last axis
  const spread = x.data.flatMap((v) => [zero, v])
  const shape = [...x.shape.slice(0, -1), 2 * x.shape[ndim - 1]]
  return tensor(host(spread), { shape, dtype }).slice(-1, 1, null, 2)
}

/** Values of a shape, rounded to a float format, so that both sides start from the same numbers. */
export function sampled(
  shape: readonly number[],
  dtype: DType,
  next: (i: number) => number,
): NdArray {
  const data = Array.from({ length: count(shape) }, (_, i) => next(i))
  return { shape, data: isFloat(dtype) ? data.map((v) => roundTo(dtype, v)) : data }
}

export function integers(
  shape: readonly number[],
  random: Random,
  low: number,
  high: number,
): NdArray<bigint> {
  const data = Array.from({ length: count(shape) }, () => BigInt(random.integer(low, high)))
  return { shape, data }
}

/** What is special about floating point, within a format. */
export function specialValues(dtype: FloatName): number[] {
  const tiny = ulp(dtype, 0)
  const normal = { float32: 2 ** -126, float64: 2 ** -1022, bfloat16: 2 ** -126, float16: 2 ** -14 }
  const large = { float32: 3.4e38, float64: 1.79e308, bfloat16: 3.38e38, float16: 65504 }
  const positive = [0, tiny, 3 * tiny, normal[dtype], 0.5, 1, 1.5, 2.5, large[dtype], Infinity]
  return [NaN, ...positive, ...positive.map((v) => -v)].map((v) => roundTo(dtype, v))
}

const flatten = (t: Tensor) => Array.from(t.dataSync() as ArrayLike<Num>)

/**
 * Compares a float result with what exact arithmetic gives: at most `ulps` units of the dtype's
 * last place away, special values as they are.
 */
export function expectClose(got: Tensor, want: NdArray, ulps: number, what = ''): void {
  const dtype = got.dtype as FloatName
  expect(got.shape, what).toEqual(want.shape)
  const exact = want.data
  flatten(got).forEach((g, i) => {
    const value = Number(g)
    const rounded = roundTo(dtype, exact[i])
    // Reads -0 as 0: only tests of signs ask for it.
    if (value === rounded || (Number.isNaN(value) && Number.isNaN(rounded))) return
    const finite = Number.isFinite(value) && Number.isFinite(exact[i])
    const distance = finite ? Math.abs(value - exact[i]) / ulp(dtype, exact[i]) : Infinity
    if (distance > ulps) {
      expect.fail(`${what} element ${i}: expected ${exact[i]}, got ${value}: ${distance} ulps away`)
    }
  })
}

/** Compares integers, booleans or exactly rounded floats. */
export function expectExact(got: Tensor, want: NdArray<Num>, what = ''): void {
  expect(got.shape, what).toEqual(want.shape)
  expect(flatten(got).map(Number), what).toEqual(want.data.map(Number))
}
