// Trains by a captured step and eagerly: the losses must be the same. With `worker` in workers too,
// and again while the process exits; else it exits inside of a recording. Under ADJOINT_GC_STRESS=1 every allocation collects, so that
// what a recording has not pinned is overwritten by others.
import { once } from 'node:events'
import { isMainThread, parentPort } from 'node:worker_threads'
import { capture, full, manualSeed, randint, randn, type Tensor } from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW } from '../../src/optim/index.js'
import { startWorker } from '../support/worker.js'

function losses(isCaptured: boolean): number[] {
  manualSeed(3)
  const net = new nn.Sequential(new nn.Linear(6, 32), new nn.ReLU(), new nn.Linear(32, 3))
  const optimizer = new AdamW(net.parameters(), { lr: 1e-2 })
  // Alive until it is recorded, and then in the recording alone.
  const scales: (Tensor | null)[] = [full([6], 2), full([6], 2)]
  const train = (x: Tensor, y: Tensor): Tensor => {
    const scale = scales.pop() ?? full([6], 2)
    optimizer.zeroGrad()
    const loss = nn.functional.crossEntropy(net.forward(x.mul(scale)), y)
    loss.backward()
    optimizer.step()
    return loss
  }
  const step = isCaptured ? capture(train) : train
  return Array.from({ length: 12 }, () => {
    const loss = step(randn([4, 6]), randint(0, 3, [4])).item()
    // Memory that was freed by mistake would be taken by these.
    for (let i = 0; i < 8; i++) full([6 * (i + 1)], Number.NaN).add(1)
    return loss
  })
}

function check(): void {
  const expected = losses(false)
  const got = losses(true)
  if (String(got) !== String(expected)) throw new Error(`expected ${expected}, got ${got}`)
}

async function main(): Promise<void> {
  check()
  if (process.argv[2] === 'worker') {
    const workers = Array.from({ length: 2 }, () => startWorker(__filename))
    await Promise.all(workers.flatMap((worker) => [once(worker, 'message'), once(worker, 'exit')]))
    process.on('exit', check)
    console.log('captured')
  } else {
    console.log('captured')
    // In the middle of a recording.
    capture(() => process.exit(0), { warmUp: 0 })()
  }
}

if (isMainThread) {
  main()
} else {
  check()
  parentPort?.postMessage('done')
}
