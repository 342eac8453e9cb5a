import { describe, expect, it } from 'vitest'
import {
  type CapturedStep,
  capture,
  collectGarbage,
  memoryStats,
  randint,
  randn,
  type Tensor,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW } from '../../src/optim/index.js'

const WIDTH = 256
const BATCH = 512
const x = randn([BATCH, WIDTH])
const y = randint(0, 10, [BATCH])

function training(): (x: Tensor, y: Tensor) => Tensor {
  const layers = Array.from({ length: 8 }, () => [new nn.Linear(WIDTH, WIDTH), new nn.Tanh()])
  const net = new nn.Sequential(...layers.flat(), new nn.Linear(WIDTH, 10))
  const optimizer = new AdamW(net.parameters())
  return (a, b) => {
    optimizer.zeroGrad()
    const loss = nn.functional.crossEntropy(net.forward(a), b)
    loss.backward()
    optimizer.step()
    return loss
  }
}

function liveBytes(): number {
  collectGarbage()
  return memoryStats().liveBytes
}

describe('the memory of a captured step', () => {
  it('is about what an eager step takes at its peak', () => {
    const before = liveBytes()
    const train = training()
    train(x, y)
    const kept = liveBytes()
    // What the forward pass saves: the results of 16 layers.
    const saved = 16 * BATCH * WIDTH * 4
    const step = capture(train)
    for (let i = 0; i < 3; i++) step(x, y)
    const more = liveBytes() - kept
    expect(kept).toBeGreaterThan(before)
    expect(more).toBeGreaterThan(saved / 2)
    expect(more).toBeLessThan(1.3 * saved)
  })

  it('stays as it is from one replay to the next', () => {
    const step = capture(training())
    for (let i = 0; i < 3; i++) step(x, y)
    const before = memoryStats()
    for (let i = 0; i < 50; i++) step(x, y)
    const after = memoryStats()
    for (const key of ['liveTensors', 'liveNodes', 'liveBytes'] as const) {
      expect(after[key], key).toBe(before[key])
    }
  })

  it('is given back by dispose', () => {
    const train = training()
    train(x, y)
    const before = liveBytes()
    const step = capture(train)
    for (let i = 0; i < 3; i++) step(x, y)
    expect(liveBytes()).toBeGreaterThan(before + (1 << 20))
    step.dispose()
    // The last loss and, in case, what V8 keeps of the last call.
    expect(Math.abs(liveBytes() - before)).toBeLessThan(1 << 12)
  })

  it('goes with a step that nobody holds', () => {
    const train = training()
    train(x, y)
    const before = liveBytes()
    const record = () => {
      const step: CapturedStep<[Tensor, Tensor], Tensor> = capture(train)
      for (let i = 0; i < 3; i++) step(x, y)
    }
    record()
    expect(Math.abs(liveBytes() - before)).toBeLessThan(1 << 12)
  })

  it('goes with recordings that failed', () => {
    const train = training()
    train(x, y)
    const before = liveBytes()
    const step = capture((a: Tensor, b: Tensor) => {
      const loss = train(a, b)
      return loss.item()
    })
    step(x, y)
    for (let i = 0; i < 3; i++) expect(() => step(x, y)).toThrow()
    step.dispose()
    expect(Math.abs(liveBytes() - before)).toBeLessThan(1 << 12)
  })
})
