// How far apart two cores are: where a virtual machine's processors lie is the host's choice, and
// changes while it runs. Two cores with a cache in common hand a value to and fro in some 50 ns; two
// without need several times as long, and steps whose threads share data take up to twice theirs.
import os from 'node:os'
import { Worker } from 'node:worker_threads'

const EXCHANGES = 500
const BATCHES = 4
/** Until it has found a core of its own, the partner answers once in a slice of the scheduler's. */
const LIMIT_MS = 100
/** So many times the least distance seen is another place. */
const FARTHER = 3

const TURN = 0 // odd: the partner's
const CALLS = 1
const STOP = -1

// Asleep until it is called, then answers each odd number by the next even one.
const PARTNER = `
  const words = require('node:worker_threads').workerData
  for (let calls = 0; ; calls = Atomics.load(words, ${CALLS})) {
    Atomics.wait(words, ${CALLS}, calls)
    for (let turn = 1; turn < ${2 * EXCHANGES * BATCHES}; turn += 2) {
      let now
      while ((now = Atomics.load(words, ${TURN})) !== turn && now !== ${STOP});
      if (now === ${STOP}) break
      Atomics.store(words, ${TURN}, turn + 1)
    }
  }`

let words: Int32Array | null = null
let least = Number.POSITIVE_INFINITY

function partner(): Int32Array {
  const shared = new Int32Array(new SharedArrayBuffer(8))
  new Worker(PARTNER, { eval: true, workerData: shared }).unref()
  return shared
}

/**
 * Nanoseconds that a value takes to another core and back, the least of a few batches; NaN where
 * there is one processor, or none free for the partner.
 */
export function coreDistance(): number {
  if (os.availableParallelism() < 2) return Number.NaN
  words ??= partner()
  const start = performance.now()
  let best = Number.NaN
  Atomics.store(words, TURN, 0)
  Atomics.add(words, CALLS, 1)
  Atomics.notify(words, CALLS)
  for (let turn = 1, from = start; turn < 2 * EXCHANGES * BATCHES; turn += 2) {
    Atomics.store(words, TURN, turn)
    while (Atomics.load(words, TURN) === turn) {
      if (performance.now() - start < LIMIT_MS) continue
      Atomics.store(words, TURN, STOP)
      return best
    }
    if ((turn + 1) % (2 * EXCHANGES) === 0) {
      const now = performance.now()
      const ns = ((now - from) * 1e6) / EXCHANGES
      if (!(best <= ns)) best = ns
      from = now
    }
  }
  return best
}

/** Whether the cores are about as near as ever in this process, with what was measured. */
export function coresNow(): { readonly near: boolean; readonly distance: number } {
  const distance = coreDistance()
  if (distance < least) least = distance
  return { near: !(distance > FARTHER * least), distance }
}
