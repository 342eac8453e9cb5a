import { describe, expect, test, vi } from 'vitest'
import { conv2d, manualSeed, randn, type Tensor } from '../../src/index.js'
import { values } from '../support/values.js'

/** The kernels that `body` calls on the device of `x`. */
function kernelsOf(x: Tensor, body: () => void): string[] {
  const begin = vi.spyOn(x.device.calls, 'begin')
  try {
    body()
    return begin.mock.calls.map(([kernel]) => String(kernel))
  } finally {
    begin.mockRestore()
  }
}

describe('conv2d', () => {
  test('no gradient is computed for an input that needs none', () => {
    const x = randn([2, 3, 8, 8])
    const w = randn([4, 3, 3, 3]).requiresGrad_()
    const y = conv2d(x, w, null, { padding: 1 }).sum()
    const kernels = kernelsOf(x, () => y.backward())
    expect(kernels).toContain('conv2dBackwardWeight')
    expect(kernels).not.toContain('conv2dBackwardInput')

    const images = randn([2, 3, 8, 8]).requiresGrad_()
    const z = conv2d(images, w.detach(), null, { padding: 1 }).sum()
    const others = kernelsOf(x, () => z.backward())
    expect(others).toContain('conv2dBackwardInput')
    expect(others).not.toContain('conv2dBackwardWeight')
  })

  // Wide enough for the short form in float32; float64 takes the direct one.
  test('float32 agrees with float64 where Winograd’s form is taken', () => {
    manualSeed(1)
    const operands = [randn([6, 32, 15, 13]), randn([48, 32, 3, 3]), randn([48])]
    const run = (dtype: 'float32' | 'float64'): Tensor[] => {
      const [x, w, bias] = operands.map((t) => t.to(dtype).requiresGrad_())
      const y = conv2d(x, w, bias, { padding: 1 })
      y.mul(y).sum().backward()
      return [y, x.grad as Tensor, w.grad as Tensor, bias.grad as Tensor]
    }
    const expected = run('float64').map(values)
    run('float32').forEach((got, i) => {
      const scale = Math.max(...expected[i].map(Math.abs))
      const errors = values(got).map((v, j) => Math.abs(v - expected[i][j]))
      expect(Math.max(...errors), `result ${i}`).toBeLessThan(3e-6 * scale)
    })
  })

  describe.each([[true], [false]])(
    'with an activation, gradient of the images %s',
    (needsImages) => {
      test.each([
        { shape: [3, 1, 9, 8], filters: [5, 1, 3, 3], options: {} },
        { shape: [2, 32, 16, 16], filters: [32, 32, 3, 3], options: { padding: 1 } },
        { shape: [2, 4, 9, 8], filters: [6, 2, 2, 3], options: { stride: 2, groups: 2 } },
        { shape: [2, 4, 7, 7], filters: [4, 1, 3, 3], options: { padding: 'same', groups: 4 } },
        { shape: [2, 6, 5, 5], filters: [3, 6, 1, 1], options: {} },
      ] as const)('is the convolution and then ReLU: $shape, $filters', (row) => {
        manualSeed(4)
        const data = [randn(row.shape), randn(row.filters), randn([row.filters[0]])]
        const run = (fused: boolean): Tensor[] => {
          const [x, w, bias] = data.map((t, i) => t.detach().requiresGrad_(i > 0 || needsImages))
          const y = fused
            ? conv2d(x, w, bias, { ...row.options, activation: 'relu' })
            : conv2d(x, w, bias, row.options).relu()
          y.mul(y.detach()).sum().backward()
          return [
            y,
            w.grad as Tensor,
            bias.grad as Tensor,
            ...(needsImages ? [x.grad as Tensor] : []),
          ]
        }
        const expected = run(false).map(values)
        run(true).forEach((got, i) => {
          const scale = Math.max(...expected[i].map(Math.abs))
          const errors = values(got).map((v, j) => Math.abs(v - expected[i][j]))
          expect(Math.max(...errors), `result ${i}`).toBeLessThan(2e-6 * scale)
        })
      })
    },
  )

  test('NaN passes the activation, and its gradient is not masked', () => {
    const x = randn([1, 1, 3, 3])
    const w = randn([2, 1, 3, 3]).fill_(Number.NaN).requiresGrad_()
    const y = conv2d(x, w, null, { activation: 'relu' })
    expect(values(y)).toEqual([Number.NaN, Number.NaN])
    y.sum().backward()
    expect(values(w.grad).slice(0, 9)).toEqual(values(x))
  })
})
