import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterAll, describe, expect, it } from 'vitest'
import { ArgumentError, FileError } from '../../src/core/errors.js'
import { isGradEnabled, noGrad } from '../../src/core/grad-mode.js'
import type { Tensor } from '../../src/core/tensor.js'
import { DataLoader, TensorDataset } from '../../src/data/index.js'
import { tensor } from '../../src/ops/index.js'
import { type FitOptions, Progress, Trainer } from '../../src/train/index.js'

const folder = mkdtempSync(join(tmpdir(), 'adjoint-trainer-'))
afterAll(() => rmSync(folder, { recursive: true }))

type Batch = readonly [Tensor, Tensor]

// y = w x + b, learned from points of y = 3 x - 1 by gradient descent written out: the trainer
// is tested here, with as little else as can be.
function line(seed = 0) {
  let w = tensor([0.5], { requiresGrad: true })
  let b = tensor([0], { requiresGrad: true })
  const modes: string[] = []
  const model = {
    train: () => modes.push('train'),
    eval: () => modes.push('eval'),
    stateDict: () => ({ w, b }),
    loadStateDict: (state: { w: Tensor; b: Tensor }) => {
      w = state.w.clone().requiresGrad_()
      b = state.b.clone().requiresGrad_()
    },
  }
  const optimizer = {
    lr: 0.1,
    zeroGrad: () => {
      w.grad = null
      b.grad = null
    },
    step: () => {
      const moved = (p: Tensor) =>
        noGrad(() => p.sub((p.grad as Tensor).mul(optimizer.lr))).requiresGrad_()
      w = moved(w)
      b = moved(b)
    },
    stateDict: () => ({ lr: optimizer.lr }),
    loadStateDict: (state: { lr: number }) => {
      optimizer.lr = state.lr
    },
  }
  const schedule = {
    step: () => {
      optimizer.lr *= 0.9
    },
    stateDict: () => ({}),
    loadStateDict: () => {},
  }
  const gradModes: boolean[] = []
  const step = ([x, y]: Batch) => {
    gradModes.push(isGradEnabled())
    const error = w.mul(x).add(b).sub(y)
    const correct = error.detach().abs().lt(0.1).sum()
    return { loss: error.mul(error).mean(), correct, samples: x.length }
  }
  const xs = Float32Array.from({ length: 20 }, (_, i) => (i - 10) / 10)
  const data = new TensorDataset([tensor(xs), tensor(xs.map((x) => 3 * x - 1))])
  const loader = new DataLoader(data, { batchSize: 6, shuffle: true, seed })
  const trainer = new Trainer<Batch>({ model, optimizer, schedule, step })
  const weights = () => [w.item(), b.item()]
  return { trainer, loader, data, weights, modes, gradModes, optimizer, model, step }
}

const quiet = <T extends Partial<FitOptions<Batch>>>(options: T) => ({
  progress: false,
  handleSignals: false,
  ...options,
})

describe('Trainer.fit', () => {
  it('learns, and records one row per epoch', async () => {
    const { trainer, loader, data, weights, optimizer } = line()
    optimizer.lr = 0.5
    const validation = new DataLoader(data, { batchSize: 20 })
    const { history, end } = await trainer.fit(loader, quiet({ epochs: 30, validation }))
    expect(end).toBe('completed')
    expect(history.map(({ epoch }) => epoch)).toEqual(Array.from({ length: 30 }, (_, i) => i + 1))
    expect(weights()[0]).toBeCloseTo(3, 1)
    expect(weights()[1]).toBeCloseTo(-1, 1)
    expect(history[29].validation?.loss).toBeLessThan(history[0].validation?.loss as number)
    expect(history[29].validation?.accuracy).toBe(1)
    for (const { seconds } of history) expect(seconds).toBeGreaterThan(0)
  })

  it('weighs the short last batch by its samples', async () => {
    const { trainer, loader, optimizer } = line()
    optimizer.lr = 0
    const { history } = await trainer.fit(loader, quiet({ epochs: 1 }))
    // With w = 0.5 and b = 0: mean of (1 - 2.5 x)² over x = -1, -0.9, … 0.9.
    const xs = Array.from({ length: 20 }, (_, i) => (i - 10) / 10)
    const mean = xs.reduce((sum, x) => sum + (1 - 2.5 * x) ** 2, 0) / 20
    expect(history[0].loss).toBeCloseTo(mean, 5)
    expect(history[0].accuracy).toBe(1 / 20)
  })

  it('validates in evaluation mode, without gradients, and trains on in training mode', async () => {
    const { trainer, loader, data, modes, gradModes } = line()
    const validation = new DataLoader(data, { batchSize: 20 })
    await trainer.fit(loader, quiet({ epochs: 2, validation }))
    expect(modes).toEqual(['train', 'eval', 'train', 'train', 'eval', 'train'])
    expect(gradModes.slice(0, 5)).toEqual([true, true, true, true, false])
  })

  it('steps the schedule per epoch or per batch', async () => {
    const perEpoch = line()
    await perEpoch.trainer.fit(perEpoch.loader, quiet({ epochs: 2 }))
    expect(perEpoch.optimizer.lr).toBeCloseTo(0.1 * 0.9 ** 2)
    const perBatch = line()
    const trainer = new Trainer<Batch>({ ...perBatch.trainer.options, scheduleEvery: 'batch' })
    await trainer.fit(perBatch.loader, quiet({ epochs: 2 }))
    expect(perBatch.optimizer.lr).toBeCloseTo(0.1 * 0.9 ** 8)
  })

  it('calls back after batches and epochs, and stops where it is told to', async () => {
    const { trainer, loader } = line()
    const seen: string[] = []
    const result = await trainer.fit(
      loader,
      quiet({
        epochs: 5,
        onBatchEnd: ({ epoch, batch, result }) => seen.push(`${epoch}.${batch}:${result.samples}`),
        onEpochEnd: ({ epoch }) => (epoch === 2 ? 'stop' : undefined),
      }),
    )
    expect(result.end).toBe('callback')
    expect(seen).toEqual(['1.1:6', '1.2:6', '1.3:6', '1.4:2', '2.1:6', '2.2:6', '2.3:6', '2.4:2'])
  })

  it('stops early when nothing improves', async () => {
    const { trainer, loader, optimizer } = line()
    optimizer.lr = 0
    const { end, history } = await trainer.fit(
      loader,
      quiet({ epochs: 50, earlyStop: { patience: 3, minDelta: 1e-3 } }),
    )
    expect([end, history.length]).toEqual(['earlyStop', 4])
  })

  it('lets timers run between batches', async () => {
    const { trainer, loader } = line()
    let ticks = 0
    const timer = setInterval(() => ticks++, 0)
    await trainer.fit(loader, quiet({ epochs: 20 }))
    clearInterval(timer)
    expect(ticks).toBeGreaterThan(2)
  })

  it('shows its progress', async () => {
    const { trainer, loader } = line()
    const stream = new PassThrough() as unknown as NodeJS.WriteStream
    const progress = new Progress({ stream })
    await trainer.fit(loader, { epochs: 2, progress, handleSignals: false })
    const text = String((stream as unknown as PassThrough).read())
    expect(text).toMatch(/^Epoch 1\/2 · loss \d\.\d{4} · accuracy \d+\.\d\d % · [\d,]+ samples\/s/)
    expect(text.trim().split('\n').length).toBe(2)
  })

  it('refuses options that make no sense, and leaves no signal handler behind', async () => {
    const { trainer, loader } = line()
    const handlers = process.listenerCount('SIGINT')
    for (const epochs of [-1, 0.5, Number.NaN]) {
      await expect(trainer.fit(loader, { epochs, progress: false })).rejects.toThrow(ArgumentError)
    }
    const earlyStop = { patience: 0 }
    await expect(trainer.fit(loader, { epochs: 1, earlyStop })).rejects.toThrow(ArgumentError)
    const onBatchEnd = () => {
      throw new Error('from the callback')
    }
    await expect(trainer.fit(loader, { epochs: 1, progress: false, onBatchEnd })).rejects.toThrow(
      'from the callback',
    )
    expect(process.listenerCount('SIGINT')).toBe(handlers)
  })
})

describe('checkpoints', () => {
  it('resume to the same bits from an interruption in training and in validation', async () => {
    const epochs = 3
    const whole = line(5)
    const validation = () => new DataLoader(line().data, { batchSize: 5 })
    const full = await whole.trainer.fit(whole.loader, quiet({ epochs, validation: validation() }))

    // Steps in all, 4 of training and 4 of validation in an epoch: what is stopped is the middle
    // and the last batch of training, and validation.
    for (const stopAt of [1, 4, 6, 9, 15]) {
      const path = join(folder, `stopped-${stopAt}.ckpt`)
      const abort = new AbortController()
      const first = line(5)
      let steps = 0
      const step = (batch: Batch) => {
        if (++steps === stopAt) abort.abort()
        return first.step(batch)
      }
      const trainer = new Trainer<Batch>({ ...first.trainer.options, step })
      const stopped = await trainer.fit(
        first.loader,
        quiet({ epochs, validation: validation(), checkpoint: path, signal: abort.signal }),
      )
      expect(stopped.end).toBe('interrupted')
      const second = line(5)
      const resumed = await second.trainer.fit(
        second.loader,
        quiet({ epochs, validation: validation(), resume: path }),
      )
      expect(second.weights()).toEqual(whole.weights())
      const scores = (history: typeof full.history) =>
        history.map(({ seconds: _, ...record }) => record)
      expect(scores(resumed.history)).toEqual(scores(full.history))
    }
  })

  it('go on for more epochs, and have nothing to do when all are done', async () => {
    const path = join(folder, 'more.ckpt')
    const first = line()
    await first.trainer.fit(first.loader, quiet({ epochs: 2, checkpoint: path }))
    const again = line()
    const done = await again.trainer.fit(again.loader, quiet({ epochs: 2, resume: path }))
    expect(done).toMatchObject({ end: 'completed', history: [{ epoch: 1 }, { epoch: 2 }] })
    expect(again.weights()).toEqual(first.weights())
    const more = line()
    const { history } = await more.trainer.fit(more.loader, quiet({ epochs: 3, resume: path }))
    expect(history.length).toBe(3)
  })

  it('are written as often as they are asked for', async () => {
    const { trainer, loader } = line()
    const path = join(folder, 'often.ckpt')
    const there: boolean[] = []
    const onBatchEnd = () => {
      there.push(existsSync(path))
      rmSync(path, { force: true })
    }
    const checkpoint = { path, everyBatches: 2 }
    await trainer.fit(loader, quiet({ epochs: 1, checkpoint, onBatchEnd }))
    expect(there).toEqual([false, false, true, false])
    expect(existsSync(path)).toBe(true)
  })

  it('are refused when missing, broken, or of another run', async () => {
    const { trainer, loader, data } = line()
    const path = join(folder, 'refused.ckpt')
    const resume = () => trainer.fit(loader, quiet({ epochs: 1, resume: path }))
    await expect(resume()).rejects.toThrow(FileError)
    writeFileSync(path, 'hello')
    await expect(resume()).rejects.toThrow(FileError)

    const other = new DataLoader(data, { batchSize: 5 })
    await trainer.fit(other, quiet({ epochs: 1, checkpoint: path }))
    await expect(resume()).rejects.toThrow(/expected batchSize 6, got 5/)

    const plain = new Trainer<Batch>({ ...trainer.options, schedule: undefined })
    await plain.fit(loader, quiet({ epochs: 1, checkpoint: path }))
    await expect(resume()).rejects.toThrow(`${path}: expected a run with a schedule`)

    await expect(
      trainer.fit(loader, quiet({ epochs: 1, checkpoint: join(folder, 'no/x.ckpt') })),
    ).rejects.toThrow(FileError)
  })
})

describe('Trainer.evaluate', () => {
  it('gives the means over a data set', async () => {
    const { trainer, data } = line()
    const { loss, accuracy } = await trainer.evaluate(new DataLoader(data, { batchSize: 7 }))
    const whole = await trainer.evaluate(new DataLoader(data, { batchSize: 20 }))
    expect(loss).toBeCloseTo(whole.loss, 6)
    expect(accuracy).toBe(whole.accuracy)
  })
})
