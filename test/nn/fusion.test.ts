import { describe, expect, test } from 'vitest'
import { manualSeed, memoryStats, noGrad, randn, type Tensor } from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { values } from '../support/values.js'

/** The same weights twice: as one Sequential, and called layer by layer. */
function pair(make: () => nn.Sequential): [nn.Sequential, nn.Sequential] {
  const a = make()
  const b = make()
  b.loadStateDict(a.stateDict())
  return [a, b]
}

function oneByOne(net: nn.Sequential, x: Tensor): Tensor {
  let y = x
  for (const layer of net) y = layer.forward(y)
  return y
}

function expectEqual(a: nn.Sequential, b: nn.Sequential, x: Tensor): void {
  const xa = x.detach().requiresGrad_()
  const xb = x.detach().requiresGrad_()
  const ya = a.forward(xa)
  const yb = oneByOne(b, xb)
  const near = (got: Tensor | null, expected: Tensor | null, what: string) => {
    const g = values(got)
    expect(g.length).toBe(expected?.numel)
    values(expected).forEach((e, i) => {
      expect(Math.abs(g[i] - e), `${what} ${i}`).toBeLessThan(1e-11)
    })
  }
  near(ya, yb, 'y')
  const dy = randn(ya.shape, { dtype: 'float64' })
  ya.backward(dy)
  yb.backward(dy)
  near(xa.grad, xb.grad, 'dx')
  const others = new Map(b.namedParameters())
  for (const [name, p] of a.namedParameters()) near(p.grad, others.get(name)?.grad ?? null, name)
  const buffers = b.stateDict()
  for (const [name, t] of Object.entries(a.stateDict())) near(t, buffers[name], name)
}

/** What a linear layer's kernel can apply. */
const afterLinear = [
  ['ReLU', () => new nn.ReLU()],
  ['GELU', () => new nn.GELU()],
  ['GELU by tanh', () => new nn.GELU({ approximate: 'tanh' })],
] as const

describe.each([[true], [false]])('batch norm and ReLU, affine %s', (affine) => {
  const make = () =>
    new nn.Sequential(
      new nn.BatchNorm2d(3, { dtype: 'float64', affine }),
      new nn.ReLU(),
      new nn.BatchNorm2d(3, { dtype: 'float64', affine }),
    )
  test('in training, in evaluation', () => {
    manualSeed(1)
    const [a, b] = pair(make)
    const x = randn([4, 3, 5, 7], { dtype: 'float64' })
    expectEqual(a, b, x)
    expectEqual(a.eval(), b.eval(), x)
  })
  test('on strided input', () => {
    manualSeed(2)
    const [a, b] = pair(make)
    expectEqual(a, b, randn([4, 5, 7, 3], { dtype: 'float64' }).permute([0, 3, 1, 2]))
  })
})

test('a convolution and ReLU', () => {
  manualSeed(5)
  const [a, b] = pair(
    () =>
      new nn.Sequential(
        new nn.Conv2d(2, 4, 3, { padding: 1, dtype: 'float64' }),
        new nn.ReLU(),
        new nn.Conv2d(4, 3, 3, { bias: false, dtype: 'float64' }),
        new nn.ReLU(),
      ),
  )
  expectEqual(a, b, randn([3, 2, 7, 6], { dtype: 'float64' }))
  expect(a.forward(randn([1, 2, 7, 6], { dtype: 'float64' })).edge?.node.name).toBe('conv2dRelu')
})

test.each(afterLinear)('a linear layer and %s', (_name, activation) => {
  manualSeed(6)
  const dtype = 'float64'
  const [a, b] = pair(
    () =>
      new nn.Sequential(
        new nn.Linear(5, 7, { dtype }),
        activation(),
        new nn.Linear(7, 3, { bias: false, dtype }),
        activation(),
      ),
  )
  expectEqual(a, b, randn([4, 5], { dtype }))
  expectEqual(a, b, randn([2, 3, 5], { dtype }))
  expect(a.forward(randn([4, 5], { dtype })).edge?.node.name).toBe('linearActivation')
})

test.each(afterLinear)('two linear layers with %s between them', (_name, activation) => {
  manualSeed(7)
  const dtype = 'float64'
  const [a, b] = pair(
    () =>
      new nn.Sequential(
        new nn.Linear(5, 6, { dtype }),
        activation(),
        new nn.Linear(6, 7, { dtype }),
        activation(),
        new nn.Linear(7, 3, { bias: false, dtype }),
        new nn.Tanh(),
      ),
  )
  expectEqual(a, b, randn([4, 5], { dtype }))
  expectEqual(a, b, randn([2, 3, 5], { dtype }))
  const [tanh] = a.forward(randn([4, 5], { dtype })).edge?.node.edges ?? []
  expect(tanh?.node.name).toBe('feedForward')
  expect(tanh?.node.edges[0]?.node.name).toBe('linearActivation')
})

test('a hook or a subclass of a linear layer or its GELU sees its own values', () => {
  const linear = new nn.Linear(3, 2)
  const gelu = new nn.GELU()
  const net = new nn.Sequential(linear, gelu)
  const x = randn([4, 3])
  const seen: Tensor[] = []
  const remove = linear.registerForwardHook((_module, _inputs, y) => void seen.push(y))
  const y = net.forward(x)
  expect(values(nn.functional.gelu(seen[0]))).toEqual(values(y))
  remove()
  class Doubled extends nn.GELU {
    override forward(h: Tensor): Tensor {
      return super.forward(h).mul(2)
    }
  }
  const doubled = new nn.Sequential(linear, new Doubled()).forward(x)
  expect(values(doubled)).toEqual(values(y.mul(2)))
})

test('the rectified values are not kept twice: one node for both layers', () => {
  const net = new nn.Sequential(new nn.BatchNorm1d(2), new nn.ReLU())
  const y = net.forward(randn([4, 2]))
  expect(y.edge?.node.name).toBe('batchNorm')
  expect(Math.min(...values(y))).toBe(0)
})

test('a hook or a subclass on either layer sees its own values', () => {
  const seen: number[] = []
  const look = (t: Tensor) => void seen.push(Math.min(...values(t)))
  const norm = new nn.BatchNorm1d(2)
  const relu = new nn.ReLU()
  const net = new nn.Sequential(norm, relu)
  const x = randn([64, 2])
  const remove = norm.registerForwardHook((_module, _inputs, y) => look(y))
  net.forward(x)
  expect(seen[0]).toBeLessThan(0)
  remove()
  relu.registerForwardPreHook((_module, [input]) => look(input))
  net.forward(x)
  expect(seen[1]).toBeLessThan(0)
  class Shifted extends nn.ReLU {
    override forward(h: Tensor): Tensor {
      return super.forward(h).add(1)
    }
  }
  expect(Math.min(...values(new nn.Sequential(norm, new Shifted()).forward(x)))).toBe(1)
})

describe('values between the layers of a Sequential', () => {
  const net = () =>
    new nn.Sequential(
      new nn.Conv2d(1, 4, 3),
      new nn.BatchNorm2d(4),
      new nn.ReLU(),
      new nn.MaxPool2d(2),
      new nn.Identity(),
      new nn.Flatten(),
      new nn.Dropout(0),
      new nn.Linear(4 * 9, 5),
      new nn.Tanh(),
    )

  test('are freed without a collection, the input and the result are not', () => {
    const layers = net()
    const x = randn([2, 1, 8, 8])
    const before = memoryStats()
    const y = noGrad(() => layers.forward(x))
    const made = memoryStats().liveBytes - before.liveBytes
    expect(made).toBe(y.numel * 4)
    expect(values(x).length).toBe(128)
    expect(values(y).length).toBe(10)
  })

  test('are there for the gradients, and for gradients of gradients', () => {
    manualSeed(3)
    const layers = net()
    const x = randn([2, 1, 8, 8], { requiresGrad: true })
    const first = layers.forward(x).square().sum()
    first.backward(undefined, { createGraph: true })
    const grad = x.grad as Tensor
    expect(values(grad).every(Number.isFinite)).toBe(true)
    grad.square().sum().backward()
    expect(values(x.grad).every(Number.isFinite)).toBe(true)
  })

  test('stay where a layer may have kept them', () => {
    const seen: Tensor[] = []
    class Kept extends nn.Module {
      override forward(x: Tensor): Tensor {
        const y = x.mul(2)
        seen.push(x, y)
        return y
      }
    }
    const hooked = new nn.Tanh()
    const layers = new nn.Sequential(
      new nn.Linear(3, 3),
      new Kept(),
      new nn.ReLU(),
      hooked,
      new nn.Flatten(),
      new nn.Linear(3, 2),
    )
    hooked.registerForwardHook((_module, [input], output) => {
      seen.push(input as Tensor, output as Tensor)
    })
    const x = randn([4, 3])
    layers.forward(x)
    for (const t of [x, ...seen]) expect(values(t).length).toBe(12)
  })

  test('that are views of the input leave it alone', () => {
    const x = randn([2, 3, 1, 1])
    const layers = new nn.Sequential(new nn.Flatten(), new nn.Flatten(0), new nn.ReLU())
    expect(values(layers.forward(x)).length).toBe(6)
    expect(values(x).length).toBe(6)
    expect(values(new nn.Sequential(new nn.Flatten(), new nn.Identity()).forward(x)).length).toBe(6)
  })
})
