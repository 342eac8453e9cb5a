import { type Tensor, zeros } from '../../src/index.js'
import { testCuda } from './cuda.js'

/** As `CallCounts` of `native/emulation/emulation.h` has them. */
const NAMES = [
  'kernels',
  'libraryCalls',
  'graphs',
  'uploads',
  'downloads',
  'deviceCopies',
  'deviceAllocations',
  'pinnedAllocations',
  'frees',
  'streamWaits',
  'eventWaits',
] as const

/** What was asked of the device, and how many calls of the addon asked for it. */
export type CallCounts = Record<(typeof NAMES)[number] | 'nativeCalls', number>

/** Where the counts so far go: ready, so that nothing of its making is counted. */
function place(): Tensor {
  const y = zeros([NAMES.length], { dtype: 'int64', device: testCuda() })
  y.dataSync()
  return y
}

/** What `body` asks of the emulated device. */
export function countCalls(body: () => void): CallCounts {
  const { native, calls } = testCuda()
  const [before, after] = [place(), place()]
  const { run, replay } = native
  calls.begin('callCounts').output(before).run()
  let nativeCalls = 0
  native.run = (...rest) => {
    nativeCalls++
    run.apply(native, rest)
  }
  native.replay = (...rest) => {
    nativeCalls++
    replay.apply(native, rest)
  }
  try {
    body()
  } finally {
    Object.assign(native, { run, replay })
  }
  calls.begin('callCounts').output(after).run()
  const [first, last] = [before.dataSync(), after.dataSync()]
  const counts = NAMES.map((name, i) => [name, Number(last[i]) - Number(first[i])])
  return { ...Object.fromEntries(counts), nativeCalls } as CallCounts
}
