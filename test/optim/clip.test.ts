// Clipping of gradients, by value and by their norm.
import { describe, expect, test, vi } from 'vitest'
import { ArgumentError, type FloatDType, type Tensor, tensor, zeros } from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { clipGradNorm_, clipGradValue_ } from '../../src/optim/index.js'
import { errorOf, values } from '../support/values.js'

test('clipGradValue_ cuts; clipping without gradients does nothing', () => {
  const p = new nn.Parameter(zeros([3]))
  clipGradValue_([p], 1)
  expect(clipGradNorm_([p], 1).item()).toBe(0)
  p.grad = tensor([-3, 0.5, 2])
  clipGradValue_([p], 1)
  expect(values(p.grad)).toEqual([-1, 0.5, 1])
  p.grad = tensor([Number.NaN, 0, 0])
  errorOf(ArgumentError, () => clipGradNorm_([p], 1, { errorIfNonfinite: true }))
  expect(clipGradNorm_([p], 1).item()).toBeNaN()
})

describe('clipGradNorm_', () => {
  const data = [[3, -1, 0.5], [-2], [], [4, 0.25]]
  const withGrads = (dtypes: readonly FloatDType[]) =>
    data.map((d, i) => {
      const p = new nn.Parameter(zeros([d.length], { dtype: dtypes[i % dtypes.length] }))
      p.grad = tensor(d, { dtype: p.dtype })
      return p
    })

  test.each([1, 2, 3, 0.5, Number.POSITIVE_INFINITY])('of norm %d, by its formula', (normType) => {
    const all = data.flat().map(Math.abs)
    const sum = all.map((v) => v ** normType).reduce((a, b) => a + b)
    const want = normType === Number.POSITIVE_INFINITY ? Math.max(...all) : sum ** (1 / normType)
    for (const dtypes of [['float32'], ['float64'], ['float64', 'float32']] as const) {
      const params = withGrads(dtypes)
      expect(clipGradNorm_(params, 2 * want, { normType }).item()).toBeCloseTo(want, 4)
      expect(params.flatMap((p) => values(p.grad as Tensor))).toEqual(data.flat())
      expect(clipGradNorm_(params, want / 2, { normType }).item()).toBeCloseTo(want, 4)
      params
        .flatMap((p) => values(p.grad as Tensor))
        .forEach((v, i) => void expect(v).toBeCloseTo(data.flat()[i] / 2, 5))
    }
  })

  test('takes two native calls however many gradients there are', () => {
    const params = withGrads(['float32'])
    const begin = vi.spyOn(params[0].device.calls, 'begin')
    clipGradNorm_(params, 1)
    expect(begin.mock.calls.flat()).toEqual(['totalNorm', 'clipToNorm'])
    begin.mockRestore()
  })

  test('takes gradients of any layout, and each once', () => {
    const p = new nn.Parameter(zeros([2, 2]))
    p.grad = tensor([
      [3, 0],
      [4, 0],
    ]).t()
    expect(p.grad.isContiguous).toBe(false)
    const { version } = p.grad
    expect(clipGradNorm_([p, p], 1).item()).toBe(5)
    values(p.grad).forEach((v, i) => void expect(v).toBeCloseTo([0.6, 0.8, 0, 0][i], 6))
    expect(p.grad.version).toBeGreaterThan(version)
  })

  // As PyTorch: x / inf is 0, and NaN where x is infinite itself; a NaN reaches everything.
  test.each([1, 2, 3, Number.POSITIVE_INFINITY])('of what is not finite, norm %d', (normType) => {
    for (const odd of [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN]) {
      const params = withGrads(['float32'])
      params[0].grad = tensor([1, odd, 2])
      const refused = () => clipGradNorm_(params, 1, { normType, errorIfNonfinite: true })
      expect(refused).toThrow(
        /clipGradNorm_: expected gradients of a finite norm, got (Infinity|NaN)/,
      )
      expect(values(params[3].grad as Tensor)).toEqual(data[3])
      const total = clipGradNorm_(params, 1, { normType }).item()
      expect(total).toBe(Number.isNaN(odd) ? Number.NaN : Number.POSITIVE_INFINITY)
      const rest = Number.isNaN(odd) ? Number.NaN : 0
      expect(values(params[0].grad as Tensor)).toEqual([rest, Number.NaN, rest])
      expect(values(params[3].grad as Tensor)).toEqual([rest, rest])
    }
  })
})
