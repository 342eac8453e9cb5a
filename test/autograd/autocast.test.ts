import { describe, expect, it } from 'vitest'
import * as adjoint from '../../src/index.js'
import {
  autocast,
  autocastAsync,
  conv2d,
  crossEntropy,
  type Device,
  DTypeError,
  device,
  type FloatDType,
  linear,
  manualSeed,
  matmul,
  memoryStats,
  noGrad,
  noGradAsync,
  type Tensor,
  tensor,
  tidy,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW } from '../../src/optim/index.js'
import { testCuda } from '../support/cuda.js'
import { readGolden } from '../support/golden.js'
import { values } from '../support/values.js'

const F = nn.functional
type DTypes = Record<string, string>

/** The ops of test/golden/make_autocast.py, on operands of float32 or a lower precision. */
function cases(dtype: FloatDType, device: Device): Record<string, () => Tensor> {
  const full = (...shape: number[]) => adjoint.uniform(shape, 0.5, 1.5, { device })
  const t = (...shape: number[]) => full(...shape).to(dtype)
  const x = t(4, 6)
  const image = t(2, 3, 6, 6)
  const heads = t(2, 2, 4, 8)
  const classes = tensor([0n, 1n, 2n, 3n], { device })
  const [one, w, bias, f32, channel] = [full(6), full(5, 6), full(5), full(4, 6), full(3)]
  const seq = t(5, 2, 6)
  const names =
    'acos asin atan cosh sinh tan exp2 expm1 log10 log1p log2 reciprocal rsqrt erf'.split(
      ' ',
    ) as 'acos'[]
  return {
    matmul: () => matmul(x, w.t()),
    linear: () => linear(x, w, bias),
    conv2d: () => adjoint.conv2d(image, full(4, 3, 3, 3)),
    scaledDotProductAttention: () => F.scaledDotProductAttention(heads, heads, heads),
    lstm: () => new nn.LSTM(6, 7).to(device).forward(seq)[0],
    gru: () => new nn.GRU(6, 7).to(device).forward(seq)[0],
    lstmCell: () => new nn.LSTMCell(6, 7).to(device).forward(x)[0],
    gruCell: () => new nn.GRUCell(6, 7).to(device).forward(x),
    softmax: () => adjoint.softmax(x, 1),
    logSoftmax: () => adjoint.logSoftmax(x, 1),
    layerNorm: () => F.layerNorm(x, 6, { weight: one, bias: one }),
    rmsNorm: () => F.rmsNorm(x, 6, { weight: one }),
    batchNorm: () =>
      adjoint.batchNorm(image, null, null, { weight: channel, bias: channel, training: true }),
    crossEntropy: () => crossEntropy(x, classes),
    nllLoss: () => adjoint.nllLoss(adjoint.logSoftmax(x, 1), classes),
    mseLoss: () => adjoint.mseLoss(x, f32),
    l1Loss: () => adjoint.l1Loss(x, f32),
    'mseLoss of one dtype': () => adjoint.mseLoss(x, x),
    'l1Loss of one dtype': () => adjoint.l1Loss(x, x),
    binaryCrossEntropyWithLogits: () => adjoint.binaryCrossEntropyWithLogits(x, f32),
    sum: () => x.sum(),
    mean: () => x.mean(1),
    prod: () => x.prod(),
    variance: () => adjoint.variance(x, 1),
    norm: () => adjoint.norm(x),
    logSumExp: () => adjoint.logSumExp(x, 1),
    amax: () => x.amax(1),
    exp: () => x.exp(),
    log: () => x.log(),
    ...Object.fromEntries(names.map((name) => [name, () => x.sub(0.5)[name]()])),
    softplus: () => adjoint.softplus(x),
    sqrt: () => x.sqrt(),
    tanh: () => x.tanh(),
    sigmoid: () => x.sigmoid(),
    relu: () => x.relu(),
    gelu: () => adjoint.gelu(x),
    silu: () => adjoint.silu(x),
    dropout: () => adjoint.dropout(x, 0.5),
    pow: () => x.pow(2.5),
    add: () => x.add(f32),
    mul: () => x.mul(2.5),
    div: () => x.div(f32),
    where: () => adjoint.where(x.gt(1), x, f32),
    cat: () => adjoint.cat([x, f32]),
    stack: () => adjoint.stack([x, f32]),
    maxPool2d: () => adjoint.maxPool2d(image, 2),
    avgPool2d: () => adjoint.avgPool2d(image, 2),
    adaptiveAvgPool2d: () => adjoint.adaptiveAvgPool2d(image, 1),
    reshape: () => x.reshape([24]),
  }
}

const randomClasses = (n: number, count: number) =>
  tensor(BigInt64Array.from({ length: n }, (_, i) => BigInt((i * 7) % count)))

const cuda = testCuda()

describe('autocast', () => {
  const golden = readGolden('autocast.json') as Record<'cpu' | 'cuda', Record<string, DTypes>>

  const compare = (at: Device, low: 'bfloat16' | 'float16', dtype: FloatDType) => {
    const calls = cases(dtype, at)
    const expected = golden[at.type][dtype]
    expect(Object.keys(calls)).toEqual(Object.keys(expected))
    const got = autocast(low, () =>
      Object.fromEntries(Object.entries(calls).map(([name, call]) => [name, call().dtype])),
    )
    expect(got).toEqual(expected)
  }

  it.each(['float32', 'bfloat16'] as const)('gives the dtypes of PyTorch, of %s', (dtype) => {
    compare(device('cpu'), 'bfloat16', dtype)
  })

  it.each(['float32', 'float16'] as const)(
    'gives the dtypes of PyTorch on a GPU, of %s',
    (dtype) => {
      compare(cuda, 'float16', dtype)
    },
  )

  it('leaves float64 alone', () => {
    const x = adjoint.randn([3, 4], { dtype: 'float64' })
    const y = adjoint.randn([4, 2])
    expect(autocast('bfloat16', () => matmul(x, y)).dtype).toBe('float64')
  })

  it('rounds the operands and the result, and nothing else', () => {
    const [x, w, b] = [adjoint.randn([9, 40]), adjoint.randn([7, 40]), adjoint.randn([7])]
    const low = (t: Tensor) => t.to('bfloat16').to('float64')
    const expected = values(linear(low(x), low(w), low(b)))
    const y = autocast('bfloat16', () => linear(x, w, b))
    values(y).forEach((v, i) => {
      expect(Math.abs(v - expected[i])).toBeLessThanOrEqual(
        2 ** -7.9 * Math.abs(expected[i]) + 1e-5,
      )
    })
  })

  it('converts a weight once until it changes', () => {
    const w = adjoint.randn([4, 4]).requiresGrad_()
    const x = adjoint.randn([2, 4], { dtype: 'bfloat16' })
    const step = () => matmul(x, w).edge?.node.edges[1]
    autocast('bfloat16', () => {
      const first = step()
      expect(step()).toBe(first)
      noGrad(() => w.add_(1))
      expect(step()).not.toBe(first)
      const [a, b] = noGrad(() => [matmul(x, w), matmul(x, w)])
      expect(a.edge).toBeNull()
      expect(values(a)).toEqual(values(b))
      expect(step()).not.toBeNull()
    })
  })

  it('converts again what a tidy has disposed', () => {
    const w = adjoint.randn([4, 4]).requiresGrad_()
    const x = adjoint.randn([2, 4])
    autocast('bfloat16', () => {
      const first = values(tidy(() => noGrad(() => matmul(x, w))))
      expect(values(noGrad(() => matmul(x, w)))).toEqual(first)
    })
  })

  it('frees its conversions when it ends, though nested and async calls share them', async () => {
    const w = adjoint.randn([64, 64]).requiresGrad_()
    const x = adjoint.randn([32, 64])
    const product = () => matmul(x, w)
    const forms: Record<string, () => Promise<Tensor>> = {
      plain: async () => autocast('bfloat16', product),
      nested: async () =>
        autocast('bfloat16', () => {
          matmul(x, w).dispose()
          return autocast('bfloat16', product)
        }),
      async: () => autocastAsync('bfloat16', async () => product()),
    }
    for (const [name, form] of Object.entries(forms)) {
      const before = memoryStats().liveBytes
      const y = await noGradAsync(form)
      expect(memoryStats().liveBytes - before, name).toBe(2 * y.numel)
      y.dispose()
      // The tape holds what backward reads.
      const recorded = await form()
      recorded.sum().backward()
      expect(w.grad?.shape, name).toEqual([64, 64])
    }
  })

  it('gives float32 gradients to float32 weights, close to those of float32', () => {
    manualSeed(1)
    const model = new nn.Sequential(new nn.Linear(20, 30), new nn.ReLU(), new nn.Linear(30, 5))
    const [x, y] = [adjoint.randn([16, 20]), randomClasses(16, 5)]
    const gradients = (loss: Tensor) => {
      loss.backward()
      return model.parameters().map((p) => {
        const grad = p.grad as Tensor
        expect(grad.dtype).toBe('float32')
        p.grad = null
        return values(grad)
      })
    }
    const exact = gradients(crossEntropy(model.forward(x), y))
    const loss = autocast('bfloat16', () => crossEntropy(model.forward(x), y))
    expect(loss.dtype).toBe('float32')
    const outside = gradients(loss)
    const inside = autocast('bfloat16', () => gradients(crossEntropy(model.forward(x), y)))
    expect(inside).toEqual(outside)
    outside.forEach((grad, i) => {
      const size = Math.hypot(...exact[i])
      expect(Math.hypot(...grad.map((g, k) => g - exact[i][k]))).toBeLessThan(0.03 * size)
    })
  })

  it("does not round a linear layer's gradients on the CPU to the lower precision", () => {
    const normal = (...shape: number[]) => adjoint.randn(shape, { device: 'cpu' })
    const [w, b] = [normal(5, 7), normal(5)].map((t) => t.requiresGrad_())
    const x = normal(3, 7)
    const dy = normal(3, 5).bfloat16()
    autocast('bfloat16', () => linear(x, w, b)).backward(dy)
    const exact = matmul(dy.double().t(), x.bfloat16().double())
    const near = (got: Tensor, want: Tensor) =>
      expect(got.double().sub(want).abs().amax().item()).toBeLessThan(1e-6)
    near(w.grad as Tensor, exact)
    near(b.grad as Tensor, dy.double().sum(0))
  })

  // By pairs, direct, in strides, in groups, and pointwise in strides.
  it.each([
    { channels: 16, filters: [24, 16, 3, 3], options: { padding: 1 } },
    { channels: 1, filters: [8, 1, 3, 3], options: {} },
    { channels: 16, filters: [8, 16, 3, 3], options: { stride: 2, padding: 1 } },
    { channels: 8, filters: [8, 2, 3, 3], options: { groups: 4 } },
    { channels: 16, filters: [8, 16, 1, 1], options: { stride: 2 } },
  ] as const)("nor a convolution's: $filters", ({ channels, filters, options }) => {
    const normal = (...shape: number[]) => adjoint.randn(shape, { device: 'cpu' })
    const x = normal(3, channels, 9, 10).bfloat16()
    const w = normal(...filters).requiresGrad_()
    const b = normal(filters[0]).requiresGrad_()
    for (const activation of [null, 'relu'] as const) {
      const y = autocast('bfloat16', () => conv2d(x, w, b, { ...options, activation }))
      const dy = normal(...y.shape).bfloat16()
      y.backward(dy)
      const [wide, bias] = [w, b].map((t) => t.detach().bfloat16().double().requiresGrad_())
      const kept = activation === null ? dy : dy.mul(y.gt(0).bfloat16())
      conv2d(x.double(), wide, bias, options).backward(kept.double())
      for (const [got, want] of [
        [w.grad, wide.grad],
        [b.grad, bias.grad],
      ] as [Tensor, Tensor][]) {
        expect(got.dtype).toBe('float32')
        const size = want.abs().amax().item() as number
        expect(got.double().sub(want).abs().amax().item()).toBeLessThan(1e-5 * size)
      }
      w.grad = b.grad = null
    }
  })

  it('trains a network to the loss of float32', () => {
    const train = (isLow: boolean) => {
      manualSeed(3)
      const model = new nn.Sequential(new nn.Linear(16, 64), new nn.ReLU(), new nn.Linear(64, 4))
      const optimizer = new AdamW(model.parameters(), { lr: 0.01 })
      const x = adjoint.randn([128, 16])
      const y = x.narrow(1, 0, 4).argmax(1)
      let last = 0
      for (let i = 0; i < 60; i++) {
        const forward = () => crossEntropy(model.forward(x), y)
        const loss = isLow ? autocast('bfloat16', forward) : forward()
        optimizer.zeroGrad()
        loss.backward()
        optimizer.step()
        last = loss.item()
      }
      return last
    }
    const [low, full] = [train(true), train(false)]
    expect(full).toBeLessThan(0.2)
    expect(Math.abs(low - full)).toBeLessThan(0.1 * full)
  })

  it('is off inside of float32, and after an error', () => {
    const x = adjoint.randn([2, 2])
    const dtype = () => matmul(x, x).dtype
    expect(autocast('bfloat16', () => autocast('float32', dtype))).toBe('float32')
    expect(autocast('float16', dtype)).toBe('float16')
    expect(() =>
      autocast('bfloat16', () => {
        throw new Error('mine')
      }),
    ).toThrow('mine')
    expect(dtype()).toBe('float32')
  })

  it('refuses a promise, and autocastAsync follows its own awaits', async () => {
    const x = adjoint.randn([2, 2])
    const dtype = () => matmul(x, x).dtype
    expect(() => autocast('bfloat16', async () => 1)).toThrow(/use autocastAsync/)
    const inside = autocastAsync('bfloat16', async () => {
      await Promise.resolve()
      return dtype()
    })
    expect(dtype()).toBe('float32')
    expect(await inside).toBe('bfloat16')
    expect(dtype()).toBe('float32')
    expect(() => autocast('int8' as 'bfloat16', dtype)).toThrow(DTypeError)
  })
})
