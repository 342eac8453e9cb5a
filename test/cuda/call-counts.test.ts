// What a training step asks of the device, counted by the emulation: docs/cuda.md has the table.
import { describe, expect, test } from 'vitest'
import {
  capture,
  manualSeed,
  randint,
  randn,
  setDefaultDevice,
  type Tensor,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW, clipGradNorm_ } from '../../src/optim/index.js'
import { type CallCounts, countCalls } from '../support/call-counts.js'
import { isRealCuda, testCuda } from '../support/cuda.js'
import { SmallGpt } from '../support/small-networks.js'

const { crossEntropy } = nn.functional
setDefaultDevice(testCuda())

const mlp = () =>
  new nn.Sequential(
    ...[new nn.Flatten(), new nn.Linear(64, 32), new nn.ReLU()],
    ...[new nn.Dropout(0.5), new nn.Linear(32, 10)],
  )

const cnn = () =>
  new nn.Sequential(
    ...[new nn.Conv2d(1, 4, 3), new nn.BatchNorm2d(4), new nn.ReLU(), new nn.MaxPool2d(2)],
    ...[new nn.Flatten(), new nn.Linear(36, 10)],
  )

const gpt = () => new SmallGpt(11, 7)

const images = () => [randn([8, 1, 8, 8]), randint(0, 10, [8])]
const text = () => [randint(0, 11, [2, 7]), randint(0, 11, [14])]

/** Steps after which memory, and the pinned buffers of eight uploads, are there. */
const WARM = 10

/** Network, what it reads, whether gradients are clipped; at most so many of a step. */
const ROWS: [string, () => nn.Layer, () => Tensor[], boolean, Partial<CallCounts>][] = [
  ['an MLP', mlp, images, false, { nativeCalls: 11, kernels: 12, libraryCalls: 5 }],
  ['an MLP, clipped', mlp, images, true, { nativeCalls: 13, kernels: 15, libraryCalls: 5 }],
  ['a CNN', cnn, images, false, { nativeCalls: 14, kernels: 18, libraryCalls: 5 }],
  ['a GPT of one block', gpt, text, false, { nativeCalls: 35, kernels: 40, libraryCalls: 17 }],
]

describe.skipIf(isRealCuda).each(ROWS)('a step of %s', (_name, make, draw, clips, most) => {
  const prepare = () => {
    manualSeed(3)
    const network = make()
    const optimizer = new AdamW(network.parameters())
    const [x, y] = draw()
    const step = (x: Tensor, y: Tensor) => {
      optimizer.zeroGrad()
      const loss = crossEntropy(network.forward(x), y)
      loss.backward()
      if (clips) clipGradNorm_(network.parameters(), 1)
      optimizer.step()
      return loss
    }
    return { step, x, y }
  }

  test('launches no more than it did, allocates nothing and waits for nothing', () => {
    const { step, x, y } = prepare()
    for (let i = 0; i < WARM; i++) step(x, y)
    const counts = countCalls(() => step(x, y))
    for (const [name, count] of Object.entries(most)) {
      expect(counts[name as keyof CallCounts], name).toBeLessThanOrEqual(count)
    }
    expect(counts).toMatchObject({
      ...{ graphs: 0, uploads: 0, downloads: 0, deviceAllocations: 0, pinnedAllocations: 0 },
      ...{ frees: 0, streamWaits: 0 },
    })
  })

  test('captured is one native call, one upload and one graph', () => {
    const { step, x, y } = prepare()
    const captured = capture(step)
    for (let i = 0; i < WARM; i++) captured(x, y)
    const counts = countCalls(() => captured(x, y))
    expect(counts).toMatchObject({
      ...{ nativeCalls: 1, graphs: 1, uploads: 1, libraryCalls: 0, downloads: 0 },
      ...{ deviceAllocations: 0, pinnedAllocations: 0, frees: 0, streamWaits: 0 },
    })
    // The inputs are copied to where the graph reads them. A pinned buffer is waited for, which
    // took the upload of eight steps ago.
    expect(counts.eventWaits).toBeLessThanOrEqual(1)
    expect(counts.kernels + counts.deviceCopies).toBeLessThanOrEqual(2)
  })
})
