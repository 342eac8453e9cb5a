import { describe, expect, test } from 'vitest'
import { IndexError, logSoftmax, softmax, type Tensor, tensor, zeros } from '../../src/index.js'
import { expectClose, laidOut, layouts, sampled } from '../support/layouts.js'
import * as ref from '../support/reference.js'
import { Random } from '../support/sampler.js'
import { errorOf, values } from '../support/values.js'

const shapes = [[1], [7], [1031], [3, 5], [2, 3, 4], [33, 2], [2, 33], [1, 1, 9], [2, 0, 3], [0]]

/** A function of each line along an axis, for two arrays of one shape. */
function alongLines(
  x: ref.NdArray,
  w: ref.NdArray,
  axis: number,
  f: (x: number[], w: number[]) => number[],
): ref.NdArray {
  const outer = x.shape.map((size, a) => (a === axis ? 1 : size))
  const data = new Array<number>(x.data.length)
  for (const index of ref.indices(outer)) {
    const places = Array.from({ length: x.shape[axis] }, (_, k) =>
      index.reduce((p, i, a) => p * x.shape[a] + (a === axis ? k : i), 0),
    )
    const y = f(
      places.map((p) => x.data[p]),
      places.map((p) => w.data[p]),
    )
    places.forEach((p, k) => {
      data[p] = y[k]
    })
  }
  return { shape: x.shape, data }
}

function onLine(x: readonly number[], logarithm: boolean): number[] {
  const peak = Math.max(...x)
  const total = x.reduce((sum, v) => sum + Math.exp(v - peak), 0)
  return x.map((v) => (logarithm ? v - peak - Math.log(total) : Math.exp(v - peak) / total))
}

const reference = (x: ref.NdArray, axis: number, logarithm: boolean) =>
  alongLines(x, x, axis, (line) => onLine(line, logarithm))

/** The gradient of Σ w · softmax(x). */
const gradient = (x: ref.NdArray, w: ref.NdArray, axis: number, logarithm: boolean) =>
  alongLines(x, w, axis, (line, weights) => {
    const y = onLine(line, logarithm)
    const dot = weights.reduce((sum, v, k) => sum + v * (logarithm ? 1 : y[k]), 0)
    return y.map((v, k) => (logarithm ? weights[k] - Math.exp(v) * dot : v * (weights[k] - dot)))
  })

const near = (got: Tensor, want: ref.NdArray, tolerance: number, what: string) => {
  expect(got.shape, what).toEqual(want.shape)
  const wrong = values(got).filter(
    (v, i) => !(Math.abs(v - want.data[i]) <= tolerance * Math.max(1, Math.abs(want.data[i]))),
  )
  expect(wrong, what).toEqual([])
}

describe.each([
  ['softmax', softmax, false],
  ['logSoftmax', logSoftmax, true],
] as const)('%s', (_name, f, logarithm) => {
  test.each([
    ['float32', 4e-7],
    ['float64', 1e-14],
    ['float16', 6e-4],
    ['bfloat16', 4e-3],
  ] as const)('of %s, along every axis, in every layout, and its gradient', (dtype, tolerance) => {
    const random = new Random(1)
    for (const shape of shapes) {
      const x = sampled(shape, dtype, () => 4 * random.normal())
      const w = sampled(shape, dtype, () => random.normal())
      shape.forEach((_, axis) => {
        const [want, slopes] = [reference(x, axis, logarithm), gradient(x, w, axis, logarithm)]
        const scale = Math.max(1, ...w.data.map(Math.abs)) * (logarithm ? shape[axis] : 1)
        for (const layout of layouts) {
          const what = `[${shape}] along ${axis}, ${layout}`
          const t = laidOut(x, dtype, layout).detach().requiresGrad_()
          const y = f(t, axis)
          near(y, want, tolerance, what)
          y.backward(laidOut(w, dtype, layout))
          near(t.grad as Tensor, slopes, 4 * tolerance * scale, what)
        }
      })
    }
  })

  test('by default along the last axis; integers become float32', () => {
    const t = tensor([
      [1n, 2n],
      [3n, 3n],
    ])
    expect(f(t).dtype).toBe('float32')
    expect(values(f(t))).toEqual(values(f(t, 1)))
    expect(f(zeros([2, 0])).shape).toEqual([2, 0])
    expect(errorOf(IndexError, () => f(t, 2))).toMatch(/Softmax|softmax/)
  })

  test('rows far apart in size, and infinities', () => {
    const x = { shape: [3, 3], data: [1e4, 1e4 - 1, -1e4, -1e4, -1e4 - 1, -1e5, -Infinity, 0, 1] }
    const got = f(laidOut(x, 'float64', 'dense'), 1)
    expectClose(got, reference(x, 1, logarithm), 4)
  })
})
