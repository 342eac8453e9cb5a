import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  AdjointError,
  ArgumentError,
  collectGarbage,
  manualSeed,
  memoryStats,
  noGrad,
  ones,
  randn,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../src/index.js'
import { loadState, type State, saveState } from '../../src/io/index.js'
import * as nn from '../../src/nn/index.js'
import * as optim from '../../src/optim/index.js'
import { errorOf, values } from '../support/values.js'

const { SGD, Adam, AdamW } = optim

type Make = (params: nn.Parameter[]) => optim.Optimizer

const makers: [string, Make][] = [
  ['SGD', (p) => new SGD(p, { lr: 0.05 })],
  ['SGD with momentum', (p) => new SGD(p, { lr: 0.05, momentum: 0.9, nesterov: true })],
  ['Adam', (p) => new Adam(p, { lr: 0.05, amsgrad: true })],
  ['AdamW', (p) => new AdamW(p, { lr: 0.05 })],
]

function network(): nn.Sequential {
  manualSeed(2)
  return new nn.Sequential(
    new nn.Linear(4, 16),
    new nn.BatchNorm1d(16),
    new nn.Tanh(),
    new nn.Dropout(0.2),
    new nn.Linear(16, 3),
  )
}

function train(net: nn.Sequential, optimizer: optim.Optimizer, steps: number): number {
  const x = randn([32, 4])
  const y = x.slice(1, 0, 3).argmax(1)
  let last = 0
  for (let i = 0; i < steps; i++) {
    optimizer.zeroGrad()
    const loss = nn.functional.crossEntropy(net.forward(x), y)
    loss.backward()
    optimizer.step()
    last = loss.item()
  }
  return last
}

describe.each(makers)('%s', (_name, make) => {
  test('learns', () => {
    const net = network()
    const optimizer = make(net.parameters())
    const first = train(net, optimizer, 1)
    expect(train(net, optimizer, 200)).toBeLessThan(first / 2)
  })

  test('goes on from a file to the same bits', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'adjoint-optim-'))
    try {
      const file = path.join(folder, 'state.safetensors')
      const kind = { kind: 'test', version: 1 }
      const a = network()
      const whole = make(a.parameters())
      const schedule = new optim.CosineAnnealingLR(whole, { tMax: 50 })
      for (let i = 0; i < 3; i++) {
        train(a, whole, 5)
        schedule.step()
      }
      saveState(file, kind, {
        model: a.stateDict(),
        optimizer: whole.stateDict(),
        schedule: schedule.stateDict(),
      } as unknown as State)

      const b = network()
      const resumed = make(b.parameters())
      const again = new optim.CosineAnnealingLR(resumed, { tMax: 50 })
      const saved = loadState(file, kind) as unknown as {
        model: nn.StateDict
        optimizer: optim.OptimizerStateDict
        schedule: optim.SchedulerStateDict
      }
      b.loadStateDict(saved.model)
      resumed.loadStateDict(saved.optimizer)
      again.loadStateDict(saved.schedule)
      for (const [net, optimizer, s] of [
        [a, whole, schedule],
        [b, resumed, again],
      ] as const) {
        manualSeed(9)
        train(net, optimizer, 5)
        s.step()
        train(net, optimizer, 5)
      }
      for (const [key, t] of Object.entries(a.stateDict())) {
        expect(b.stateDict()[key].dataSync(), key).toEqual(t.dataSync())
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('leaves parameters without a gradient alone, and their state', () => {
    const [a, b] = [new nn.Parameter(ones([3])), new nn.Parameter(ones([2]))]
    const optimizer = make([a, b])
    a.grad = ones([3])
    optimizer.step()
    expect(values(b)).toEqual([1, 1])
    expect(values(a)).not.toEqual([1, 1, 1])
    expect(Object.keys(optimizer.stateDict().state)).toEqual(['0'])
  })

  test('a parameter that joins later takes the steps of its own count', () => {
    const late = [new nn.Parameter(ones([3])), new nn.Parameter(ones([3]))]
    const alone = new nn.Parameter(ones([3]))
    const both = make(late)
    late[0].grad = ones([3])
    both.step()
    late[1].grad = tensor([1, -2, 3])
    both.step()
    const single = make([alone])
    alone.grad = tensor([1, -2, 3])
    single.step()
    expect(values(late[1])).toEqual(values(alone))
  })

  test('dtypes may be mixed; gradients are made dense and of the parameter’s dtype', () => {
    const a = new nn.Parameter(ones([2, 3]))
    const b = new nn.Parameter(ones([2, 3], { dtype: 'float64' }))
    const optimizer = make([a, b])
    const g = randn([3, 2])
    a.grad = g.t()
    b.grad = g.t()
    optimizer.step()
    const expected = values(b)
    values(a).forEach((v, i) => {
      expect(v).toBeCloseTo(expected[i], 6)
    })
  })
})

test('a graph whose weights a step has changed refuses to be walked', () => {
  const p = new nn.Parameter(ones([2]))
  const loss = p.mul(p).sum()
  p.grad = ones([2])
  new SGD([p], { lr: 0.1 }).step()
  expect(() => loss.backward()).toThrow(/in-place/)
})

test('groups have options of their own', () => {
  const [a, b] = [new nn.Parameter(zeros([1])), new nn.Parameter(zeros([1]))]
  const optimizer = new SGD([{ params: [a], lr: 1 }, { params: [b] }], { lr: 0.25 })
  for (const p of [a, b]) p.grad = ones([1])
  optimizer.step()
  expect([a.item(), b.item()]).toEqual([-1, -0.25])
  const c = new nn.Parameter(zeros([1]))
  optimizer.addParamGroup({ params: [c], maximize: true })
  c.grad = ones([1])
  optimizer.zeroGrad()
  expect([a.grad, b.grad, c.grad]).toEqual([null, null, null])
  c.grad = ones([1])
  optimizer.step()
  expect([a.item(), b.item(), c.item()]).toEqual([-1, -0.25, 0.25])
})

test('momentum that is switched on later starts with the gradient', () => {
  const p = new nn.Parameter(zeros([1]))
  const optimizer = new SGD([p], { lr: 1, dampening: 0.5 })
  p.grad = ones([1])
  optimizer.step()
  optimizer.paramGroups[0].momentum = 0.5
  optimizer.step()
  optimizer.step()
  // -1; b = 1; b = 0.5 + 0.5
  expect(p.item()).toBe(-3)
})

test('a loop of steps holds no more memory than its start', () => {
  const net = network()
  const optimizer = new AdamW(net.parameters())
  const held = () => {
    collectGarbage()
    const { liveBytes, liveTensors, liveNodes } = memoryStats()
    return { liveBytes, liveTensors, liveNodes }
  }
  train(net, optimizer, 50)
  const before = held()
  train(net, optimizer, 500)
  expect(held()).toEqual(before)
})

test('state outlives a tidy around the step', () => {
  const p = new nn.Parameter(ones([2]))
  const optimizer = new Adam([p])
  for (let i = 0; i < 3; i++) {
    tidy(() => {
      optimizer.zeroGrad()
      p.mul(p).sum().backward()
      optimizer.step()
    })
  }
  expect(optimizer.stateDict().state[0].step).toBe(3)
})

test('OneCycleLR of one and two steps', () => {
  const rates = (totalSteps: number, pctStart: number) => {
    const optimizer = new SGD([new nn.Parameter(zeros([1]))], { lr: 1 })
    const options = { maxLr: 1, totalSteps, pctStart, divFactor: 8, finalDivFactor: 8 }
    const schedule = new optim.OneCycleLR(optimizer, options)
    return Array.from({ length: 3 }, () => {
      const [lr] = schedule.getLastLr()
      schedule.step()
      return lr
    })
  }
  expect(rates(2, 0.5)).toEqual([1, 1 / 64, 1 / 64])
  expect(rates(2, 1)).toEqual([1 / 8, 1, 1])
  expect(rates(1, 0.3)).toEqual([1 / 64, 1 / 64, 1 / 64])
})

test('SGD takes over PyTorch’s momentum, which has no step count', () => {
  const p = new nn.Parameter(zeros([2]))
  const optimizer = new SGD([p], { lr: 1, momentum: 0.5 })
  const group = optimizer.stateDict().param_groups[0]
  optimizer.loadStateDict({
    state: { 0: { momentum_buffer: tensor([2, 4]) } },
    param_groups: [{ ...group, foreach: true }],
  })
  p.grad = ones([2])
  optimizer.step()
  expect(values(p)).toEqual([-2, -3])
})

test('LambdaLR', () => {
  const groups = [
    { params: [new nn.Parameter(zeros([1]))] },
    { params: [new nn.Parameter(zeros([1]))] },
  ]
  const optimizer = new SGD(groups, { lr: 2 })
  const schedule = new optim.LambdaLR(optimizer, { lrLambda: [(e) => 1 / (1 + e), () => 3] })
  expect(schedule.getLastLr()).toEqual([2, 6])
  schedule.step()
  expect(schedule.getLastLr()).toEqual([1, 6])
})

describe('bad input', () => {
  const p = () => new nn.Parameter(zeros([2]))
  const any = <T>(value: unknown) => value as T
  const optimizer = new Adam([p()])
  const saved = optimizer.stateDict()
  const leaf = randn([2, 3]).t().requiresGrad_()
  const rows: Record<string, () => unknown> = {
    'no parameters': () => new SGD([]),
    'no iterable': () => new SGD(any(5)),
    null: () => new SGD(any(null)),
    'a number among parameters': () => new SGD(any([p(), 3])),
    'groups and parameters': () => new SGD(any([p(), { params: [p()] }])),
    'a group without params': () => new SGD(any([{ lr: 1 }])),
    'the same twice': () => {
      const q = p()
      return new SGD([q, q])
    },
    'a result of an op': () => new SGD([p().mul(2)]),
    'strided memory': () => new SGD([leaf]),
    'a negative rate': () => new SGD([p()], { lr: -1 }),
    'NaN as rate': () => new Adam([p()], { lr: Number.NaN }),
    'a string as rate': () => new Adam([p()], { lr: any('0.1') }),
    'negative momentum': () => new SGD([p()], { momentum: -0.5 }),
    'nesterov without momentum': () => new SGD([p()], { nesterov: true }),
    'nesterov with dampening': () =>
      new SGD([p()], { nesterov: true, momentum: 0.9, dampening: 0.1 }),
    'a beta of 1': () => new Adam([p()], { betas: [0.9, 1] }),
    'one beta': () => new Adam([p()], { betas: any(0.9) }),
    'negative eps': () => new AdamW([p()], { eps: -1 }),
    'negative decay': () => new AdamW([p()], { weightDecay: -1 }),
    'options that are none': () => new AdamW([p()], any(3)),
    'no state': () => optimizer.loadStateDict(any(null)),
    'a state of other groups': () => optimizer.loadStateDict({ ...saved, param_groups: [] }),
    'a state of more parameters': () =>
      optimizer.loadStateDict({
        ...saved,
        param_groups: [{ ...saved.param_groups[0], params: [0, 1] }],
      }),
    'a state of an unknown parameter': () =>
      optimizer.loadStateDict({ ...saved, state: { 7: { step: 1 } } }),
    'a state without its tensors': () =>
      optimizer.loadStateDict({ ...saved, state: { 0: { step: 1 } } }),
    'a state of another shape': () =>
      optimizer.loadStateDict({
        ...saved,
        state: { 0: { step: 1, exp_avg: zeros([3]), exp_avg_sq: zeros([3]) } },
      }),
    'a state without a step': () =>
      optimizer.loadStateDict({
        ...saved,
        state: { 0: { exp_avg: zeros([2]), exp_avg_sq: zeros([2]) } },
      }),
    'no optimizer': () => new optim.StepLR(any({}), { stepSize: 1 }),
    'a step size of 0': () => new optim.StepLR(optimizer, { stepSize: 0 }),
    'no milestones': () => new optim.MultiStepLR(optimizer, any({})),
    'half a milestone': () => new optim.MultiStepLR(optimizer, { milestones: [0.5] }),
    'an infinite gamma': () =>
      new optim.ExponentialLR(optimizer, { gamma: Number.POSITIVE_INFINITY }),
    'a tMax of 0': () => new optim.CosineAnnealingLR(optimizer, { tMax: 0 }),
    'no options': () => new optim.CosineAnnealingLR(optimizer, any(undefined)),
    'two functions for one group': () =>
      new optim.LambdaLR(optimizer, { lrLambda: [() => 1, () => 2] }),
    'an unknown strategy': () =>
      new optim.OneCycleLR(optimizer, { maxLr: 1, totalSteps: 3, annealStrategy: any('up') }),
    'a schedule at -1': () =>
      new optim.StepLR(optimizer, { stepSize: 1 }).loadStateDict({
        last_epoch: -1,
        base_lrs: [1],
        _last_lr: [1],
      }),
    'a schedule of two groups': () =>
      new optim.StepLR(optimizer, { stepSize: 1 }).loadStateDict({
        last_epoch: 1,
        base_lrs: [1, 2],
        _last_lr: [1, 2],
      }),
    'a negative limit': () => optim.clipGradNorm_([p()], -1),
    'a norm of 0': () => optim.clipGradNorm_([p()], 1, { normType: 0 }),
    'NaN as limit': () => optim.clipGradValue_([p()], Number.NaN),
    'no parameters to clip': () => optim.clipGradValue_(any(3), 1),
  }

  test.each(Object.entries(rows))('%s', (_name, body) => {
    let error: unknown
    try {
      body()
    } catch (e) {
      error = e
    }
    expect(error).toBeInstanceOf(AdjointError)
    expect((error as Error).message).toMatch(/: expected/)
  })

  test('a state that does not fit changes nothing', () => {
    const q = p()
    const own = new Adam([q], { lr: 0.5 })
    q.grad = ones([2])
    own.step()
    const before = JSON.stringify(own.stateDict().param_groups)
    const averages = values(own.stateDict().state[0].exp_avg as Tensor)
    const { state, param_groups } = own.stateDict()
    errorOf(ArgumentError, () =>
      own.loadStateDict({
        state: { 0: { ...state[0], exp_avg: zeros([5]) } },
        param_groups: [{ ...param_groups[0], lr: 7 }],
      }),
    )
    expect(JSON.stringify(own.stateDict().param_groups)).toBe(before)
    expect(values(own.stateDict().state[0].exp_avg as Tensor)).toEqual(averages)
  })

  test('a parameter that was converted after its first step', () => {
    const layer = new nn.Linear(2, 1)
    const own = new Adam(layer.parameters())
    layer
      .forward(ones([1, 2]))
      .sum()
      .backward()
    own.step()
    layer.to('float64')
    errorOf(ArgumentError, () => own.step())
    noGrad(() => expect(values(layer.weight).every(Number.isFinite)).toBe(true))
  })
})
