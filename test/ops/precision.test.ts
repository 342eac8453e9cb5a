import { afterEach, describe, expect, it } from 'vitest'
import {
  ArgumentError,
  autocast,
  defaultDevice,
  getFloat32MatmulPrecision,
  linear,
  type MatmulPrecision,
  manualSeed,
  matmul,
  randn,
  setFloat32MatmulPrecision,
  type Tensor,
  tensor,
} from '../../src/index.js'
import { values } from '../support/values.js'

afterEach(() => setFloat32MatmulPrecision('highest'))

/** The greatest and the root mean square error of a b, in units of Σ |a| |b|. */
function errors(a: Tensor, b: Tensor, y: Tensor): { greatest: number; rms: number } {
  const [left, right] = [a.to('float64'), b.to('float64')]
  const exact = values(matmul(left, right))
  const scale = values(matmul(left.abs(), right.abs()))
  const relative = values(y).map((v, i) => Math.abs(v - exact[i]) / scale[i])
  const squares = relative.reduce((sum, e) => sum + e * e, 0)
  return { greatest: Math.max(...relative), rms: Math.sqrt(squares / relative.length) }
}

/**
 * Bounds of the greatest error. float32 sums run over at most 1024 products at a time, each step
 * within 2^-24. Rounding to bfloat16 is within 2^-8, and of a rest x - bfloat16(x) within 2^-16: two
 * rests are rounded and their product is dropped. docs/precision.md has what this test measured. On
 * a GPU `high` rounds both operands to TF32, within 2^-11.
 */
const isTf32 = defaultDevice().type === 'cuda'
const sums = 1024 * 2 ** -24
const bounds: Record<MatmulPrecision | 'autocast', number> = {
  highest: sums,
  high: (isTf32 ? 2.01 * 2 ** -11 : 3 * 2 ** -16) + sums,
  medium: 2.01 * 2 ** -8 + sums,
  autocast: 3.01 * 2 ** -8 + sums,
}
/** Roundings are independent, so the root mean square stays far below. */
const typical: typeof bounds = {
  highest: 1e-6,
  high: isTf32 ? 3e-4 : 3e-6,
  medium: 1e-3,
  autocast: 2e-3,
}

describe('setFloat32MatmulPrecision', () => {
  const report = process.env.ADJOINT_PRINT_ERRORS === '1'
  for (const k of [64, 512, 4096]) {
    for (const kind of ['normal', 'positive'] as const) {
      it(`keeps each mode within its bound of float64: ${kind} operands, depth ${k}`, () => {
        manualSeed(1)
        const make = (shape: number[]) => (kind === 'normal' ? randn(shape) : randn(shape).abs())
        const [a, b] = [make([48, k]), make([k, 80])]
        for (const mode of Object.keys(bounds) as (keyof typeof bounds)[]) {
          if (mode !== 'autocast') setFloat32MatmulPrecision(mode)
          const y = mode === 'autocast' ? autocast('bfloat16', () => matmul(a, b)) : matmul(a, b)
          const { greatest, rms } = errors(a, b, y)
          if (report) console.log(kind, k, mode, greatest.toExponential(1), rms.toExponential(1))
          expect(greatest, mode).toBeLessThan(bounds[mode])
          expect(rms, mode).toBeLessThan(typical[mode])
          setFloat32MatmulPrecision('highest')
        }
      })
    }
  }

  it('holds in every layout, with bias, and for the gradients', () => {
    const [x, w, b] = [randn([33, 70]), randn([21, 70]), randn([21])]
    const exact = values(linear(x.to('float64'), w.to('float64'), b.to('float64')))
    setFloat32MatmulPrecision('high')
    const tolerance = isTf32 ? 0.03 : 1e-3
    const y = linear(x, w.requiresGrad_(), b)
    expect(y.dtype).toBe('float32')
    values(y).forEach((v, i) => {
      expect(Math.abs(v - exact[i])).toBeLessThan(tolerance)
    })
    y.backward(x.narrow(1, 0, 21))
    const dy = x.narrow(1, 0, 21).to('float64')
    const expected = values(matmul(dy.t(), x.to('float64')))
    values(w.grad as Tensor).forEach((v, i) => {
      expect(Math.abs(v - expected[i])).toBeLessThan(tolerance)
    })
  })

  it('leaves infinities and NaN where they belong', () => {
    const a = tensor([
      [1, Number.POSITIVE_INFINITY],
      [3.4e38, 1],
      [1, Number.NaN],
    ])
    const b = tensor([[1], [1]])
    for (const mode of ['highest', 'high'] as const) {
      setFloat32MatmulPrecision(mode)
      const [infinite, large, nan] = values(matmul(a, b))
      expect(infinite).toBe(Number.POSITIVE_INFINITY)
      expect(large).toBe(Math.fround(3.4e38))
      expect(nan).toBeNaN()
    }
  })

  it('leaves float64 alone and can be asked for', () => {
    setFloat32MatmulPrecision('medium')
    expect(getFloat32MatmulPrecision()).toBe('medium')
    const a = tensor([[1 + 2 ** -30]], { dtype: 'float64' })
    expect(matmul(a, a).item()).toBe((1 + 2 ** -30) ** 2)
    expect(() => setFloat32MatmulPrecision('low' as 'high')).toThrow(ArgumentError)
  })
})
