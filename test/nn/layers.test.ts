import { describe, expect, test } from 'vitest'
import {
  AdjointError,
  type DType,
  Generator,
  manualSeed,
  ones,
  randn,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { readGolden } from '../support/golden.js'
import { gradcheck } from '../support/gradcheck.js'
import { Random } from '../support/sampler.js'
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
    expect(distance(product, identity)).toBeLessThan(1e-12)
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

describe('bad input', () => {
  const x = ones([2, 2, 5, 5])
  const w = ones([3, 2, 3, 3])
  const disposed = ones([2, 2, 5, 5])
  disposed.dispose()
  const any = <T>(value: unknown) => value as T
  const numbers: unknown[] = [
    0,
    -1,
    1.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    2 ** 40,
    '2',
    null,
    [1],
  ]
  const integer = zeros([2, 2, 5, 5], { dtype: 'int32' })
  const rows: Record<string, (() => unknown)[]> = {
    conv2d: [
      ...numbers.map((stride) => () => F.conv2d(x, w, null, { stride: any(stride) })),
      ...numbers.map((dilation) => () => F.conv2d(x, w, null, { dilation: any(dilation) })),
      ...numbers.map((groups) => () => F.conv2d(x, w, null, { groups: any(groups) })),
      ...numbers.slice(1).map((padding) => () => F.conv2d(x, w, null, { padding: any(padding) })),
      () => F.conv2d(x, w, null, { padding: any('full') }),
      () => F.conv2d(x, w, null, { padding: 'same', stride: 2 }),
      () => F.conv2d(x, w, null, { padding: 2 ** 31 - 1 }),
      () => F.conv2d(x, w, null, any(null)),
      () => F.conv2d(x, ones([3, 2, 6, 3])),
      () => F.conv2d(x, ones([3, 1, 3, 3])),
      () => F.conv2d(x, ones([3, 2, 0, 3])),
      () => F.conv2d(x, ones([3, 2])),
      () => F.conv2d(ones([5, 5]), w),
      () => F.conv2d(x, w, ones([2])),
      () => F.conv2d(x, w.double()),
      () => F.conv2d(integer, w.int()),
      () => F.conv2d(disposed, w),
      () => F.conv2d(any([1]), w),
      () => F.conv2d(x, any(null)),
      () => new nn.Conv2d(0, 1, 3),
      () => new nn.Conv2d(3, 4, 3, { groups: 2 }),
      () => new nn.Conv2d(1, 1, any('3')),
      () => new nn.Conv2d(2 ** 30, 2 ** 30, 3),
    ],
    maxPool2d: [
      ...numbers.map((kernel) => () => F.maxPool2d(x, any(kernel))),
      ...numbers.map((stride) => () => F.maxPool2d(x, 2, { stride: any(stride) })),
      () => F.maxPool2d(x, 2, { padding: 2 }),
      () => F.maxPool2d(x, 6),
      () => F.maxPool2d(integer, 2),
      () => F.maxPool2d(disposed, 2),
      () => F.maxPool2d(any(null), 2),
      () => F.maxPool2d(x, 2, any(3)),
      () => F.maxPool2d(ones([4]), 2),
    ],
    batchNorm: [
      () => F.batchNorm(x, null, null),
      () => F.batchNorm(ones([1, 2]), null, null, { training: true }),
      () => F.batchNorm(x, ones([3]), ones([2])),
      () => F.batchNorm(x, ones([2]), ones([2]), { weight: ones([2, 1]) }),
      () => F.batchNorm(x, ones([2]), ones([2]), { eps: -1 }),
      () => F.batchNorm(x, ones([2]), ones([2]), { momentum: Number.NaN }),
      () => F.batchNorm(ones([4]), null, null),
      () => F.batchNorm(integer, null, null, { training: true }),
      () => F.batchNorm(disposed, null, null, { training: true }),
      () => F.batchNorm(any('x'), null, null),
      () => new nn.BatchNorm2d(2).forward(ones([2, 2])),
      () => new nn.BatchNorm1d(2).forward(x),
      () => new nn.BatchNorm1d(1.5),
      () => new nn.BatchNorm1d(2, { eps: any('small') }),
    ],
    losses: [
      () => F.crossEntropy(ones([2, 3]), tensor([0n, 3n])).item(),
      () => F.crossEntropy(ones([2, 3]), tensor([0n, -1n])).item(),
      () => F.nllLoss(ones([2, 3]), tensor([0n, 3n])).item(),
      () => F.crossEntropy(ones([2, 3]), tensor([0n])),
      () => F.crossEntropy(ones([2, 3]), tensor([[0n], [1n]])),
      () => F.crossEntropy(ones([2, 3]), ones([2])),
      () => F.crossEntropy(ones([2, 3]), tensor([true, false])),
      () => F.crossEntropy(integer, tensor([0n, 1n])),
      () => F.crossEntropy(tensor(1), tensor(0n)),
      () => F.crossEntropy(ones([2, 3]), tensor([0n, 1n]), { reduction: any('average') }),
      () => F.crossEntropy(ones([2, 3]), tensor([0n, 1n]), { weight: ones([2]) }),
      () => F.crossEntropy(ones([2, 3]), tensor([0n, 1n]), { labelSmoothing: 1.5 }),
      () => F.crossEntropy(ones([2, 3]), tensor([0n, 1n]), { ignoreIndex: 0.5 }),
      () => F.crossEntropy(disposed, disposed),
      () => F.crossEntropy(any(null), tensor([0n])),
      () => F.crossEntropy(ones([2, 3]), any([0, 1])),
      () => F.mseLoss(ones([2]), ones([2, 1])),
      () => F.mseLoss(integer, integer),
      () => F.l1Loss(ones([2]), any(3)),
      () => F.binaryCrossEntropyWithLogits(ones([2]), ones([3])),
      () => F.binaryCrossEntropyWithLogits(ones([2]), ones([2]), { weight: ones([3, 2]) }),
      () => F.binaryCrossEntropyWithLogits(ones([2]), ones([2]), any(null)),
    ],
    dropout: [
      ...[-0.1, 1.1, Number.NaN, '0.5', null].map((p) => () => F.dropout(x, any(p))),
      () => F.dropout(integer, 0.5),
      () => F.dropout(disposed, 0.5),
      () => F.dropout(any(undefined), 0.5),
      () => new nn.Dropout(2),
    ],
    init: [
      () => nn.init.uniform_(any(3)),
      () => nn.init.normal_(integer),
      () => nn.init.normal_(x, 0, -1),
      () => nn.init.kaimingUniform_(ones([2])),
      () => nn.init.kaimingUniform_(x, { mode: any('fan') }),
      () => nn.init.kaimingUniform_(x, { nonlinearity: any('swish') }),
      () => nn.init.truncNormal_(x, 0, 1, 5, 6),
      () => nn.init.truncNormal_(x, 0, 0),
      () => nn.init.orthogonal_(ones([3])),
      () => nn.init.eye_(x),
      () => new nn.Linear(any('4'), 2),
      () => new nn.Linear(4, -2),
      () => new nn.Linear(4, 2, { dtype: any<DType>('int64') as 'float32' }),
      () => new nn.Linear(4, 2).forward(ones([3, 5])),
      () => new nn.Parameter(any([1, 2])),
      () => new nn.Parameter(disposed),
    ],
  }

  test.each(Object.entries(rows))('%s: every one a typed error with a message', (_name, bodies) => {
    bodies.forEach((body, i) => {
      let error: unknown
      try {
        body()
      } catch (e) {
        error = e
      }
      expect(error, `row ${i}: ${body}`).toBeInstanceOf(AdjointError)
      expect((error as Error).message, String(body)).toMatch(/: expected/)
    })
    // and the library goes on
    expect(F.conv2d(x, w).shape).toEqual([2, 3, 3, 3])
  })
})
