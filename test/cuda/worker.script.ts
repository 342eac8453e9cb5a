// Several threads train at once, on one GPU or one on each; each must end with the same result and
// leave nothing.
import { once } from 'node:events'
import { isMainThread, parentPort } from 'node:worker_threads'
import {
  collectGarbage,
  cuda,
  device,
  manualSeed,
  memoryStats,
  noGrad,
  randn,
  setDefaultDevice,
  type Tensor,
} from '../../src/index.js'
import { testCuda } from '../support/cuda.js'
import { startWorker } from '../support/worker.js'

const main = testCuda()
const at = device(process.argv[2] ?? main)
setDefaultDevice(at)

function train(): number {
  manualSeed(1)
  const w = randn([8, 8], { requiresGrad: true })
  for (let i = 0; i < 40; i++) {
    randn([4, 8]).matmul(w).tanh().square().mean().backward()
    noGrad(() => w.sub_((w.grad as Tensor).mul(0.1)))
    w.grad = null
  }
  return w.square().sum().item()
}

async function compare(): Promise<void> {
  const expected = train()
  for (let round = 0; round < 1; round++) {
    const workers = Array.from({ length: 2 }, (_, i) => {
      return startWorker(__filename, [`cuda:${i % cuda.deviceCount()}`])
    })
    const results = workers.map(async (worker) => {
      const [value] = await once(worker, 'message')
      await once(worker, 'exit')
      return value as number
    })
    const values = [train(), ...(await Promise.all(results))]
    if (values.some((value) => value !== expected)) {
      throw new Error(`expected ${expected} from every thread, got ${values}`)
    }
  }
  for (let i = 0; i < cuda.deviceCount(); i++) {
    const place = device(`cuda:${i}`)
    collectGarbage(place)
    const { liveBytes, processLiveBytes } = memoryStats(place)
    if (processLiveBytes !== liveBytes) {
      throw new Error(`workers left ${processLiveBytes - liveBytes} bytes on ${place}`)
    }
  }
  if (memoryStats(device('cpu')).liveTensors !== 0) throw new Error('expected no tensors elsewhere')
  console.log('agreed')
}

if (isMainThread) compare()
else parentPort?.postMessage(train())
