import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  autocast,
  capture,
  type Device,
  DTypeError,
  device,
  full,
  linear,
  manualSeed,
  randn,
  type Tensor,
  tensor,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW, clipGradNorm_, GradScaler, type Optimizer, SGD } from '../../src/optim/index.js'
import { testCuda } from '../support/cuda.js'
import { readGolden } from '../support/golden.js'
import { values } from '../support/values.js'

const cpu = device('cpu')
const cuda = testCuda()

interface Run {
  readonly optimizer: 'SGD' | 'AdamW'
  readonly clips: boolean
  readonly options: Readonly<Record<string, number>>
  readonly start: number[]
  readonly inputs: number[][]
  readonly steps: { w: number[]; scale: number; tracker: number }[]
}
const { factors, runs } = readGolden('grad_scaler.json') as { factors: string[]; runs: Run[] }

const number = (text: string) =>
  ({ inf: Infinity, '-inf': -Infinity, nan: Number.NaN })[text] ?? Number(text)

describe.each([cpu, cuda])('GradScaler on %s', (at) => {
  test.each(runs)('goes the way of PyTorch: $optimizer, $options', (run) => {
    const w = tensor(run.start, { device: at, requiresGrad: true })
    const unused = full([2], 0, { device: at, requiresGrad: true })
    const optimizer =
      run.optimizer === 'SGD'
        ? new SGD([w, unused], { lr: 0.1, momentum: 0.9 })
        : new AdamW([w, unused], { lr: 0.1 })
    const { init_scale, growth_factor, backoff_factor, growth_interval } = run.options
    const scaler = new GradScaler({
      initScale: init_scale,
      growthFactor: growth_factor,
      backoffFactor: backoff_factor,
      growthInterval: growth_interval,
    })
    let before = run.start
    run.steps.forEach((expected, i) => {
      optimizer.zeroGrad()
      const loss = w.mul(tensor(run.inputs[i], { device: at })).sum()
      scaler.scale(loss.mul(number(factors[i]))).backward()
      if (run.clips) {
        scaler.unscale_(optimizer)
        clipGradNorm_([w], 0.5)
      }
      const isTaken = scaler.step(optimizer)
      scaler.update()
      expect(isTaken, `step ${i}`).toBe(String(expected.w) !== String(before))
      before = expected.w
      expect(scaler.stateDict()).toMatchObject({
        scale: expected.scale,
        _growth_tracker: expected.tracker,
      })
      values(w).forEach((v, k) => {
        expect(Math.abs(v - expected.w[k]), `step ${i}`).toBeLessThan(1e-5)
      })
    })
  })

  test('unscales gradients exactly, of any dtype and layout', () => {
    const shapes = [[3, 4], [5], []]
    const params = shapes.map((shape) => randn(shape, { device: at, requiresGrad: true }))
    params.push(randn([7], { device: at, dtype: 'float64', requiresGrad: true }))
    params.push(randn([9], { device: at }).bfloat16().requiresGrad_())
    const optimizer = new SGD(params, { lr: 1 })
    const grads = params.map((p) => randn([...p.shape], { device: at }).to(p.dtype))
    const scaler = new GradScaler({ initScale: 1024 })
    params.forEach((p, i) => {
      p.grad = grads[i].mul(1024)
    })
    params[0].grad = randn([4, 3], { device: at }).t()
    const transposed = values(params[0].grad)
    scaler.unscale_(optimizer)
    expect(values(params[0].grad)).toEqual(transposed.map((v) => v / 1024))
    params.slice(1).forEach((p, i) => {
      expect(values(p.grad as Tensor)).toEqual(values(grads[i + 1]))
    })
  })

  test('lets a network train in float16 that would underflow', () => {
    const losses = (scaler: GradScaler) => {
      manualSeed(5)
      const [x, target] = [randn([32, 8]), randn([32, 4])]
      const layer = new nn.Linear(8, 4).to(at)
      const optimizer = new SGD(layer.parameters(), { lr: 2e6 })
      return Array.from({ length: 4 }, () => {
        optimizer.zeroGrad()
        const y = autocast('float16', () => linear(x.to(at), layer.weight, layer.bias))
        // Gradients of y of about 1e-9 are 0 in float16.
        const loss = y.float().sub(target.to(at)).square().mean().mul(1e-7)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()
      })
    }
    const scaled = losses(new GradScaler())
    expect(scaled[3]).toBeLessThan(0.95 * scaled[0])
    const plain = losses(new GradScaler({ enabled: false }))
    expect(plain[3]).toBeGreaterThan(0.99 * plain[0])
  })
})

function setUp(): { p: Tensor; optimizer: Optimizer; scaler: GradScaler; backward: () => void } {
  const p = tensor([1, 2], { requiresGrad: true })
  const scaler = new GradScaler({ initScale: 8 })
  return {
    p,
    optimizer: new SGD([p], { lr: 0.5 }),
    scaler,
    backward: () => scaler.scale(p.sum()).backward(),
  }
}

describe('GradScaler', () => {
  test('has PyTorch’s defaults, and its state dict', () => {
    const scaler = new GradScaler()
    expect(scaler.isEnabled).toBe(true)
    expect(scaler.stateDict()).toEqual({
      scale: 65536,
      growth_factor: 2,
      backoff_factor: 0.5,
      growth_interval: 2000,
      _growth_tracker: 0,
    })
    const other = new GradScaler({ initScale: 2, growthInterval: 5 })
    other.loadStateDict({ ...scaler.stateDict(), scale: 4, _growth_tracker: 7 } as never)
    expect(other.stateDict()).toEqual({ ...scaler.stateDict(), scale: 4, _growth_tracker: 7 })
    const before = other.stateDict()
    expect(() => other.loadStateDict({})).toThrow(ArgumentError)
    expect(() =>
      other.loadStateDict({ ...scaler.stateDict(), _growth_tracker: -1 } as never),
    ).toThrow(ArgumentError)
    expect(other.stateDict()).toEqual(before)
  })

  test('scales lists, and widens halves without axes', () => {
    const scaler = new GradScaler()
    const [a, b] = scaler.scale([tensor([1, 2]), tensor(3).half().sum()])
    expect(values(a)).toEqual([65536, 131072])
    expect(b.dtype).toBe('float32')
    expect(b.item()).toBe(3 * 65536)
    expect(scaler.scale(tensor([1]).half()).dtype).toBe('float16')
  })

  test('takes no part where it is not enabled', () => {
    const { p, optimizer } = setUp()
    const scaler = new GradScaler({ enabled: false })
    const loss = p.sum()
    expect(scaler.scale(loss)).toBe(loss)
    loss.backward()
    scaler.unscale_(optimizer)
    expect(scaler.step(optimizer)).toBe(true)
    scaler.update()
    expect(values(p)).toEqual([0.5, 1.5])
    expect(scaler.getScale()).toBe(1)
    expect(scaler.stateDict()).toEqual({})
    scaler.loadStateDict({})
  })

  test('keeps to the order of PyTorch', () => {
    const { optimizer, scaler, backward } = setUp()
    expect(() => scaler.update()).toThrow(/update: expected a step or unscale_ before, got none/)
    expect(() => scaler.step(optimizer)).toThrow(/step: expected an optimizer with gradients/)
    scaler.update(4)
    expect(scaler.getScale()).toBe(4)
    backward()
    scaler.unscale_(optimizer)
    expect(() => scaler.unscale_(optimizer)).toThrow(/got those that were unscaled/)
    scaler.step(optimizer)
    expect(() => scaler.unscale_(optimizer)).toThrow(/got those that were stepped/)
    expect(() => scaler.step(optimizer)).toThrow(/step: expected update\(\)/)
    scaler.update()
    backward()
    scaler.step(optimizer)
  })

  test('shrinks for any of several optimizers, and skips the one', () => {
    const { p, optimizer, scaler, backward } = setUp()
    const q = tensor([1], { requiresGrad: true })
    const second = new SGD([q], { lr: 1 })
    backward()
    scaler.scale(q.mul(Infinity).sum()).backward()
    expect(scaler.step(optimizer)).toBe(true)
    expect(scaler.step(second)).toBe(false)
    scaler.update()
    expect(values(p)).toEqual([0.5, 1.5])
    expect(values(q)).toEqual([1])
    expect(scaler.getScale()).toBe(4)
  })

  test('refuses float16 gradients and captured steps', () => {
    const p = tensor([1]).half().requiresGrad_()
    const optimizer = new SGD([p], { lr: 1 })
    const scaler = new GradScaler()
    scaler.scale(p.sum()).backward()
    expect(() => scaler.unscale_(optimizer)).toThrow(DTypeError)
    const step = capture((x: Tensor) => scaler.scale(x.sum()))
    const x = tensor([1])
    step(x)
    expect(() => step(x)).toThrow(/scale: expected work that a captured step can repeat/)
  })

  test.each([
    { initScale: 0 },
    { initScale: 1e39 },
    { growthFactor: 1 },
    { backoffFactor: 1 },
    { growthInterval: 0.5 },
    { enabled: 1 },
  ])('refuses %o', (options) => {
    expect(() => new GradScaler(options as never)).toThrow(ArgumentError)
  })
})

/** Both devices can be used by one scaler. */
test('a model on two devices', () => {
  const params = [cpu, cuda].map((at: Device) => tensor([1], { device: at, requiresGrad: true }))
  const optimizer = new SGD(params, { lr: 1 })
  const scaler = new GradScaler({ initScale: 4 })
  const step = (factor: number) => {
    optimizer.zeroGrad()
    scaler.scale(params[0].sum()).backward()
    scaler.scale(params[1].mul(factor).sum()).backward()
    const isTaken = scaler.step(optimizer)
    scaler.update()
    return isTaken
  }
  expect(step(1)).toBe(true)
  expect(params.flatMap(values)).toEqual([0, 0])
  expect(step(Infinity)).toBe(false)
  expect(params.flatMap(values)).toEqual([0, 0])
})
