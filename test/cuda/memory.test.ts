// Memory of the device: a plain loop keeps it flat, without dispose, tidy or await.
import { describe, expect, test } from 'vitest'
import {
  collectGarbage,
  device,
  emptyCache,
  full,
  memoryStats,
  randn,
  type Tensor,
  tidy,
  zeros,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW } from '../../src/optim/index.js'
import { testCuda } from '../support/cuda.js'
import { leftBy, nothing } from '../support/live.js'
import { runScript } from '../support/run.js'

const cuda = testCuda()
const on = { device: cuda }
const MB = 2 ** 20

const leftThere = (body: () => void) => leftBy(body, cuda)

describe('a plain loop', () => {
  test('of results keeps memory flat', () => {
    let peak = 0
    const left = leftThere(() => {
      let x = zeros([32_768], on)
      for (let i = 0; i < 2000; i++) {
        x = x.add(1)
        peak = Math.max(peak, memoryStats(cuda).liveBytes)
      }
      expect(x.select(0, 7).item()).toBe(2000)
    })
    expect(left).toEqual(nothing)
    expect(peak).toBeLessThan(64 * MB)
  })

  test('of training steps keeps memory flat', () => {
    let peak = 0
    let early = 0
    const left = leftThere(() => {
      const net = new nn.Sequential(new nn.Linear(64, 64), new nn.Tanh(), new nn.Linear(64, 8)).to(
        cuda,
      )
      const optimizer = new AdamW(net.parameters())
      const batches = Array.from({ length: 4 }, () => randn([64, 64], on))
      for (let i = 0; i < 300; i++) {
        optimizer.zeroGrad()
        net
          .forward(batches[i % 4])
          .square()
          .mean()
          .backward()
        optimizer.step()
        peak = Math.max(peak, memoryStats(cuda).liveBytes)
        if (i === 100) early = memoryStats(cuda).reservedBytes
      }
      // What the first steps took from the device is enough for the others.
      expect(memoryStats(cuda).reservedBytes).toBeLessThanOrEqual(early + 8 * MB)
    })
    expect(left).toEqual(nothing)
    expect(peak).toBeLessThan(64 * MB)
  })

  test('of batches that come from the CPU keeps both flat', () => {
    let peak = 0
    const left = leftThere(() => {
      for (let i = 0; i < 200; i++) {
        const batch = full([65_536], i).to(cuda)
        if (i % 50 === 0) expect(batch.select(0, 5).item()).toBe(i)
        peak = Math.max(peak, memoryStats(cuda).liveBytes, memoryStats('cpu').liveBytes)
      }
    })
    expect(left).toEqual(nothing)
    expect(peak).toBeLessThan(64 * MB)
  })
})

test('dropped graphs, tidy and dispose give memory back', () => {
  const left = leftThere(() => {
    const w = randn([32, 32], { ...on, requiresGrad: true })
    for (let i = 0; i < 20; i++) w.matmul(w).tanh().sum()
    const y = tidy(() => w.exp().mul(2).sum())
    const [a, b] = [y.add(1), y.add(2)]
    a.dispose()
    b[Symbol.dispose]()
  })
  expect(left).toEqual(nothing)
})

test('the cache is given back when asked for', () => {
  const hold: Tensor[] = [full([1_000_000], 1, on)]
  hold.pop()?.dispose()
  collectGarbage(cuda)
  emptyCache(cuda)
  const { cachedBytes, reservedBytes, processLiveBytes } = memoryStats(cuda)
  expect(cachedBytes).toBe(0)
  expect(reservedBytes).toBeGreaterThanOrEqual(processLiveBytes)
})

test('memory of the CPU is another matter', () => {
  const before = memoryStats('cpu').liveBytes
  const x = full([1000], 1, on)
  expect(memoryStats('cpu').liveBytes).toBe(before)
  expect(memoryStats(cuda).liveBytes).toBeGreaterThanOrEqual(4000)
  expect(memoryStats(device('cuda'))).toEqual(memoryStats(x.device))
})

test('threads share the device, and a thread that ends leaves nothing', () => {
  const done = runScript('test/cuda/worker.script.ts')
  expect(done.stderr).toBe('')
  expect(done.stdout).toBe('agreed\n')
  expect(done.status).toBe(0)
}, 60_000)
