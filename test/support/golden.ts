import { readFileSync } from 'node:fs'
import path from 'node:path'
import { expect } from 'vitest'
import { type Tensor, tensor } from '../../src/index.js'
import { root } from './run.js'
import { values } from './values.js'

/** A tensor as the scripts beside the golden files write it; float64 unless it says int64. */
export interface Packed {
  readonly shape: readonly number[]
  readonly dtype?: 'int64'
  readonly data: readonly number[]
}

/** Reads test/golden/<name>. */
export function readGolden(name: string): unknown {
  return JSON.parse(readFileSync(path.join(root, 'test', 'golden', name), 'utf8'))
}

export function unpack({ shape, dtype, data }: Packed): Tensor {
  const array = dtype ? BigInt64Array.from(data, BigInt) : Float64Array.from(data)
  return tensor(array, { shape })
}

/** Within `tolerance` of the larger of 1 and the golden value's size; NaN never is. */
export function expectGolden(t: Tensor | null, golden: Packed, tolerance = 1e-10): void {
  if (t === null) throw new Error('expected a tensor, got null')
  expect(t.shape).toEqual(golden.shape)
  const wrong = values(t).filter((v, i) => {
    const expected = golden.data[i]
    return !(Math.abs(v - expected) <= tolerance * Math.max(1, Math.abs(expected)))
  })
  expect(wrong, `of ${values(t)} against ${golden.data}`).toEqual([])
}
