import { describe, expect, test } from 'vitest'
import { manualSeed, type Tensor, zeros } from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { readGolden } from '../support/golden.js'
import { values } from '../support/values.js'

describe('initialisation', () => {
  const { gains } = (readGolden('nn.json') as { module: { gains: Record<string, number> } }).module

  test('gains are those of PyTorch', () => {
    for (const [name, gain] of Object.entries(gains)) {
      const slope = name === 'leakyRelu' ? Math.sqrt(5) : undefined
      expect(nn.init.calculateGain(name as nn.init.Nonlinearity, slope)).toBeCloseTo(gain, 14)
    }
  })

  /** Uniform in ±bound, by its extremes and its mean square bound² / 3. */
  function expectUniform(t: Tensor, bound: number): void {
    const v = values(t)
    const largest = Math.max(...v.map(Math.abs))
    expect(largest).toBeLessThanOrEqual(bound * (1 + 1e-6))
    expect(largest).toBeGreaterThan(bound * (1 - 20 / v.length))
    const square = v.reduce((s, a) => s + a * a, 0) / v.length
    expect(Math.abs(square / (bound * bound) - 1 / 3)).toBeLessThan((4 * 0.3) / Math.sqrt(v.length))
  }

  /** Normal of a deviation, within four deviations of its estimate. */
  function expectNormal(t: Tensor, deviation: number): void {
    const n = t.numel
    const d = t.std().item()
    expect(Math.abs(d / deviation - 1)).toBeLessThan(4 / Math.sqrt(2 * n))
    expect(Math.abs(t.mean().item())).toBeLessThan((4 * deviation) / Math.sqrt(n))
  }

  test('layers start in ±1 / √fanIn', () => {
    manualSeed(11)
    const linear = new nn.Linear(50, 400)
    expectUniform(linear.weight, 1 / Math.sqrt(50))
    expectUniform(linear.bias as Tensor, 1 / Math.sqrt(50))
    const conv = new nn.Conv2d(8, 300, [3, 5], { groups: 2 })
    expectUniform(conv.weight, 1 / Math.sqrt(4 * 15))
    expectUniform(conv.bias as Tensor, 1 / Math.sqrt(4 * 15))
    const norm = new nn.BatchNorm2d(3)
    expect([...values(norm.weight), ...values(norm.bias)]).toEqual([1, 1, 1, 0, 0, 0])
    manualSeed(11)
    expect(values(new nn.Linear(50, 400).weight)).toEqual(values(linear.weight))
  })

  test('the functions', () => {
    manualSeed(5)
    const t = () => new nn.Parameter(zeros([100, 40, 3, 2]))
    const [fanIn, fanOut] = [240, 600]
    expectUniform(nn.init.kaimingUniform_(t()), Math.sqrt(6 / fanIn))
    expectUniform(
      nn.init.kaimingUniform_(t(), { mode: 'fanOut', nonlinearity: 'relu' }),
      Math.sqrt(6 / fanOut),
    )
    expectNormal(nn.init.kaimingNormal_(t(), { nonlinearity: 'tanh' }), 5 / 3 / Math.sqrt(fanIn))
    expectUniform(nn.init.xavierUniform_(t(), 2), 2 * Math.sqrt(6 / (fanIn + fanOut)))
    expectNormal(nn.init.xavierNormal_(t()), Math.sqrt(2 / (fanIn + fanOut)))
    expectNormal(nn.init.normal_(t(), 0, 0.02), 0.02)
    expectUniform(nn.init.uniform_(t(), -0.5, 0.5), 0.5)
    const cut = nn.init.truncNormal_(t(), 0, 1, -1, 2)
    expect(cut.amin().item()).toBeGreaterThanOrEqual(-1)
    expect(cut.amax().item()).toBeLessThanOrEqual(2)
    // Mean of a standard normal on [-1, 2]: (φ(-1) - φ(2)) / (Φ(2) - Φ(-1))
    expect(cut.mean().item()).toBeCloseTo((0.24197072 - 0.05399097) / (0.97724987 - 0.15865525), 1)
    // The same in [2, 2.5], where hardly any normal number lies.
    const tail = nn.init.truncNormal_(zeros([50_000]), 0, 1, 2, 2.5)
    expect(tail.amin().item()).toBeGreaterThanOrEqual(2)
    expect(tail.amax().item()).toBeLessThanOrEqual(2.5)
    expect(tail.mean().item()).toBeCloseTo((0.05399097 - 0.0175283) / (0.99379033 - 0.97724987), 2)
    // A deviation without bounds is that of uniform numbers.
    const even = nn.init.truncNormal_(zeros([50_000]), 0, 1e30, -1, 1)
    expect(even.square().mean().item()).toBeCloseTo(1 / 3, 1)
    expect(new Set(values(nn.init.constant_(t(), 3)))).toEqual(new Set([3]))
    expect(values(nn.init.eye_(zeros([2, 3])))).toEqual([1, 0, 0, 0, 1, 0])
    const p = nn.init.ones_(nn.init.zeros_(t()))
    expect(p.requiresGrad && p.isLeaf).toBe(true)
  })

  test.each([
    [[4, 7], 1],
    [[7, 4], 2],
    [[5, 2, 3], 1],
  ] as const)('orthogonal_ of %o with gain %s', (shape, gain) => {
    const t = nn.init.orthogonal_(zeros(shape, { dtype: 'float64' }), gain)
    const m = t.reshape([shape[0], -1])
    const product = m.shape[0] < m.shape[1] ? m.matmul(m.t()) : m.t().matmul(m)
    const n = product.shape[0]
    const identity = Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? gain * gain : 0))
    values(product).forEach((v, i) => {
      expect(v).toBeCloseTo(identity[i], 12)
    })
  })
})
