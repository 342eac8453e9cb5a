import { expect } from 'vitest'
import type { DType } from '../../src/core/dtype.js'
import type { Tensor } from '../../src/index.js'
import { type FloatName, isFloat } from './reference.js'

/** 2^-p of a format with p bits of significand: half the distance of 1 to the next number. */
const roundoff: Record<FloatName, number> = {
  float64: 2 ** -53,
  float32: 2 ** -24,
  float16: 2 ** -11,
  bfloat16: 2 ** -8,
}

export const elements = (t: Tensor): number[] =>
  Array.from(t.dataSync() as ArrayLike<number | bigint>, Number)

/**
 * Compares a result with what the CPU computes in float64 from the same inputs: each element within
 * `roundings` roundings to the result's dtype, of itself or of what is typical for the tensor (sums
 * that cancel are no more exact than their terms). Integers, NaN and infinities must be the same.
 * @param from the dtype that it was computed from, where that is lower than its own
 */
export function expectWithin(
  got: Tensor,
  want: Tensor,
  roundings: number,
  what = '',
  from: FloatName = 'float64',
): void {
  expect(got.shape, what).toEqual(want.shape)
  const expected = elements(want)
  const dtype: DType = got.dtype
  if (!isFloat(dtype)) {
    expect(elements(got), what).toEqual(expected)
    return
  }
  const finite = expected.filter(Number.isFinite)
  const typical = Math.sqrt(finite.reduce((sum, x) => sum + x * x, 0) / Math.max(1, finite.length))
  elements(got).forEach((value, i) => {
    const exact = expected[i]
    if (Object.is(value, exact) || value === exact) return
    const precision = Math.max(roundoff[dtype], roundoff[from])
    const unit = precision * Math.max(Math.abs(exact), typical)
    const error = Math.abs(value - exact) / unit
    // Written so that NaN fails.
    if (!(error <= roundings)) {
      expect.fail(`${what} element ${i}: expected ${exact}, got ${value}: ${error} roundings away`)
    }
  })
}
