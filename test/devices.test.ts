import { describe, expect, test } from 'vitest'
import type { Device } from '../src/core/device.js'
import {
  arange,
  DeviceError,
  device,
  full,
  grad,
  manualSeed,
  memoryStats,
  OutOfMemoryError,
  rand,
  randint,
  randn,
  randperm,
  setMemoryCap,
  synchronize,
  type Tensor,
  tensor,
  where,
} from '../src/index.js'
import * as nn from '../src/nn/index.js'
import { AdamW } from '../src/optim/index.js'
import { testCuda } from './support/cuda.js'

const cpu = device('cpu')
const cuda = testCuda()

/** Elements as numbers, wherever the tensor lives. */
const values = (t: Tensor): number[] => Array.from(t.dataSync() as ArrayLike<number>, Number)

/** The same elements within float32's rounding; a NaN equals a NaN. */
function expectClose(got: Tensor, want: Tensor, tolerance = 1e-5): void {
  expect(got.shape).toEqual(want.shape)
  expect(got.dtype).toBe(want.dtype)
  const expected = values(want)
  values(got).forEach((value, i) => {
    const same = Object.is(value, expected[i]) || value === expected[i]
    const close = Math.abs(value - expected[i]) <= tolerance * (1 + Math.abs(expected[i]))
    if (!same && !close) expect(value, `element ${i}`).toBe(expected[i])
  })
}

/** A waving line of numbers of both signs, without chance. */
const wave = (n: number, at: Device) => arange(0, n, 1, { device: at }).mul(0.7).sin().mul(3)

/** What one body computes; it runs once for each device and the results are compared. */
const bodies: Record<string, (at: Device) => Tensor[]> = {
  creation: (at) => [
    full([2, 3], 1.5, { device: at }),
    arange(0, 7, 1, { device: at }),
    tensor(
      [
        [1, -2],
        [3, 4],
      ],
      { device: at },
    ),
    tensor([1n, 2n ** 40n], { device: at }),
  ],
  'elementwise with broadcasting and strides': (at) => {
    const x = wave(24, at).reshape([4, 6])
    const y = x.transpose(0, 1).slice(0, 1, 6, 2)
    return [
      y.mul(2).add(wave(4, at)),
      x.exp().log1p().sqrt(),
      x.gt(0).logicalAnd(x.lt(2)),
      where(x.gt(0), x, x.neg().mul(0.1)),
      x.clone().add_(1).mul_(x),
      x.to('float64').tanh(),
      x.to('int32').bitwiseAnd(3),
      x.bfloat16().mul(3),
    ]
  },
  reductions: (at) => {
    const x = wave(600, at).reshape([5, 40, 3])
    return [
      x.sum(),
      x.sum([0, 2]),
      x.mean(1, { keepdim: true }),
      x.amax([1]),
      x.argmax(1),
      x.transpose(0, 2).amin(0),
      x.gt(2.9).any(2),
    ]
  },
  'softmax and products': (at) => {
    const x = wave(60, at).reshape([3, 4, 5])
    const w = wave(35, at).reshape([7, 5])
    return [
      x.softmax(1),
      x.logSoftmax(-1),
      x.matmul(w.t()),
      x.matmul(x.transpose(1, 2)),
      w.to('int64').matmul(w.t().to('int64')),
    ]
  },
  gradients: (at) => {
    const x = wave(12, at).reshape([3, 4]).requiresGrad_()
    const w = wave(8, at).reshape([4, 2]).requiresGrad_()
    const y = x
      .matmul(w)
      .tanh()
      .logSoftmax(1)
      .mul(wave(6, at).reshape([3, 2]))
      .sum()
    const [dx] = grad(y, [x], { createGraph: true })
    return [y.detach(), dx.detach(), ...grad(dx.square().sum(), [x, w])]
  },
}

describe('one body on two devices', () => {
  for (const [name, body] of Object.entries(bodies)) {
    test(name, () => {
      const onCuda = body(cuda)
      body(cpu).forEach((want, i) => {
        expect(want.device).toBe(cpu)
        expect(onCuda[i].device).toBe(cuda)
        expectClose(onCuda[i], want)
      })
    })
  }

  test('random numbers are the same stream', () => {
    const draw = (at: Device) => {
      manualSeed(20, at)
      const options = { device: at }
      return [
        rand([3, 7], options),
        rand([5], { ...options, dtype: 'float64' }),
        randint(-5, 1000, [11], options),
        randperm(50, options),
      ]
    }
    const onCuda = draw(cuda)
    draw(cpu).forEach((want, i) => {
      expect(values(onCuda[i])).toEqual(values(want))
    })
    manualSeed(20, cuda)
    manualSeed(20)
    expectClose(randn([99], { device: cuda }), randn([99]))
  })
})

describe('between devices', () => {
  test('elements go there and back, also from strided views', () => {
    const x = wave(12, cpu).reshape([3, 4])
    const there = x.t().to('cuda')
    expect(there.device).toBe(cuda)
    expect(values(there)).toEqual(values(x.t()))
    expect(values(there.slice(0, 1, 4, 2).to(cpu))).toEqual(values(x.t().slice(0, 1, 4, 2)))
    expect(values(tensor([0, 0, 0, 0]).copy_(there.select(1, 2)))).toEqual(values(x.select(0, 2)))
  })

  test('gradients flow back', () => {
    const x = tensor([1, 2, 3], { requiresGrad: true })
    x.to('cuda').square().sum().to('cpu').backward()
    expect(x.grad?.device).toBe(cpu)
    expect(values(x.grad as Tensor)).toEqual([2, 4, 6])
  })

  test('operands on two devices are an error that says so', () => {
    const here = tensor([1])
    const there = tensor([1], { device: cuda })
    expect(() => here.add(there)).toThrow(DeviceError)
    expect(() => here.add(there)).toThrow(/add.*cpu.*cuda/)
    expect(() => here.matmul(there)).toThrow(DeviceError)
  })
})

describe('training', () => {
  /** Points of the plane, and whether each lies in a disc. */
  const points = (at: Device) => {
    const xy = wave(400, cpu).reshape([200, 2])
    const inside = xy.square().sum(1).lt(6).to('int64')
    const classes = arange(0, 2, 1, { dtype: 'int64' })
    const oneHot = inside.unsqueeze(1).eq(classes).float()
    return { xy: xy.to(at), oneHot: oneHot.to(at) }
  }

  /** The losses of a small network with dropout; every device starts from the same weights. */
  function train(at: Device): number[] {
    manualSeed(3)
    manualSeed(3, at)
    const net = new nn.Sequential(
      new nn.Linear(2, 32),
      new nn.ReLU(),
      new nn.Dropout(0.2),
      new nn.Linear(32, 16),
      new nn.GELU(),
      new nn.Linear(16, 2),
    ).to(at)
    const optimizer = new AdamW(net.parameters(), { lr: 1e-2 })
    const { xy, oneHot } = points(at)
    manualSeed(4, at)
    const losses: Tensor[] = []
    for (let step = 0; step < 60; step++) {
      optimizer.zeroGrad()
      const loss = net.forward(xy).logSoftmax(1).mul(oneHot).sum(1).mean().neg()
      loss.backward()
      optimizer.step()
      losses.push(loss.detach())
    }
    // Nothing has been read so far: all steps are in the queue.
    return losses.map((loss) => loss.item())
  }

  test('a small network trains to the same losses', () => {
    const here = train(cpu)
    const there = train(cuda)
    here.forEach((loss, step) => {
      expect(Math.abs(there[step] - loss), `step ${step}`).toBeLessThan(1e-4 * (1 + loss))
    })
    expect(here[59]).toBeLessThan(0.5 * here[0])
  })
})

describe('queued work', () => {
  test('results are there when they are read, however late that is', async () => {
    let x = full([1000], 1, { device: cuda })
    const first = x
    for (let i = 0; i < 50; i++) x = x.add(1)
    first.fill_(7)
    expect(x.sum().item()).toBe(51_000)
    expect(await first.data()).toEqual(new Float32Array(1000).fill(7))
    synchronize(cuda)
  })

  test('memory that is freed under it is reused and stays bounded', () => {
    let x = full([10_000], 0, { device: cuda })
    for (let i = 0; i < 3000; i++) x = x.add(1)
    expect(x.mean().item()).toBe(3000)
    expect(memoryStats(cuda).peakLiveBytes).toBeLessThan(100e6)
  })

  test('a full device collects and retries before it gives up', () => {
    setMemoryCap(64e6, cuda)
    try {
      let x = full([1_000_000], 0, { device: cuda })
      for (let i = 0; i < 40; i++) x = x.add(1)
      expect(x.amax().item()).toBe(40)
      expect(() => full([20_000_000], 1, { device: cuda })).toThrow(OutOfMemoryError)
    } finally {
      setMemoryCap(0, cuda)
    }
  })
})
