/**
 * Captured steps on CUDA, replayed as graphs. What `test/core` asks of them on the CPU is asked
 * here once more; `capture-calls.test.ts` has the same without graphs.
 */
import { describe, expect, test } from 'vitest'
import { setDefaultDevice } from '../../src/core/device.js'
import {
  capture,
  IndexError,
  memoryStats,
  ones,
  randn,
  randperm,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW, CosineAnnealingLR, clipGradNorm_ } from '../../src/optim/index.js'
import { testCuda } from '../support/cuda.js'
import { bits, expectSameBits } from '../support/twins.js'

setDefaultDevice(testCuda())
await import('../core/capture.test.js')
await import('../core/capture-programs.test.js')

describe('graphs', () => {
  test('of a regression with dropout, AdamW, a schedule and clipping', () => {
    const batches = Array.from({ length: 20 }, () => [randn([16, 12]), randn([16, 3])])
    expectSameBits(() => {
      const network = new nn.Sequential(
        new nn.Linear(12, 32),
        new nn.Tanh(),
        new nn.Dropout(0.3),
        new nn.Linear(32, 32),
        new nn.ReLU(),
        new nn.Dropout(0.1),
        new nn.Linear(32, 3),
      )
      const optimizer = new AdamW(network.parameters(), { lr: 3e-2, weightDecay: 0.1 })
      const schedule = new CosineAnnealingLR(optimizer, { tMax: 20 })
      const step = (x: Tensor, y: Tensor): Tensor[] => {
        optimizer.zeroGrad()
        const loss = network.forward(x).sub(y).square().mean()
        loss.backward()
        const norm = clipGradNorm_(network.parameters(), 0.5)
        optimizer.step()
        return [loss, norm]
      }
      return { network, optimizer, step, between: () => schedule.step() }
    }, batches)
  })

  test('draw permutations and numbers anew', () => {
    expectSameBits(
      () => {
        const network = new nn.Linear(2, 2)
        const step = (x: Tensor): Tensor[] => [
          x.indexSelect(0, randperm(7)),
          randn([0, 3]),
          randn([5], { dtype: 'float64' }),
        ]
        return { network, step }
      },
      Array.from({ length: 5 }, () => [randn([7, 2])]),
    )
  })

  test('are made at the first replay', () => {
    const step = capture((a: Tensor) => a.mul(2))
    const ways = Array.from({ length: 4 }, (_, i) => {
      expect(step(tensor([i])).toArray()).toEqual([2 * i])
      return step.replayedBy
    })
    expect(ways).toEqual([null, 'calls', 'graph', 'graph'])
  })

  test('take nothing that values made between replays need', () => {
    const w = randn([33, 65]).t()
    const step = capture((a: Tensor) => a.matmul(w.slice(0, 0, 33)).add(tensor([1, 2, 3]).sum()))
    const x = randn([9, 33])
    const expected = bits(step(x))
    const kept: Tensor[] = []
    for (let i = 0; i < 30; i++) {
      kept.push(ones([17 * (i + 1)]))
      expect(bits(step(x))).toBe(expected)
    }
    for (const t of kept) expect(t.min().item()).toBe(1)
  })

  test('give their memory back', () => {
    const x = randn([64, 64])
    const w = randn([64, 64])
    const before = memoryStats(x.device).liveBytes
    const step = capture((a: Tensor) => a.matmul(w).softmax(1).matmul(a))
    for (let i = 0; i < 3; i++) step(x)
    expect(step.replayedBy).toBe('graph')
    expect(memoryStats(x.device).liveBytes).toBeGreaterThan(before)
    step.dispose()
    expect(memoryStats(x.device).liveBytes - before).toBeLessThan(1 << 15)
  })

  test('raise what a kernel finds at the next wait', () => {
    const rows = randn([5, 2])
    const step = capture((index: Tensor) => rows.indexSelect(0, index).sum())
    const good = tensor([4n, 0n])
    for (let i = 0; i < 3; i++) step(good)
    const expected = step(good).item()
    step(tensor([4n, 5n]))
    expect(() => rows.toArray()).toThrow(IndexError)
    expect(step(good).item()).toBe(expected)
  })

  test('are not made of a step without calls, which has nothing to run', () => {
    const held = zeros([2])
    const step = capture(() => held)
    for (let i = 0; i < 4; i++) expect(step().toArray()).toEqual([0, 0])
  })
})
