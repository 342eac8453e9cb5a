import { describe, expect, test } from 'vitest'
import { Generator, manualSeed, ones, randn, type Tensor, tensor, zeros } from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { gradcheck, gradcheckTwice } from '../support/gradcheck.js'
import { Random, SeededSampler } from '../support/sampler.js'
import { values } from '../support/values.js'

const F = nn.functional

/** Largest |a - b|. */
function distance(t: Tensor, expected: ArrayLike<number>): number {
  const got = values(t)
  expect(got).toHaveLength(expected.length)
  return Math.max(0, ...got.map((v, i) => Math.abs(v - expected[i])))
}

interface Conv {
  readonly x: readonly [n: number, c: number, h: number, w: number]
  readonly k: number
  readonly r: number
  readonly s: number
  readonly stride: number
  readonly pad: number
  readonly dilation: number
  readonly groups: number
}

/** Seven loops. */
function naiveConv(c: Conv, x: Float64Array, w: Float64Array): Float64Array {
  const [n, channels, height, width] = c.x
  const inside = channels / c.groups
  const size = (length: number, window: number) =>
    Math.floor((length + 2 * c.pad - c.dilation * (window - 1) - 1) / c.stride) + 1
  const [p, q] = [size(height, c.r), size(width, c.s)]
  const y = new Float64Array(n * c.k * p * q)
  for (let i = 0; i < y.length; i++) {
    const [column, row] = [i % q, Math.floor(i / q) % p]
    const [filter, image] = [Math.floor(i / (q * p)) % c.k, Math.floor(i / (q * p * c.k))]
    const group = Math.floor(filter / (c.k / c.groups))
    for (let channel = 0; channel < inside; channel++) {
      for (let dr = 0; dr < c.r; dr++) {
        for (let ds = 0; ds < c.s; ds++) {
          const h = row * c.stride + dr * c.dilation - c.pad
          const v = column * c.stride + ds * c.dilation - c.pad
          if (h < 0 || h >= height || v < 0 || v >= width) continue
          const from = ((image * channels + group * inside + channel) * height + h) * width + v
          y[i] += x[from] * w[((filter * inside + channel) * c.r + dr) * c.s + ds]
        }
      }
    }
  }
  return y
}

describe('convolution', () => {
  const conv: Conv = {
    x: [2, 3, 9, 8],
    k: 4,
    r: 3,
    s: 3,
    stride: 1,
    pad: 1,
    dilation: 1,
    groups: 1,
  }
  const cases: Conv[] = [
    conv,
    { ...conv, stride: 2, pad: 0 },
    { ...conv, r: 1, s: 1, pad: 0 },
    { ...conv, r: 2, s: 5, stride: 3, pad: 4 },
    { ...conv, dilation: 3, pad: 3 },
    { ...conv, x: [3, 6, 5, 7], k: 6, groups: 6 },
    { ...conv, x: [1, 4, 5, 7], k: 6, groups: 2, stride: 2 },
    { ...conv, x: [1, 33, 4, 4], k: 17 },
    { ...conv, x: [0, 3, 9, 8] },
  ]
  test.each(cases)('agrees with seven loops in float64: %o', (c) => {
    const random = new Random(5)
    const x = random.normals(c.x.reduce((a, b) => a * b))
    const inside = c.x[1] / c.groups
    const w = random.normals(c.k * inside * c.r * c.s)
    const expected = naiveConv(c, x, w)
    for (const [dtype, tolerance] of [
      ['float64', 1e-12],
      ['float32', 3e-5],
    ] as const) {
      const y = F.conv2d(
        tensor(x, { shape: c.x, dtype }),
        tensor(w, { shape: [c.k, inside, c.r, c.s], dtype }),
        null,
        { stride: c.stride, padding: c.pad, dilation: c.dilation, groups: c.groups },
      )
      expect(distance(y, expected)).toBeLessThanOrEqual(tolerance)
    }
  })

  test('the layer adds its bias, takes views, and drops the batch axis of one image', () => {
    const layer = new nn.Conv2d(2, 3, [2, 3], { padding: 'same', dtype: 'float64' })
    const x = randn([5, 4, 2, 3], { dtype: 'float64' }).permute([3, 2, 1, 0])
    const y = layer.forward(x)
    expect(y.shape).toEqual([3, 3, 4, 5])
    const dense = layer.forward(x.contiguous())
    expect(distance(y, values(dense))).toBeLessThan(1e-12)
    expect(distance(layer.forward(x.select(0, 1)), values(dense.select(0, 1)))).toBeLessThan(1e-12)
    gradcheck(([a]) => [layer.forward(a)], [x])
  })
})

describe('batch norm', () => {
  test('running averages, counts and evaluation', () => {
    const norm = new nn.BatchNorm2d(2, { dtype: 'float64', momentum: 0.25 })
    const x = randn([4, 2, 3, 3], { dtype: 'float64' }).mul(3).add(1)
    const y = norm.forward(x)
    const mean = x.mean([0, 2, 3])
    const variance = x.var([0, 2, 3])
    expect(distance(norm.runningMean as Tensor, values(mean.mul(0.25)))).toBeLessThan(1e-12)
    expect(distance(norm.runningVar as Tensor, values(variance.mul(0.25).add(0.75)))).toBeLessThan(
      1e-12,
    )
    expect(norm.numBatchesTracked?.item()).toBe(1)
    expect(distance(y.mean([0, 2, 3]), [0, 0])).toBeLessThan(1e-12)
    norm.eval()
    const still = values(norm.runningMean)
    const expected = x
      .sub((norm.runningMean as Tensor).reshape([1, 2, 1, 1]))
      .div((norm.runningVar as Tensor).add(1e-5).sqrt().reshape([1, 2, 1, 1]))
    expect(distance(norm.forward(x), values(expected))).toBeLessThan(1e-12)
    expect(values(norm.runningMean)).toEqual(still)
    expect(norm.numBatchesTracked?.item()).toBe(1)
    norm.resetRunningStats()
    expect([...values(norm.runningMean), ...values(norm.runningVar)]).toEqual([0, 0, 1, 1])
  })

  test('momentum null is the mean over all batches', () => {
    const norm = new nn.BatchNorm1d(1, { momentum: null, dtype: 'float64' })
    const batches = [tensor([[1], [3]]), tensor([[5], [9]]), tensor([[0], [2]])]
    for (const batch of batches) norm.forward(batch.double())
    expect(norm.runningMean?.item()).toBeCloseTo((2 + 7 + 1) / 3, 12)
    expect(norm.runningVar?.item()).toBeCloseTo((2 + 8 + 2) / 3, 12)
  })

  test('without averages, batches are used in evaluation too', () => {
    const norm = new nn.BatchNorm1d(2, { trackRunningStats: false })
    norm.eval()
    expect(distance(norm.forward(randn([50, 2])).mean(0), [0, 0])).toBeLessThan(1e-6)
    expect(Object.keys(norm.stateDict())).toEqual(['weight', 'bias'])
  })

  test('half precision keeps its statistics in float32', () => {
    const norm = new nn.BatchNorm2d(2)
    const x = randn([4, 2, 5, 5])
    const y = norm.forward(x.bfloat16())
    expect(y.dtype).toBe('bfloat16')
    expect(distance(y.float(), values(new nn.BatchNorm2d(2).forward(x)))).toBeLessThan(0.03)
    expect(norm.eval().forward(x.bfloat16()).dtype).toBe('bfloat16')
  })
})

describe('layer norm and RMS norm', () => {
  test('rows have mean 0 and variance 1, also of views', () => {
    const x = randn([5, 4, 6], { dtype: 'float64' }).mul(3).add(1).permute([2, 0, 1])
    const y = new nn.LayerNorm([5, 4], { dtype: 'float64', eps: 0 }).forward(x)
    expect(y.shape).toEqual([6, 5, 4])
    expect(distance(y.mean([1, 2]), Array(6).fill(0))).toBeLessThan(1e-12)
    expect(distance(y.square().mean([1, 2]), Array(6).fill(1))).toBeLessThan(1e-12)
    const scaled = new nn.RMSNorm(4, { dtype: 'float64' }).forward(x)
    expect(distance(scaled.square().mean(-1), Array(30).fill(1))).toBeLessThan(1e-12)
  })

  test('half precision keeps its statistics in float32', () => {
    const x = randn([40, 33])
    for (const norm of [new nn.LayerNorm(33), new nn.RMSNorm(33)]) {
      const [y, half] = [norm.forward(x), norm.forward(x.bfloat16())]
      expect(half.dtype).toBe('bfloat16')
      expect(distance(half.float(), values(y))).toBeLessThan(0.03)
    }
  })

  test('a gradient that is expanded, and no rows at all', () => {
    const norm = new nn.LayerNorm(3, { dtype: 'float64' })
    const x = randn([7, 3], { dtype: 'float64', requiresGrad: true })
    norm.forward(x).sum().backward()
    // Σ dx over a row is 0, and so is dx where all of dy are equal.
    expect(distance(x.grad as Tensor, Array(21).fill(0))).toBeLessThan(1e-12)
    expect(values(norm.bias?.grad as Tensor)).toEqual([7, 7, 7])
    norm.zeroGrad()
    const empty = norm.forward(ones([0, 3], { dtype: 'float64', requiresGrad: true }))
    expect(empty.shape).toEqual([0, 3])
    empty.sum().backward()
    expect(values(norm.weight?.grad as Tensor)).toEqual([0, 0, 0])
  })
})

describe('embedding', () => {
  test('starts standard normal, with 0 for the padding', () => {
    manualSeed(4)
    const layer = new nn.Embedding(400, 50, { paddingIdx: -1, dtype: 'float64' })
    const learned = layer.weight.slice(0, 0, 399)
    // four deviations of the mean of 19,950 numbers: 4 / √19,950
    expect(Math.abs(learned.mean().item())).toBeLessThan(0.0284)
    expect(Math.abs(learned.std().item() - 1)).toBeLessThan(0.02)
    expect(values(layer.weight.select(0, 399))).toEqual(Array(50).fill(0))
    expect(String(layer)).toContain('paddingIdx=399')
  })

  test('indices of any shape, layout and integer dtype', () => {
    const layer = new nn.Embedding(5, 2)
    const index = tensor([
      [0n, 4n],
      [1n, 1n],
      [3n, 2n],
    ])
    const y = layer.forward(index.t())
    expect(y.shape).toEqual([2, 3, 2])
    expect(values(y)).toEqual(values(layer.weight.index(tensor([0n, 1n, 3n, 4n, 1n, 2n]))))
    expect(values(layer.forward(index.int().t()))).toEqual(values(y))
    expect(layer.forward(zeros([0, 3], { dtype: 'int64' })).shape).toEqual([0, 3, 2])
    expect(() => layer.forward(tensor([5n])).dataSync()).toThrow(
      'embedding: expected indices in [0, 5), got 5',
    )
  })
})

describe('activations', () => {
  test('modules are their functions', () => {
    const x = tensor([-3, -0.5, 0, 0.5, 3], { dtype: 'float64' })
    const pairs: [Tensor, Tensor][] = [
      [new nn.ELU({ alpha: 0.3 }).forward(x), F.elu(x, { alpha: 0.3 })],
      [new nn.LeakyReLU({ negativeSlope: 0.2 }).forward(x), F.leakyRelu(x, { negativeSlope: 0.2 })],
      [new nn.Softplus({ beta: 2 }).forward(x), F.softplus(x, { beta: 2 })],
      [new nn.GELU({ approximate: 'tanh' }).forward(x), F.gelu(x, { approximate: 'tanh' })],
    ]
    for (const [a, b] of pairs) expect(values(a)).toEqual(values(b))
    expect(String(new nn.ELU())).toContain('alpha=1')
  })

  test('at 0 and at the infinities, with gradients, as PyTorch', () => {
    const infinity = Number.POSITIVE_INFINITY
    const check = (f: (x: Tensor) => Tensor, y: number[], dx: number[]) => {
      const x = tensor([-infinity, 0, infinity], { requiresGrad: true })
      const result = f(x)
      result.sum().backward()
      expect(values(result)).toEqual(y)
      expect(values(x.grad)).toEqual(dx)
    }
    check((x) => F.elu(x, { alpha: 2 }), [-2, 0, infinity], [0, 2, 1])
    check((x) => F.leakyRelu(x, { negativeSlope: 0.5 }), [-infinity, 0, infinity], [0.5, 0.5, 1])
    const half = Math.fround(Math.log1p(Math.exp(0)) / 2)
    check((x) => F.softplus(x, { beta: 2 }), [0, half, infinity], [0, 0.5, 1])
  })

  test('second derivatives', () => {
    const x = new SeededSampler(3).awayFromZero([7])
    gradcheckTwice(([a]) => [F.elu(a, { alpha: 0.7 })], [x])
    gradcheckTwice(([a]) => [F.leakyRelu(a)], [x])
    gradcheckTwice(([a]) => [F.softplus(a, { beta: 2, threshold: 30 })], [x])
  })
})

describe('dropout', () => {
  test('drops its share, keeps the mean, and masks the gradient alike', () => {
    manualSeed(3)
    const layer = new nn.Dropout(0.3)
    const x = ones([100_000], { requiresGrad: true })
    const y = layer.forward(x)
    const kept = values(y)
    const share = kept.filter((v) => v === 0).length / kept.length
    // four deviations of a binomial share: 4 √(0.3 · 0.7 / 10⁵)
    expect(Math.abs(share - 0.3)).toBeLessThan(0.006)
    const expected = Math.fround(1 / 0.7)
    expect(kept.every((v) => v === 0 || Math.abs(v - expected) < 1e-6)).toBe(true)
    y.sum().backward()
    expect(values(x.grad)).toEqual(kept)
    expect(values(layer.forward(x))).not.toEqual(kept)
  })

  test('the same seed gives the same mask; a generator of its own leaves the default alone', () => {
    const x = ones([64])
    manualSeed(7)
    const first = values(F.dropout(x, 0.5))
    manualSeed(7)
    expect(values(F.dropout(x, 0.5))).toEqual(first)
    manualSeed(7)
    F.dropout(x, 0.5, { generator: new Generator({ seed: 1 }) })
    expect(values(F.dropout(x, 0.5))).toEqual(first)
  })

  test('p of 0 and 1, and evaluation', () => {
    const x = tensor([1, Number.POSITIVE_INFINITY, Number.NaN], { requiresGrad: true })
    expect(F.dropout(x, 0)).toBe(x)
    expect(new nn.Dropout().eval().forward(x)).toBe(x)
    const none = F.dropout(x, 1)
    expect(values(none)).toEqual([0, 0, 0])
    none.sum().backward()
    expect(values(x.grad)).toEqual([0, 0, 0])
  })
})

describe('losses', () => {
  test('modules are their functions', () => {
    const logits = randn([4, 3], { dtype: 'float64' })
    const target = tensor([0n, 2n, 1n, -100n])
    const weight = tensor([1, 2, 3], { dtype: 'float64' })
    const x = randn([4], { dtype: 'float64' })
    const y = tensor([0, 1, 1, 0], { dtype: 'float64' })
    const equal = (a: Tensor, b: Tensor) => expect(values(a)).toEqual(values(b))
    equal(
      new nn.CrossEntropyLoss({ weight, labelSmoothing: 0.1 }).forward(logits, target),
      F.crossEntropy(logits, target, { weight, labelSmoothing: 0.1 }),
    )
    const logP = logits.logSoftmax(1)
    equal(new nn.NLLLoss({ weight }).forward(logP, target), F.nllLoss(logP, target, { weight }))
    equal(new nn.MSELoss({ reduction: 'sum' }).forward(x, y), x.sub(y).square().sum())
    equal(new nn.L1Loss().forward(x, y), x.sub(y).abs().mean())
    const posWeight = tensor(3, { dtype: 'float64' })
    equal(
      new nn.BCEWithLogitsLoss({ posWeight }).forward(x, y),
      F.binaryCrossEntropyWithLogits(x, y, { posWeight }),
    )
  })

  test('extreme logits give finite losses and gradients', () => {
    const x = tensor([-1e4, 1e4, -90, 90], { requiresGrad: true })
    const loss = F.binaryCrossEntropyWithLogits(x, tensor([0, 1, 1, 0]), { reduction: 'none' })
    expect(values(loss)).toEqual([0, 0, 90, 90])
    loss.sum().backward()
    expect(values(x.grad)).toEqual([0, 0, -1, 1])
    const logits = tensor(
      [
        [1e4, -1e4],
        [-1e4, 1e4],
      ],
      { requiresGrad: true },
    )
    const ce = F.crossEntropy(logits, tensor([0n, 0n]), { reduction: 'none' })
    expect(values(ce)).toEqual([0, 2e4])
    ce.sum().backward()
    expect(values(logits.grad)).toEqual([0, 0, -1, 1])
  })

  test('with all targets ignored the mean is NaN and the sum 0, as in PyTorch', () => {
    const [logits, target] = [randn([2, 3]), tensor([-100n, -100n])]
    expect(F.crossEntropy(logits, target).item()).toBeNaN()
    expect(F.crossEntropy(logits, target, { reduction: 'sum' }).item()).toBe(0)
  })
})
