// Ends the process, or a worker, while work is under way and tensors are alive.
import { isMainThread, parentPort } from 'node:worker_threads'
import { randn } from '../../src/index.js'
import { startWorker } from '../support/worker.js'

const kind = process.argv[2]
const held = [randn([256, 256], { requiresGrad: true })]

function work(): void {
  held.push(held[held.length - 1].matmul(held[0]).tanh())
}

if (kind === 'exit') {
  setInterval(work, 0)
  setTimeout(() => process.exit(0), 50)
} else if (kind === 'throw') {
  setInterval(work, 0)
  process.on('uncaughtException', () => process.exit(0))
  setTimeout(() => {
    throw new Error('on purpose')
  }, 50)
} else if (isMainThread) {
  terminateWorkers()
} else {
  work()
  parentPort?.postMessage('working')
  for (;;) work()
}

/** Stops each worker in the middle of a call. */
async function terminateWorkers(): Promise<void> {
  for (let i = 0; i < 4; i++) {
    const worker = startWorker(__filename, [kind])
    await new Promise((resolve) => worker.once('message', resolve))
    await worker.terminate()
  }
}
