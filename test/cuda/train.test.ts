// Whole runs on the device: loaders, the Trainer, checkpoints, files, mixed precision.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { DataLoader, randomSplit, TensorDataset } from '../../src/data/index.js'
import {
  autocast,
  type Device,
  device,
  manualSeed,
  rand,
  randn,
  type Tensor,
} from '../../src/index.js'
import { loadSafetensors, saveSafetensors } from '../../src/io/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW, OneCycleLR } from '../../src/optim/index.js'
import { classifierStep, Trainer } from '../../src/train/index.js'
import { elements, expectWithin } from '../support/accuracy.js'
import { testCuda } from '../support/cuda.js'

const cpu = device('cpu')
const cuda = testCuda()
const folder = mkdtempSync(join(tmpdir(), 'adjoint-cuda-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** Points of the plane, in classes by their distance from the origin. */
function rings(at: Device): TensorDataset<[Tensor, Tensor]> {
  manualSeed(1)
  const x = rand([96, 2]).mul(4).sub(2)
  const radius = x.square().sum(1).sqrt()
  const target = radius.gt(0.8).to('int64').add(radius.gt(1.6))
  return new TensorDataset([x.to(at), target.to(at)])
}

/** A network, its optimizer and all else of a run that learns the rings. */
function makeRun(at: Device, data: Device = at, seed = 5) {
  manualSeed(seed)
  const model = new nn.Sequential(
    new nn.Linear(2, 24),
    new nn.BatchNorm1d(24),
    new nn.Tanh(),
    new nn.Dropout(0.1),
    new nn.Linear(24, 3),
  ).to(at)
  const optimizer = new AdamW(model.parameters(), { lr: 0.05 })
  const [training, validation] = randomSplit(rings(data), [72, 24])
  const toDevice = ([x, y]: readonly [Tensor, Tensor]): readonly [Tensor, Tensor] => [
    x.to(at),
    y.to(at),
  ]
  const options = { batchSize: 24, transform: toDevice }
  const loader = new DataLoader(training, { ...options, shuffle: true, seed: 4 })
  const trainer = new Trainer({
    model,
    optimizer,
    schedule: new OneCycleLR(optimizer, { maxLr: 0.05, totalSteps: 36 }),
    scheduleEvery: 'batch',
    step: classifierStep((x) => model.forward(x)),
  })
  manualSeed(6)
  return { model, optimizer, trainer, loader, validation: new DataLoader(validation, options) }
}

const quiet = { progress: false, handleSignals: false }

describe('Trainer', () => {
  test.each([
    ['data on the device', cuda],
    ['data that each batch brings there', cpu],
  ])('trains to the same scores: %s', async (_name, data) => {
    const here = makeRun(cpu)
    const there = makeRun(cuda, data)
    const train = ({ trainer, loader, validation }: typeof here) =>
      trainer.fit(loader, { ...quiet, epochs: 6, validation })
    const want = (await train(here)).history
    const got = (await train(there)).history
    got.forEach((record, i) => {
      expect(record.loss).toBeCloseTo(want[i].loss, 3)
      expect(record.accuracy).toBeCloseTo(want[i].accuracy as number, 1)
      expect(record.validation?.loss).toBeCloseTo(want[i].validation?.loss as number, 2)
    })
    expect(got[5].loss).toBeLessThan(got[0].loss)
    for (const p of there.model.parameters()) expect(p.device).toBe(cuda)
  })

  test('waits for the device only where scores are asked for', async () => {
    const { trainer, loader } = makeRun(cuda)
    const reads = vi.spyOn(cuda.native, 'toHost')
    await trainer.fit(loader, { ...quiet, epochs: 1 })
    // The losses and right answers of three batches, at the end of the epoch.
    expect(reads).toHaveBeenCalledTimes(6)
    reads.mockRestore()
  })

  test('goes on from a checkpoint to the same bits, with dropout', async () => {
    const path = join(folder, 'run.safetensors')
    const whole = makeRun(cuda)
    await whole.trainer.fit(whole.loader, { ...quiet, epochs: 4 })
    const first = makeRun(cuda)
    await first.trainer.fit(first.loader, { ...quiet, epochs: 2, checkpoint: path })
    const second = makeRun(cuda, cuda, 99)
    const { history } = await second.trainer.fit(second.loader, {
      ...quiet,
      epochs: 4,
      resume: path,
    })
    expect(history.length).toBe(4)
    const expected = whole.model.stateDict()
    for (const [key, value] of Object.entries(second.model.stateDict())) {
      expect(value.device).toBe(cuda)
      expect(elements(value), key).toEqual(elements(expected[key]))
    }
  })

  test('goes on on the CPU from a checkpoint of the GPU', async () => {
    const path = join(folder, 'moved.safetensors')
    const there = makeRun(cuda)
    await there.trainer.fit(there.loader, { ...quiet, epochs: 2, checkpoint: path })
    const here = makeRun(cpu)
    const { history } = await here.trainer.fit(here.loader, { ...quiet, epochs: 2, resume: path })
    expect(history.length).toBe(2)
    const expected = there.model.stateDict()
    for (const [key, value] of Object.entries(here.model.stateDict())) {
      expect(value.device).toBe(cpu)
      expect(elements(value), key).toEqual(elements(expected[key]))
    }
  })
})

describe('files', () => {
  const tensors = () => ({
    f32: randn([3, 4]),
    strided: randn([4, 6]).t().slice(0, 1, 6, 2),
    bf16: randn([5]).bfloat16(),
    f16: randn([2, 2]).half(),
    f64: randn([2], { dtype: 'float64' }),
    i64: randn([3]).mul(100).to('int64'),
    bool: randn([7]).gt(0),
    empty: randn([0, 3]),
  })

  test('are the same bytes, whatever the device', () => {
    const here: Record<string, Tensor> = tensors()
    const there = Object.fromEntries(Object.entries(here).map(([key, t]) => [key, t.to(cuda)]))
    const paths = ['here', 'there'].map((name) => join(folder, `${name}.safetensors`))
    saveSafetensors(paths[0], here)
    saveSafetensors(paths[1], there)
    expect(readFileSync(paths[1]).equals(readFileSync(paths[0]))).toBe(true)
    for (const [key, t] of Object.entries(loadSafetensors(paths[0], { device: 'cuda' }))) {
      expect([t.device, t.dtype]).toEqual([cuda, here[key].dtype])
      expect(elements(t)).toEqual(elements(here[key]))
    }
  })

  test('state dictionaries go from device to device', () => {
    const here = new nn.Sequential(new nn.Linear(3, 4), new nn.BatchNorm1d(4))
    const there = new nn.Sequential(new nn.Linear(3, 4), new nn.BatchNorm1d(4)).to(cuda)
    there.loadStateDict(here.stateDict())
    for (const [key, t] of Object.entries(there.stateDict())) {
      expect(t.device).toBe(cuda)
      expect(elements(t)).toEqual(elements(here.stateDict()[key]))
    }
    const path = join(folder, 'model.safetensors')
    saveSafetensors(path, there.stateDict())
    const again = new nn.Sequential(new nn.Linear(3, 4), new nn.BatchNorm1d(4))
    again.loadStateDict(loadSafetensors(path))
    expect(elements(again.parameters()[0])).toEqual(elements(here.parameters()[0]))
  })
})

describe('mixed precision', () => {
  test.each(['bfloat16', 'float16'] as const)('in %s, against the CPU', (dtype) => {
    const run = (at: Device) => {
      manualSeed(8)
      const net = new nn.Sequential(new nn.Linear(6, 16), new nn.GELU(), new nn.Linear(16, 3)).to(
        at,
      )
      manualSeed(9)
      const x = randn([4, 6]).to(at)
      const y = autocast(dtype, () => net.forward(x))
      y.float().square().mean().backward()
      return { y, gradients: net.parameters().map((p) => p.grad as Tensor) }
    }
    const here = run(cpu)
    const there = run(cuda)
    expect([there.y.dtype, there.y.device]).toEqual([dtype, cuda])
    expectWithin(there.y, here.y, 4)
    there.gradients.forEach((g, i) => {
      expect([g.dtype, g.device]).toEqual(['float32', cuda])
      // Both round to the lower dtype on the way, perhaps to neighbours.
      expectWithin(g.to(dtype), here.gradients[i], 8)
    })
  })
})
