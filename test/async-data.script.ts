// Begins to read values of the CUDA device; then ends the process, or waits to be ended.
import { parentPort } from 'node:worker_threads'
import { full } from '../src/index.js'
import { testCuda } from './support/cuda.js'

const cuda = testCuda()
let x = full([200_000], 0, { device: cuda })
for (let i = 0; i < 100; i++) x = x.add(1)
void x.data()
for (let i = 0; i < 100; i++) x = x.add(1)
void x.data()
if (process.argv[2] === 'exit') process.exit(0)
setInterval(() => undefined, 1000)
parentPort?.postMessage('queued')
