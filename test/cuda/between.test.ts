// What goes from one device to the other, and what must stay on one.
import { afterEach, describe, expect, test } from 'vitest'
import {
  arange,
  cat,
  customFunction,
  DeviceError,
  type DType,
  defaultDevice,
  device,
  Generator,
  getRandomState,
  manualSeed,
  randn,
  setDefaultDevice,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW } from '../../src/optim/index.js'
import { elements } from '../support/accuracy.js'
import { testCuda } from '../support/cuda.js'
import { errorOf } from '../support/values.js'

const cpu = device('cpu')
const cuda = testCuda()

afterEach(() => setDefaultDevice('cpu'))

const dtypes: readonly DType[] = [
  ...(['float64', 'float32', 'bfloat16', 'float16'] as const),
  ...(['int64', 'int32', 'int16', 'int8', 'uint8', 'bool'] as const),
]

describe('copies', () => {
  test.each(dtypes)('of %s go there and back, dense, strided, empty and large', (dtype) => {
    const x = arange(0, 60, 1, { dtype: 'float32' }).reshape([3, 4, 5]).remainder(2).to(dtype)
    const views = [x, x.permute([2, 0, 1]), x.slice(1, 1, 4, 2), x.select(0, 1), x.slice(0, 0, 0)]
    for (const view of views) {
      const there = view.to('cuda')
      expect(there.device).toBe(cuda)
      expect(there.dtype).toBe(dtype)
      expect(there.shape).toEqual(view.shape)
      expect(elements(there)).toEqual(elements(view))
      expect(elements(there.to(cpu))).toEqual(elements(view))
    }
  })

  test('larger than a staging buffer, while work is queued', () => {
    const x = randn([300_000])
    const there = [x.to(cuda), x.add(1).to(cuda), x.mul(2).to(cuda)]
    const sum = there[0].add(there[1]).sub(there[2])
    expect(elements(sum.mean())[0]).toBeCloseTo(1, 5)
    expect(there[2].to(cpu).dataSync()).toEqual(x.mul(2).dataSync())
  })

  test('with another dtype in one call', () => {
    const there = tensor([1.5, -2]).to({ device: 'cuda', dtype: 'float16' })
    expect([there.device, there.dtype]).toEqual([cuda, 'float16'])
    expect(there.to(cuda)).toBe(there)
    expect(there.to('cuda:0')).toBe(there)
  })

  test('into existing memory, also parts of it', () => {
    const target = zeros([3, 4], { device: cuda })
    target.select(1, 2).copy_(tensor([1, 2, 3]))
    target.slice(1, 0, 1).copy_(tensor([[7n], [8n], [9n]]))
    expect(elements(target)).toEqual([7, 0, 1, 0, 8, 0, 2, 0, 9, 0, 3, 0])
    const back = zeros([4, 3]).copy_(target.t())
    expect(elements(back)).toEqual(elements(target.t()))
  })

  test('from JavaScript, in every form', () => {
    const made = [
      tensor(
        [
          [1, 2],
          [3, 4],
        ],
        { device: cuda },
      ),
      tensor(new Float32Array([1, 2, 3, 4]), { shape: [2, 2], device: cuda }),
      tensor(new Uint8Array([1, 2, 3, 4]), { shape: [2, 2], dtype: 'bfloat16', device: cuda }),
      tensor(
        [
          [1n, 2n],
          [3n, 4n],
        ],
        { device: cuda },
      ),
    ]
    for (const x of made) {
      expect(x.device).toBe(cuda)
      expect(elements(x)).toEqual([1, 2, 3, 4])
    }
    expect(tensor([true, false], { device: cuda }).toArray()).toEqual([true, false])
  })

  test('say on which device they are when they are printed', () => {
    expect(String(tensor([1, 2], { device: cuda }))).toBe(
      'Tensor([1., 2.], shape=[2], dtype=float32, device=cuda:0)',
    )
  })
})

describe('gradients', () => {
  test('flow through copies, both ways', () => {
    const x = tensor([1, 2, 3], { requiresGrad: true })
    const y = x
      .to(cuda)
      .square()
      .to(cpu)
      .mul(tensor([1, 10, 100]))
    y.sum().backward()
    expect(elements(x.grad as Tensor)).toEqual([2, 40, 600])
    expect(x.grad?.device).toBe(cpu)
  })

  test('flow through copy_ from the other device', () => {
    const x = tensor([1, 2, 3], { requiresGrad: true })
    const y = zeros([2, 3], { device: cuda })
    y.select(0, 1).copy_(x.square())
    y.sum().backward()
    expect(elements(x.grad as Tensor)).toEqual([2, 4, 6])
    expect(x.grad?.device).toBe(cpu)
  })

  test('reach what a custom function saved of both devices', () => {
    const product = customFunction({
      forward: (context, a: Tensor, b: Tensor) => {
        context.saveForBackward(a, b)
        return a.to(cuda).mul(b)
      },
      backward: (context, dy) => {
        const [a, b] = context.savedTensors
        return [dy.mul(b).to(cpu), dy.mul(a.to(cuda))]
      },
    })
    const a = tensor([2, 3], { requiresGrad: true })
    const b = tensor([5, 7], { requiresGrad: true, device: cuda })
    product(a, b).sum().backward()
    expect(elements(a.grad as Tensor)).toEqual([5, 7])
    expect(elements(b.grad as Tensor)).toEqual([2, 3])
  })

  test('are refused on another device than their tensor', () => {
    const wrong = customFunction({
      name: 'wrong',
      forward: (_, x: Tensor) => x.mul(1),
      backward: (_, dy) => dy.to(cpu),
    })
    const x = tensor([1], { requiresGrad: true, device: cuda })
    expect(errorOf(DeviceError, () => wrong(x).sum().backward())).toMatch(
      /^backward: .*wrong.*cuda/,
    )
    const y = x.mul(2)
    y.registerHook((g) => g.to(cpu))
    expect(errorOf(DeviceError, () => y.sum().backward())).toMatch(
      /^hook: .*cuda:0, got one on cpu/,
    )
    expect(errorOf(DeviceError, () => x.mul(2).backward(tensor([1])))).toMatch(/^backward: /)
    const assign = () => {
      x.grad = tensor([1])
    }
    expect(errorOf(DeviceError, assign)).toMatch(/^grad: .*cuda:0 and cpu/)
  })
})

describe('operands on two devices', () => {
  const here = tensor([
    [1, 2],
    [3, 4],
  ])
  const there = here.to(cuda)
  const layer = new nn.Linear(2, 2)
  const index = tensor([0n, 1n], { device: cuda })
  const cases: Record<string, () => unknown> = {
    add: () => here.add(there),
    'in place': () => there.add_(here),
    matmul: () => there.matmul(here),
    where: () => there.gt(0).logicalAnd(here.gt(0)),
    cat: () => cat([here, there]),
    'layer of the other device': () => layer.forward(there),
    gather: () => here.indexSelect(0, index),
    mseLoss: () => nn.functional.mseLoss(here, there),
    crossEntropy: () => nn.functional.crossEntropy(here, index),
    embedding: () => nn.functional.embedding(index, here),
    attention: () => nn.functional.scaledDotProductAttention(there, here, there),
    layerNorm: () => nn.functional.layerNorm(there, 2, { weight: here.select(0, 0) }),
  }
  test.each(Object.entries(cases))('are an error: %s', (_name, body) => {
    expect(errorOf(DeviceError, body)).toMatch(
      /expected all tensors to be on the same device, got cuda:0 and cpu|cpu and cuda:0/,
    )
  })
})

describe('the default device', () => {
  test('is where tensors, layers, generators and optimizer states are made', () => {
    setDefaultDevice('cuda')
    expect(defaultDevice()).toBe(cuda)
    const net = new nn.Sequential(new nn.Linear(3, 4), new nn.ReLU(), new nn.Linear(4, 2))
    const optimizer = new AdamW(net.parameters())
    const x = randn([5, 3])
    const loss = net.forward(x).square().mean()
    loss.backward()
    optimizer.step()
    const state = Object.values(optimizer.stateDict().state).flatMap(({ exp_avg }) => exp_avg)
    const all = [x, loss, ...net.parameters(), ...(state as Tensor[]), tensor([1]), zeros([2])]
    for (const t of all) expect(t.device).toBe(cuda)
    for (const p of net.parameters()) expect(p.grad?.device).toBe(cuda)
    expect(new Generator().device).toBe(cuda)
  })

  test('does not move what is told where to be, nor results', () => {
    setDefaultDevice('cuda')
    const x = randn([2, 3], { device: 'cpu', requiresGrad: true })
    const y = x.softmax(1).maximum(0.1).logSumExp().add(true)
    y.backward()
    expect([x.device, y.device, x.grad?.device]).toEqual([cpu, cpu, cpu])
    setDefaultDevice('cpu')
    const there = randn([2, 3], { device: 'cuda', requiresGrad: true })
    const z = there.softmax(1).maximum(0.1).logSumExp().add(true)
    z.backward()
    expect([there.device, z.device, there.grad?.device]).toEqual([cuda, cuda, cuda])
  })

  test('is not asked for by layers with a device of their own', () => {
    const layers = [
      new nn.Linear(3, 2, { device: 'cuda' }),
      new nn.Conv2d(1, 2, 3, { device: 'cuda' }),
      new nn.BatchNorm2d(2, { device: 'cuda' }),
      new nn.LayerNorm(4, { device: 'cuda' }),
      new nn.RMSNorm(4, { device: 'cuda' }),
      new nn.Embedding(5, 2, { device: 'cuda', paddingIdx: 1 }),
      new nn.LSTM(2, 3, { device: 'cuda', numLayers: 2, bidirectional: true }),
      new nn.GRU(2, 3, { device: 'cuda' }),
      new nn.LSTMCell(2, 3, { device: 'cuda' }),
      new nn.GRUCell(2, 3, { device: 'cuda' }),
    ]
    for (const layer of layers) {
      for (const t of [...layer.parameters(), ...layer.buffers()]) expect(t.device).toBe(cuda)
    }
  })
})

describe('random numbers', () => {
  test('are seeded everywhere at once, or on one device', () => {
    manualSeed(11)
    expect(getRandomState(cuda)).toEqual(getRandomState(cpu))
    const [a, b] = [randn([9]), randn([9], { device: cuda })]
    expect(elements(b).map((v) => v.toFixed(5))).toEqual(elements(a).map((v) => v.toFixed(5)))
    manualSeed(12, cuda)
    expect(getRandomState(cuda)).toEqual({ seed: 12n, offset: 0n })
    expect(getRandomState(cpu).seed).toBe(11n)
  })
})
