// Optimizers, schedules and clipping on the device against the CPU.
import { describe, expect, test, vi } from 'vitest'
import {
  type Device,
  device,
  type FloatDType,
  randn,
  type Tensor,
  tensor,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import {
  Adam,
  AdamW,
  CosineAnnealingLR,
  clipGradNorm_,
  clipGradValue_,
  type Optimizer,
  SGD,
} from '../../src/optim/index.js'
import { elements, expectWithin } from '../support/accuracy.js'
import { testCuda } from '../support/cuda.js'
import { SeededSampler } from '../support/sampler.js'

const cpu = device('cpu')
const cuda = testCuda()
const dtypes: readonly FloatDType[] = ['float64', 'float32', 'bfloat16', 'float16']

const optimizers: Record<string, (params: Tensor[]) => Optimizer<{ lr: number }>> = {
  SGD: (p) => new SGD(p, { lr: 0.1 }),
  'SGD with momentum': (p) =>
    new SGD(p, { lr: 0.1, momentum: 0.9, dampening: 0.3, weightDecay: 0.1 }),
  'SGD of Nesterov, climbing': (p) =>
    new SGD(p, { lr: 0.05, momentum: 0.8, nesterov: true, maximize: true }),
  Adam: (p) => new Adam(p, { lr: 0.01, weightDecay: 0.1 }),
  'Adam with amsgrad': (p) => new Adam(p, { lr: 0.02, amsgrad: true, maximize: true }),
  AdamW: (p) => new AdamW(p, { lr: 0.01, betas: [0.8, 0.99], eps: 1e-6 }),
  'groups with options of their own': ([first, ...rest]) =>
    new AdamW([{ params: [first], lr: 0.1, weightDecay: 0 }, { params: rest }], { lr: 0.01 }),
}

/** Sizes of one value, odd ones, and more than a block of threads takes. */
const shapes = [[1], [], [3, 5], [2, 700], [0, 4]]

/** Parameters after ten steps with the same gradients; one of them has none in every third step. */
function parametersAfter(
  make: (params: Tensor[]) => Optimizer<{ lr: number }>,
  dtype: FloatDType,
  at: Device,
) {
  const s = new SeededSampler(9)
  const params = shapes.map((shape) => s.normal(shape).to(dtype).to(at).requiresGrad_())
  const optimizer = make(params)
  const schedule = new CosineAnnealingLR(optimizer, { tMax: 12 })
  for (let step = 0; step < 10; step++) {
    params.forEach((p, i) => {
      const g = s.normal(p.shape).to(dtype).to(at)
      p.grad = i === 2 && step % 3 === 0 ? null : g
    })
    optimizer.step()
    schedule.step()
  }
  return { params, optimizer }
}

describe.each(Object.entries(optimizers))('%s', (_name, make) => {
  test.each(dtypes)('ten steps in %s', (dtype) => {
    const here = parametersAfter(make, dtype, cpu)
    const there = parametersAfter(make, dtype, cuda)
    const roundings = dtype === 'float64' || dtype === 'float32' ? 32 : 4
    there.params.forEach((p, i) => {
      expect(p.device).toBe(cuda)
      expectWithin(p, here.params[i].to('float64'), roundings, `parameter ${i}`)
    })
    const { state, param_groups } = there.optimizer.stateDict()
    const expected = here.optimizer.stateDict()
    expect(param_groups).toEqual(expected.param_groups)
    for (const [i, values] of Object.entries(state)) {
      for (const [key, value] of Object.entries(values)) {
        const want = expected.state[Number(i)][key]
        if (typeof value === 'number') expect(value).toBe(want)
        else expectWithin(value, (want as Tensor).to('float64'), roundings, `${key} of ${i}`)
      }
    }
  })
})

describe('clipping', () => {
  test.each([2, 1, Infinity])('of the norm %d, which waits for nothing', (normType) => {
    const s = new SeededSampler(2)
    const gradients = [s.normal([4, 3]), s.normal([1100])]
    const [here, there] = [cpu, cuda].map((at) => {
      const params = gradients.map((g) => {
        const p = g.to('float32').to(at).requiresGrad_()
        p.grad = g.to('float32').to(at)
        return p
      })
      const waits = vi.spyOn(at.native, 'toHost')
      const norm = clipGradNorm_(params, 1.5, { normType })
      clipGradValue_(params, 0.4)
      expect(waits).not.toHaveBeenCalled()
      waits.mockRestore()
      return [norm, ...params.map((p) => p.grad as Tensor)]
    })
    there.forEach((t, i) => {
      expect(t.device).toBe(cuda)
      expectWithin(t, here[i].to('float64'), 32)
    })
  })
})

describe('a state', () => {
  test('moves to an optimizer of the other device and goes on there', () => {
    const make = (at: Device) => {
      const net = new nn.Linear(3, 2).to(at)
      return { net, optimizer: new AdamW(net.parameters(), { lr: 0.1 }) }
    }
    const a = make(cpu)
    const x = randn([4, 3])
    const train = ({ net, optimizer }: ReturnType<typeof make>, at: Device) => {
      optimizer.zeroGrad()
      net.forward(x.to(at)).square().sum().backward()
      optimizer.step()
    }
    train(a, cpu)
    const b = make(cuda)
    b.net.loadStateDict(a.net.stateDict())
    b.optimizer.loadStateDict(a.optimizer.stateDict())
    train(a, cpu)
    train(b, cuda)
    b.net.parameters().forEach((p, i) => {
      expect(p.device).toBe(cuda)
      expectWithin(p, a.net.parameters()[i].to('float64'), 64)
    })
    a.optimizer.loadStateDict(b.optimizer.stateDict())
    train(a, cpu)
    train(b, cuda)
    expectWithin(b.net.weight, a.net.weight.to('float64'), 64)
  })

  test('made on one device is refused on another', () => {
    const net = new nn.Linear(2, 2)
    const optimizer = new AdamW(net.parameters())
    const step = (x: Tensor) => {
      net.forward(x).sum().backward()
      optimizer.step()
    }
    step(tensor([[1, 2]]))
    net.to(cuda)
    expect(() => step(tensor([[1, 2]], { device: cuda }))).toThrow(
      /float32 on cpu, got float32 on cuda:0/,
    )
  })
})

describe('a training step', () => {
  test('computes on the device alone and waits for nothing', () => {
    const net = new nn.Sequential(
      new nn.Linear(6, 8),
      new nn.GELU(),
      new nn.Dropout(0.3),
      new nn.Linear(8, 2),
    ).to(cuda)
    const optimizer = new AdamW(net.parameters(), { lr: 0.01 })
    const schedule = new CosineAnnealingLR(optimizer, { tMax: 10 })
    const x = randn([5, 6], { device: cuda })
    const y = randn([5, 2], { device: cuda })
    const spies = [
      ...(['run', 'toHost', 'fromHost', 'reserve'] as const).map((f) => vi.spyOn(cpu.native, f)),
      ...(['toHost', 'fromHost', 'synchronize'] as const).map((f) => vi.spyOn(cuda.native, f)),
    ]
    const losses: Tensor[] = []
    for (let i = 0; i < 3; i++) {
      optimizer.zeroGrad()
      const loss = nn.functional.mseLoss(net.forward(x), y)
      loss.backward()
      clipGradNorm_(net.parameters(), 1)
      optimizer.step()
      schedule.step()
      losses.push(loss.detach())
    }
    for (const spy of spies) {
      expect(spy, spy.getMockName()).not.toHaveBeenCalled()
      spy.mockRestore()
    }
    const values = losses.flatMap(elements)
    expect(values.every(Number.isFinite)).toBe(true)
    expect(new Set(values).size).toBe(3)
  })
})
