// Steps, schedules and clipping against PyTorch's (test/golden/make_nn.py).
import { describe, expect, test } from 'vitest'
import { type Tensor, tensor } from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import * as optim from '../../src/optim/index.js'
import { expectGolden, type Packed, readGolden, unpack } from '../support/golden.js'

interface OptimizerCase {
  readonly name: 'SGD' | 'Adam' | 'AdamW'
  readonly options: Record<string, never>
  readonly start: Packed[]
  readonly grads: (Packed | null)[][]
  readonly after: Packed[][]
  readonly stateKeys: string[]
  readonly groupKeys: string[]
}

interface ScheduleCase {
  readonly name: string
  readonly options: Record<string, never>
  readonly rates: number[][]
}

interface ClipCase {
  readonly maxNorm: number
  readonly normType: number | 'inf'
  readonly grads: Packed[]
  readonly total: number
  readonly after: Packed[]
}

const golden = readGolden('nn.json') as {
  optimizers: OptimizerCase[]
  schedules: ScheduleCase[]
  clipped: ClipCase[]
}

const optimizers = { SGD: optim.SGD, Adam: optim.Adam, AdamW: optim.AdamW }

/** What PyTorch's groups have that means nothing here. */
const foreign = ['capturable', 'decoupled_weight_decay', 'differentiable', 'foreach', 'fused']

describe.each(golden.optimizers.map((c) => [c.name, JSON.stringify(c.options), c] as const))(
  '%s %s',
  (_name, _options, c) => {
    const run = (convert: (t: Tensor) => Tensor, tolerance: number) => {
      const params = c.start.map((p) => new nn.Parameter(convert(unpack(p))))
      const optimizer = new optimizers[c.name](params, c.options)
      c.grads.forEach((grads, i) => {
        params.forEach((p, k) => {
          const g = grads[k]
          p.grad = g && convert(unpack(g))
        })
        optimizer.step()
        params.forEach((p, k) => {
          expectGolden(p, c.after[i][k], tolerance)
        })
      })
      return optimizer
    }

    test('10 steps, with a gradient missing now and then', () => {
      const { state, param_groups } = run((t) => t, 1e-11).stateDict()
      const keys = Object.keys(state[0]).filter((key) => key !== 'step' || c.name !== 'SGD')
      expect(keys.sort()).toEqual(c.stateKeys)
      expect(Object.keys(param_groups[0]).sort()).toEqual(
        c.groupKeys.filter((key) => !foreign.includes(key)),
      )
    })

    test('10 steps in float32', () => {
      run((t) => t.float(), 1e-5)
    })
  },
)

type Schedule = new (optimizer: optim.Optimizer, options: never) => optim.LRScheduler
const schedules = optim as unknown as Record<string, Schedule>

describe.each(golden.schedules.map((c) => [c.name, JSON.stringify(c.options), c] as const))(
  '%s %s',
  (name, _options, c) => {
    const build = () => {
      const optimizer = new optim.SGD(
        [
          { params: [tensor([0], { requiresGrad: true })], lr: 0.5 },
          { params: [tensor([0], { requiresGrad: true })] },
        ],
        { lr: 0.2 },
      )
      return { optimizer, schedule: new schedules[name](optimizer, c.options as never) }
    }

    test('rates', () => {
      const { schedule } = build()
      c.rates.forEach((rates, i) => {
        if (i > 0) schedule.step()
        schedule.getLastLr().forEach((lr, k) => {
          expect(lr).toBeCloseTo(rates[k], 14)
        })
      })
    })

    test('go on from a saved state to the same bits', () => {
      const whole = build()
      const rates = c.rates.map((_, i) => {
        if (i > 0) whole.schedule.step()
        return whole.schedule.getLastLr()
      })
      const first = build()
      for (let i = 0; i < 5; i++) first.schedule.step()
      const saved = JSON.parse(
        JSON.stringify([first.optimizer.stateDict(), first.schedule.stateDict()]),
      )
      const second = build()
      second.optimizer.loadStateDict(saved[0])
      second.schedule.loadStateDict(saved[1])
      expect(second.schedule.getLastLr()).toEqual(rates[5])
      for (let i = 6; i < rates.length; i++) {
        second.schedule.step()
        expect(second.schedule.getLastLr()).toEqual(rates[i])
      }
    })
  },
)

test.each(golden.clipped.map((c) => [c.maxNorm, c.normType, c] as const))(
  'clipGradNorm_ to %s of the %s-norm',
  (maxNorm, normType, c) => {
    const params = c.grads.map((g) => {
      const p = new nn.Parameter(unpack(g).mul(0))
      p.grad = unpack(g)
      return p
    })
    const total = optim.clipGradNorm_(params, maxNorm, {
      normType: normType === 'inf' ? Number.POSITIVE_INFINITY : normType,
    })
    expect(total.item()).toBeCloseTo(c.total, 11)
    params.forEach((p, i) => {
      expectGolden(p.grad, c.after[i])
    })
  },
)
