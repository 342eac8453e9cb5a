// npm run bench:memory -- [--steps n] [--json file]
// Plain synchronous loops that never dispose and never await: resident memory after 1,000 steps and
// at the end, and the part of the time that reclaiming took. Each loop runs in a process of its own,
// in the main thread or in a worker.
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { memoryStats, noGrad, randint, randn, type Tensor, zeros } from 'adjoint'
import * as nn from 'adjoint/nn'
import { AdamW } from 'adjoint/optim'
import { mlpWithDropout } from '../examples/support/networks.mjs'

// The CPU's figures, also on a machine with a GPU.
process.env.ADJOINT_DEVICE = 'cpu'

const loops: Record<string, () => () => void> = {
  'without gradients': () => {
    const w = randn([64, 64])
    return () => void randn([32, 64]).matmul(w).tanh().sum()
  },
  'with gradients': () => {
    const w = randn([64, 64], { requiresGrad: true })
    return () => {
      w.grad = null
      randn([32, 64]).matmul(w).tanh().square().mean().backward()
      noGrad(() => w.sub_((w.grad as Tensor).mul(0.01)))
    }
  },
  // As `step/mlp` of the other benchmarks, which takes 20 times as long: a tenth of the steps.
  'training an MLP': () => {
    const [network, x, y] = [mlpWithDropout(0.5), randn([64, 1, 28, 28]), randint(0, 10, [64])]
    const optimizer = new AdamW(network.parameters())
    return () => {
      optimizer.zeroGrad()
      nn.functional.crossEntropy(network.forward(x), y).backward()
      optimizer.step()
    }
  },
  'graph without backward': () => {
    const w = randn([64, 64], { requiresGrad: true })
    return () => void randn([32, 64]).matmul(w).tanh().square().mean()
  },
  // Values that live across steps: they die in major collections alone.
  'functional SGD': () => {
    let w = randn([256, 256], { requiresGrad: true })
    return () => {
      randn([32, 256]).matmul(w).tanh().square().mean().backward()
      const g = w.grad as Tensor
      w = noGrad(() => w.sub(g.mul(0.01))).requiresGrad_()
    }
  },
  'recurrent state': () => {
    const w = randn([128, 128]).mul(0.05)
    let h = zeros([32, 128])
    return () => {
      h = h
        .matmul(w)
        .add(randn([32, 128]))
        .tanh()
    }
  },
  'replay buffer': () => {
    const buffer: Tensor[] = []
    let i = 0
    return () => {
      buffer[i++ % 500] = randn([64, 64])
      if (buffer.length === 500) void buffer[(i * 7) % 500].square().mean()
    }
  },
}

/** Of the steps that are asked for; default 1. */
const PARTS: Record<string, number> = { 'training an MLP': 0.1 }

interface Footprint {
  readonly early: number
  readonly end: number
  readonly share: number
  readonly majors: number
  readonly microseconds: number
}

function measure(name: string, steps: number): Footprint {
  const step = loops[name]()
  const count = steps * (PARTS[name] ?? 1)
  const warm = Math.min(1000, count / 2)
  for (let i = 0; i < warm; i++) step()
  const early = process.memoryUsage.rss()
  const before = memoryStats()
  const start = performance.now()
  for (let i = warm; i < count; i++) step()
  const total = performance.now() - start
  const after = memoryStats()
  const spent = (s: typeof before) => s.sweepMs + s.minorMs + s.majorMs
  return {
    early,
    end: process.memoryUsage.rss(),
    share: (spent(after) - spent(before)) / total,
    majors: after.majorCollections,
    microseconds: (total * 1000) / (count - warm),
  }
}

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '100000' },
    json: { type: 'string' },
    only: { type: 'string' },
    worker: { type: 'boolean', default: false },
  },
})
const steps = Number(values.steps)

if (!isMainThread) {
  parentPort?.postMessage(measure(workerData as string, steps))
} else if (values.only && values.worker) {
  const worker = new Worker(`require('tsx/cjs'); require(${JSON.stringify(__filename)})`, {
    eval: true,
    workerData: values.only,
    argv: ['--steps', values.steps],
  })
  worker.once('message', (result) => console.log(JSON.stringify(result)))
} else if (values.only) {
  console.log(JSON.stringify(measure(values.only, steps)))
} else {
  const results: Record<string, Footprint> = {}
  console.log(
    `${steps} steps; MB after 1,000 steps and at the end; part of the time in reclamation`,
  )
  for (const name of Object.keys(loops)) {
    for (const where of ['main', 'worker']) {
      const extra = where === 'worker' ? ['--worker'] : []
      const done = spawnSync(
        process.execPath,
        ['--import', 'tsx', __filename, '--steps', values.steps, '--only', name, ...extra],
        { encoding: 'utf8' },
      )
      if (done.status !== 0) throw new Error(`${name}, ${where}: ${done.stderr}`)
      const f = JSON.parse(done.stdout) as Footprint
      results[`${name}, ${where}`] = f
      console.log(
        `${`${name}, ${where}`.padEnd(34)}${(f.early / 1e6).toFixed(0).padStart(6)}` +
          `${(f.end / 1e6).toFixed(0).padStart(6)}  ${(f.end / f.early).toFixed(3)}x` +
          `${(100 * f.share).toFixed(2).padStart(7)} %  ${f.majors} majors` +
          `  ${f.microseconds.toFixed(1)} µs a step`,
      )
    }
  }
  if (values.json) writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`)
}
