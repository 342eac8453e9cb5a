// Several workers train at once; each must end with the same result and leave nothing behind.
import { once } from 'node:events'
import { isMainThread, parentPort } from 'node:worker_threads'
import { manualSeed, memoryStats, noGrad, randn, type Tensor } from '../../src/index.js'
import { startWorker } from '../support/worker.js'

function train(): number {
  manualSeed(1)
  const w = randn([64, 64], { requiresGrad: true })
  for (let i = 0; i < 300; i++) {
    randn([16, 64]).matmul(w).tanh().square().mean().backward()
    noGrad(() => w.sub_((w.grad as Tensor).mul(0.1)))
    w.grad = null
  }
  return w.square().sum().item()
}

async function main(): Promise<void> {
  const expected = train()
  for (let round = 0; round < 3; round++) {
    const workers = Array.from({ length: 3 }, () => startWorker(__filename))
    const results = await Promise.all(
      workers.map(async (worker) => {
        const [value] = await once(worker, 'message')
        await once(worker, 'exit')
        return value as number
      }),
    )
    if (results.some((value) => value !== expected)) {
      throw new Error(`expected ${expected} from every worker, got ${results}`)
    }
  }
  const { liveBytes, processLiveBytes } = memoryStats()
  if (processLiveBytes !== liveBytes) {
    throw new Error(`workers left ${processLiveBytes - liveBytes} bytes`)
  }
  console.log('agreed')
}

if (isMainThread) main()
else parentPort?.postMessage(train())
