// Several threads train on the device at once; each must end with the same result and leave nothing.
import { once } from 'node:events'
import { isMainThread, parentPort } from 'node:worker_threads'
import {
  collectGarbage,
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

const cuda = testCuda()
setDefaultDevice(cuda)

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

async function main(): Promise<void> {
  const expected = train()
  for (let round = 0; round < 1; round++) {
    const workers = Array.from({ length: 2 }, () => startWorker(__filename))
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
  collectGarbage(cuda)
  const { liveBytes, processLiveBytes } = memoryStats(cuda)
  if (processLiveBytes !== liveBytes) {
    throw new Error(`workers left ${processLiveBytes - liveBytes} bytes`)
  }
  if (memoryStats(device('cpu')).liveTensors !== 0) throw new Error('expected no tensors elsewhere')
  console.log('agreed')
}

if (isMainThread) main()
else parentPort?.postMessage(train())
