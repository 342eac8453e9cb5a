// Every layer and loss on the device against the CPU in float64: results, gradients and buffers.
import { describe, expect, test } from 'vitest'
import { isFloating } from '../../src/core/dtype.js'
import { device, type FloatDType, grad, manualSeed, type Tensor, tensor } from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { expectWithin } from '../support/accuracy.js'
import { testCuda } from '../support/cuda.js'
import { SeededSampler } from '../support/sampler.js'

const cpu = device('cpu')
const cuda = testCuda()
const dtypes: readonly FloatDType[] = ['float64', 'float32', 'bfloat16', 'float16']

/** How many roundings of the dtype results and gradients may be off. */
const roundings: Record<FloatDType, number> = {
  float64: 64,
  float32: 64,
  bfloat16: 16,
  float16: 16,
}

const s = new SeededSampler(5)
const F = nn.functional

interface Case {
  readonly make: () => nn.Module & { forward(x: Tensor): unknown }
  readonly x: Tensor
}

const of = (make: Case['make'], x: Tensor): Case => ({ make, x })

const layers: Record<string, Case> = {
  Linear: of(() => new nn.Linear(5, 3), s.normal([4, 5])),
  'Linear without bias': of(() => new nn.Linear(5, 3, { bias: false }), s.normal([2, 3, 5])),
  Conv2d: of(() => new nn.Conv2d(2, 4, 3, { padding: 1 }), s.normal([2, 2, 5, 6])),
  'Conv2d in groups': of(
    () => new nn.Conv2d(4, 4, [3, 2], { stride: 2, dilation: [1, 2], groups: 2, bias: false }),
    s.normal([1, 4, 7, 8]),
  ),
  'Conv2d, depthwise': of(
    () => new nn.Conv2d(3, 3, 3, { groups: 3, padding: 1 }),
    s.normal([2, 3, 5, 5]),
  ),
  'Conv2d and ReLU': of(
    () => new nn.Sequential(new nn.Conv2d(2, 3, 3), new nn.ReLU(), new nn.Flatten()),
    s.normal([2, 2, 5, 5]),
  ),
  BatchNorm1d: of(() => new nn.BatchNorm1d(3), s.normal([6, 3])),
  BatchNorm2d: of(() => new nn.BatchNorm2d(3), s.normal([2, 3, 4, 3])),
  'BatchNorm2d and ReLU': of(
    () => new nn.Sequential(new nn.BatchNorm2d(2), new nn.ReLU()),
    s.normal([3, 2, 2, 2]),
  ),
  'BatchNorm2d in evaluation': of(() => new nn.BatchNorm2d(3).eval(), s.normal([2, 3, 2, 2])),
  LayerNorm: of(() => new nn.LayerNorm([2, 4]), s.normal([3, 2, 4])),
  RMSNorm: of(() => new nn.RMSNorm(6), s.normal([3, 6])),
  Embedding: of(() => new nn.Embedding(7, 3, { paddingIdx: 2 }), s.integers([2, 4], 0, 7)),
  MaxPool2d: of(() => new nn.MaxPool2d(2), s.distinct([2, 1, 4, 5])),
  'MaxPool2d that overlaps': of(
    () => new nn.MaxPool2d(3, { stride: 2, padding: 1 }),
    s.distinct([1, 2, 5, 4]),
  ),
  AvgPool2d: of(() => new nn.AvgPool2d(2), s.normal([2, 1, 4, 4])),
  AdaptiveAvgPool2d: of(() => new nn.AdaptiveAvgPool2d([2, 3]), s.normal([1, 2, 5, 4])),
  LSTM: of(
    () => new nn.LSTM(3, 4, { numLayers: 2, bidirectional: true, batchFirst: true }),
    s.normal([2, 3, 3]),
  ),
  GRU: of(() => new nn.GRU(3, 4, { numLayers: 2 }), s.normal([3, 2, 3])),
  LSTMCell: of(() => new nn.LSTMCell(3, 4), s.normal([2, 3])),
  GRUCell: of(() => new nn.GRUCell(3, 4), s.normal([2, 3])),
}

const activations = [
  ...[new nn.ELU(), new nn.GELU(), new nn.GELU({ approximate: 'tanh' }), new nn.LeakyReLU()],
  ...[new nn.ReLU(), new nn.SiLU(), new nn.Sigmoid(), new nn.Softplus(), new nn.Tanh()],
  ...[new nn.Softmax(1), new nn.LogSoftmax(0)],
]
for (const layer of activations) layers[String(layer)] = of(() => layer, s.awayFromZero([3, 4]))

/** A loss as a layer, so that it is tested like one. */
class Loss extends nn.Module {
  constructor(private readonly f: (x: Tensor) => Tensor) {
    super()
  }
  override forward(x: Tensor): Tensor {
    return this.f(x)
  }
}

const classes = tensor([2n, 0n, -100n, 1n])
const at = (t: Tensor, x: Tensor) => {
  const there = t.to(x.device)
  return isFloating(t.dtype) ? there.to(x.dtype) : there
}
const targets = s.uniform([4, 3], 0.1, 0.9)
const weight = s.uniform([3], 0.5, 2)
const losses: Record<string, (x: Tensor) => Tensor> = {
  crossEntropy: (x) => F.crossEntropy(x, at(classes, x)),
  'crossEntropy, each': (x) => F.crossEntropy(x, at(classes, x), { reduction: 'none' }),
  'crossEntropy with weights and smoothing': (x) =>
    F.crossEntropy(x, at(classes, x), { weight: at(weight, x), labelSmoothing: 0.1 }),
  'crossEntropy of probabilities': (x) => F.crossEntropy(x, at(targets, x)),
  nllLoss: (x) => F.nllLoss(x.logSoftmax(1), at(classes, x)),
  mseLoss: (x) => F.mseLoss(x, at(targets, x)),
  l1Loss: (x) => F.l1Loss(x, at(targets, x), { reduction: 'sum' }),
  binaryCrossEntropyWithLogits: (x) =>
    F.binaryCrossEntropyWithLogits(x, at(targets, x), { posWeight: at(weight, x) }),
  attention: (x) => {
    const q = x.reshape([1, 2, 3, 2])
    return F.scaledDotProductAttention(q, q.mul(0.7), q.neg(), { isCausal: true })
  },
  'attention with a mask': (x) => {
    const q = x.reshape([2, 3, 2])
    const attnMask = at(tensor([[true, false, true]]), x)
    return F.scaledDotProductAttention(q, q.mul(0.7), q.neg(), { attnMask })
  },
}
for (const [name, f] of Object.entries(losses)) {
  layers[name] = of(() => new Loss(f), s.normal([4, 3]))
}

const isFloat = (x: Tensor) => isFloating(x.dtype)

/** Everything that a module gives: results, gradients of its input and parameters, buffers. */
function run(
  module: ReturnType<Case['make']>,
  x: Tensor,
  weigh: (y: Tensor) => Tensor = (y) => y.detach(),
): Map<string, Tensor> {
  const leaf = isFloat(x) ? x.detach().requiresGrad_() : x
  const outputs = [module.forward(leaf)].flat(2) as Tensor[]
  const seen = new Map<string, Tensor>(outputs.map((y, i) => [`output ${i}`, y.detach()]))
  const named: [string, Tensor][] = [['input', leaf], ...module.namedParameters()]
  const wanted = named.filter(([, t]) => t.requiresGrad)
  const gradients = grad(
    outputs,
    wanted.map(([, t]) => t),
    { gradOutputs: outputs.map(weigh), allowUnused: true },
  )
  wanted.forEach(([name], i) => {
    const g = gradients[i]
    if (g !== null) seen.set(`gradient of ${name}`, g)
  })
  for (const [name, buffer] of module.namedBuffers()) seen.set(name, buffer)
  return seen
}

describe.each(Object.entries(layers))('%s', (_name, { make, x }) => {
  test.each(dtypes)('%s', (dtype) => {
    manualSeed(3)
    // Both start from weights and inputs that the dtype can hold.
    const reference = make().to(dtype).to('float64')
    const module = make()
    module.loadStateDict(reference.stateDict())
    module.to({ device: 'cuda', dtype })
    module.train(reference.training)
    const held = isFloat(x) ? x.to(dtype) : x
    // The same random weights of the results, so that nothing cancels by chance.
    const weigh = (y: Tensor) => at(new SeededSampler(y.numel).normal(y.shape).to(dtype), y)
    const want = run(reference, isFloat(x) ? held.to('float64') : x, weigh)
    const got = run(module, held.to(cuda), weigh)
    expect([...got.keys()]).toEqual([...want.keys()])
    expect(got.size).toBeGreaterThan(1)
    for (const [name, y] of got) {
      const expected = want.get(name) as Tensor
      expect([y.device, expected.device], name).toEqual([cuda, cpu])
      expectWithin(y, expected, roundings[dtype], name, dtype)
    }
  })
})

describe('Module.to', () => {
  test('moves parameters, gradients and buffers, and they stay the same objects', () => {
    // No bias: batch norm takes it out again.
    const net = new nn.Sequential(new nn.Linear(3, 3, { bias: false }), new nn.BatchNorm1d(3))
    const factors = s.normal([4, 3]).to('float32')
    const loss = (x: Tensor) => net.forward(x).mul(at(factors, x)).sum()
    net.parameters()[0].grad = s.normal([3, 3]).to('float32')
    const before = new Map(net.namedParameters())
    net.to('cuda')
    for (const [name, p] of net.namedParameters()) {
      expect(p).toBe(before.get(name))
      expect([p.device, p.isLeaf, p.requiresGrad]).toEqual([cuda, true, true])
    }
    expect(before.get('0.weight')?.grad?.device).toBe(cuda)
    for (const b of net.buffers()) expect(b.device).toBe(cuda)
    net.zeroGrad()
    const x = s.normal([4, 3]).to('float32')
    loss(x.to(cuda)).backward()
    const there = net.parameters().map((p) => p.grad?.to(cpu) as Tensor)
    net.to('cpu').zeroGrad()
    loss(x).backward()
    net.parameters().forEach((p, i) => {
      expectWithin(there[i], p.grad as Tensor, 64)
    })
  })
})
