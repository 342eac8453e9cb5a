import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import {
  AdjointError,
  ArgumentError,
  DTypeError,
  manualSeed,
  memoryStats,
  noGrad,
  ones,
  randn,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { readGolden } from '../support/golden.js'
import { errorOf, values } from '../support/values.js'

const { module: golden } = readGolden('nn.json') as {
  module: {
    stateDict: [string, number[]][]
    parameters: string[]
    buffers: string[]
    modules: string[]
  }
}

/** The network of make_nn.py; PyTorch keeps parameters before modules, wherever they are made. */
class Net extends nn.Module {
  scale = new nn.Parameter(ones([1]))
  features = new nn.Sequential(
    new nn.Conv2d(1, 4, 3, { bias: false }),
    new nn.BatchNorm2d(4),
    new nn.ReLU(),
    new nn.MaxPool2d(2),
    new nn.Flatten(),
  )
  mask = this.registerBuffer('mask', ones([2]))
  scratch = this.registerBuffer('scratch', ones([2]), { persistent: false })
  heads = new nn.ModuleList([new nn.Linear(4, 2), new nn.Linear(4, 3)])
  offset = new nn.Parameter(zeros([2, 1]))
  norm = new nn.BatchNorm1d(3, { affine: false })
  tied = this.heads.at(0)
  loss = new nn.CrossEntropyLoss({ weight: ones([3]) })

  forward(x: Tensor): Tensor {
    return this.heads.at(1).forward(this.features.forward(x)).mul(this.scale)
  }
}

describe('members', () => {
  test('names and order are those of PyTorch', () => {
    const net = new Net()
    const state = Object.entries(net.stateDict()).map(([key, t]) => [key, t.shape])
    expect(state).toEqual(golden.stateDict)
    expect(net.namedParameters().map(([name]) => name)).toEqual(golden.parameters)
    expect(net.namedBuffers().map(([name]) => name)).toEqual(golden.buffers)
    expect(net.namedModules().map(([name]) => name)).toEqual(golden.modules)
    expect(net.parameters()).toHaveLength(golden.parameters.length)
    expect(net.children()).toHaveLength(5)
  })

  test('arrays, maps and plain objects hold modules and parameters', () => {
    class Bag extends nn.Module {
      list = [new nn.Linear(1, 1), [new nn.Linear(1, 2)]]
      map = new Map([['a', new nn.Linear(1, 1, { bias: false })]])
      object = { b: new nn.Parameter(zeros([1])), c: { d: new nn.Identity() } }
      plain = zeros([3])
      text = 'a field'
      override forward(): void {}
    }
    const bag = new Bag()
    expect(Object.keys(bag.stateDict())).toEqual([
      'object.b',
      'list.0.weight',
      'list.0.bias',
      'list.1.0.weight',
      'list.1.0.bias',
      'map.a.weight',
    ])
    expect(bag.namedChildren().map(([name]) => name)).toEqual([
      'list.0',
      'list.1.0',
      'map.a',
      'object.c.d',
    ])
  })

  test('a field that leads back to its parent ends there', () => {
    class Child extends nn.Module {
      weight = new nn.Parameter(ones([1]))
      constructor(readonly parent: nn.Module) {
        super()
      }
      override forward(): void {}
    }
    class Parent extends nn.Module {
      child = new Child(this)
      override forward(): void {}
    }
    const parent = new Parent()
    expect(Object.keys(parent.stateDict())).toEqual(['child.weight'])
    expect(parent.modules()).toHaveLength(2)
  })

  test('parameters are row-major leaves on the memory they are made from', () => {
    const data = randn([2, 3])
    const p = new nn.Parameter(data)
    expect(p.requiresGrad && p.isLeaf).toBe(true)
    noGrad(() => data.fill_(4))
    expect(values(p)).toEqual([4, 4, 4, 4, 4, 4])
    expect(new nn.Parameter(data.t()).strides).toEqual([2, 1])
    expect(new nn.Parameter(data, { requiresGrad: false }).requiresGrad).toBe(false)
    expect(new nn.Parameter(zeros([2], { dtype: 'int64' }), { requiresGrad: false }).dtype).toBe(
      'int64',
    )
    errorOf(DTypeError, () => new nn.Parameter(zeros([2], { dtype: 'int64' })))
    expect(p).toBeInstanceOf(nn.Parameter)
    expect(p.mul(2)).not.toBeInstanceOf(nn.Parameter)
  })

  test('prints as a tree', () => {
    const net = new nn.Sequential(new nn.Linear(2, 3, { bias: false }), new nn.Sequential())
    net.push(new nn.Sequential(new nn.Dropout(0.1), new nn.BatchNorm1d(3)))
    expect(inspect(net)).toBe(`Sequential(
  (0): Linear(inFeatures=2, outFeatures=3, bias=false)
  (1): Sequential()
  (2): Sequential(
    (0): Dropout(p=0.1)
    (1): BatchNorm1d(3, eps=0.00001, momentum=0.1, affine=true, trackRunningStats=true)
  )
)`)
  })
})

describe('state', () => {
  test('loads what another has saved, and only that', () => {
    manualSeed(1)
    const [a, b] = [new Net(), new Net()]
    const x = randn([2, 1, 4, 4])
    a.forward(x)
    const result = b.loadStateDict(a.stateDict())
    expect(result).toEqual({ missingKeys: [], unexpectedKeys: [] })
    for (const [key, t] of Object.entries(a.stateDict())) {
      expect(values(b.stateDict()[key]), key).toEqual(values(t))
    }
    a.eval()
    b.eval()
    expect(values(b.forward(x))).toEqual(values(a.forward(x)))
    expect(b.parameters().every((p) => p.requiresGrad && p.isLeaf)).toBe(true)
  })

  test('is a window on the memory, not a copy', () => {
    const layer = new nn.Linear(2, 1)
    const { weight } = layer.stateDict()
    noGrad(() => layer.weight.fill_(3))
    expect(values(weight)).toEqual([3, 3])
    expect(weight.requiresGrad).toBe(false)
    layer.loadStateDict(layer.stateDict())
    expect(values(layer.weight)).toEqual([3, 3])
  })

  test('converts dtypes', () => {
    const layer = new nn.Linear(2, 1, { dtype: 'float64' })
    layer.loadStateDict({ weight: tensor([[1.5, 2]]), bias: tensor([3n]) })
    expect(layer.weight.dtype).toBe('float64')
    expect(values(layer.bias)).toEqual([3])
  })

  test('a wrong dictionary is refused as a whole, with all that is wrong', () => {
    const net = new nn.Sequential(new nn.Linear(2, 1), new nn.BatchNorm1d(1))
    const before = Object.values(net.stateDict()).map(values)
    const state = net.stateDict()
    const { '0.bias': _, ...rest } = state
    const disposed = zeros([1])
    disposed.dispose()
    const message = errorOf(ArgumentError, () =>
      net.loadStateDict({
        ...rest,
        '0.weight': ones([2, 2]),
        '1.weight': ones([1]),
        '1.bias': disposed,
        '1.running_mean': 5 as unknown as Tensor,
        extra: ones([1]),
      }),
    )
    for (const part of [
      'Sequential',
      'missing keys: 0.bias',
      'unexpected keys: extra',
      '0.weight: shape [1, 2], got [2, 2]',
      '1.bias: a live tensor, got a disposed one',
      '1.running_mean: a tensor, got 5',
    ]) {
      expect(message).toContain(part)
    }
    expect(Object.values(net.stateDict()).map(values)).toEqual(before)
    for (const bad of [null, undefined, 3, 'weights']) {
      errorOf(ArgumentError, () => net.loadStateDict(bad as unknown as nn.StateDict))
    }
  })

  test('strict: false loads what fits', () => {
    const layer = new nn.Linear(2, 1)
    const result = layer.loadStateDict({ weight: ones([1, 2]), x: ones([1]) }, { strict: false })
    expect(result).toEqual({ missingKeys: ['bias'], unexpectedKeys: ['x'] })
    expect(values(layer.weight)).toEqual([1, 1])
    errorOf(ArgumentError, () => layer.loadStateDict({ weight: ones([3]) }, { strict: false }))
  })

  test('num_batches_tracked may be missing, as in files of older PyTorch', () => {
    const norm = new nn.BatchNorm1d(2)
    const { num_batches_tracked: _, ...old } = norm.stateDict()
    expect(norm.loadStateDict(old).missingKeys).toEqual([])
  })
})

describe('modes', () => {
  test('train and eval reach everything', () => {
    const net = new Net()
    expect(net.eval()).toBe(net)
    expect(net.modules().some((m) => m.training)).toBe(false)
    net.train()
    expect(net.modules().every((m) => m.training)).toBe(true)
  })

  test('freezing', () => {
    const net = new Net()
    net.features.requiresGrad_(false)
    expect(net.parameters().filter((p) => !p.requiresGrad)).toHaveLength(3)
    expect(net.namedParameters().map(([name]) => name)).toEqual(golden.parameters)
  })

  test('apply goes from the leaves up', () => {
    const names: string[] = []
    const net = new nn.Sequential(new nn.Linear(1, 1), new nn.ReLU())
    net.apply((m) => void names.push(m.constructor.name))
    expect(names.at(-1)).toBe('Sequential')
    expect(names.sort()).toEqual(['Linear', 'ReLU', 'Sequential'])
  })

  test('to converts floats in place, with their gradients', () => {
    const net = new nn.Sequential(new nn.Linear(2, 2), new nn.BatchNorm1d(2))
    const [weight] = net.parameters()
    net
      .forward(ones([3, 2]))
      .sum()
      .backward()
    expect(net.to('float64')).toBe(net)
    expect(net.parameters()[0]).toBe(weight)
    expect(weight.dtype).toBe('float64')
    expect(weight.grad?.dtype).toBe('float64')
    expect(net.buffers().map((b) => b.dtype)).toEqual(['float64', 'float64', 'int64'])
    net.zeroGrad()
    net
      .forward(randn([3, 2], { dtype: 'float64' }))
      .square()
      .sum()
      .backward()
    expect(weight.grad?.dtype).toBe('float64')
    net.to({ device: weight.device, dtype: 'float32' })
    expect(values(net.forward(ones([3, 2])))).toHaveLength(6)
    errorOf(DTypeError, () => net.to('int32'))
    errorOf(ArgumentError, () => net.to(5 as unknown as 'float32'))
  })

  test('zeroGrad frees gradients that nobody has seen, and leaves others alone', () => {
    const layer = new nn.Linear(1000, 1000)
    const x = ones([1, 1000])
    layer.forward(x).sum().backward()
    const held = memoryStats().liveBytes
    layer.zeroGrad()
    expect(held - memoryStats().liveBytes).toBeGreaterThanOrEqual(4e6)
    expect(layer.weight.grad).toBeNull()
    layer.forward(x).sum().backward()
    const { grad } = layer.weight
    layer.zeroGrad()
    expect(grad?.sum().item()).toBe(1e6)
    layer.forward(x).sum().backward(null, { createGraph: true })
    expect(layer.weight.grad?.sum().item()).toBe(1e6)
  })
})

describe('hooks', () => {
  test('see and replace inputs and outputs, and leave no trace', () => {
    const layer = new nn.Linear(2, 2)
    const plain = layer.forward
    const seen: unknown[] = []
    const removeBefore = layer.registerForwardPreHook((m, [x]) => {
      seen.push(m)
      return [x.mul(0)]
    })
    const removeAfter = layer.registerForwardHook((_m, [x], y) => {
      seen.push(values(x))
      return y.add(1)
    })
    const net = new nn.Sequential(layer)
    const y = net.forward(ones([1, 2]))
    expect(seen).toEqual([layer, [0, 0]])
    expect(values(y)).toEqual(values(layer.bias?.add(1) ?? null))
    expect(Object.keys(net.stateDict())).toEqual(['0.weight', '0.bias'])
    removeBefore()
    expect(layer.forward).not.toBe(plain)
    removeAfter()
    removeAfter()
    expect(layer.forward).toBe(plain)
    expect(Object.hasOwn(layer, 'forward')).toBe(false)
  })

  test('a forward that is a field comes back', () => {
    class Arrow extends nn.Module {
      override forward = (x: Tensor): Tensor => x.mul(2)
    }
    const arrow = new Arrow()
    const own = arrow.forward
    const remove = arrow.registerForwardHook((_m, _inputs, y) => y.add(1))
    expect(arrow.forward(tensor(3)).item()).toBe(7)
    remove()
    expect(arrow.forward).toBe(own)
  })
})

test('buffers and lists refuse what is none', () => {
  const net = new Net()
  const bad: (() => unknown)[] = [
    () => net.registerBuffer('mask', ones([1])),
    () => net.registerBuffer('a.b', ones([1])),
    () => net.registerBuffer('', ones([1])),
    () => net.registerBuffer('p', new nn.Parameter(ones([1]))),
    () => net.registerBuffer('p', 5 as unknown as Tensor),
    () => net.heads.forward(),
    () => net.heads.at(2),
    () => net.heads.at(0.5),
    () => net.features.push({} as nn.Layer),
    () => new nn.Sequential(null as unknown as nn.Layer),
  ]
  for (const body of bad) expect(body).toThrow(AdjointError)
})
