// What an emulated device is asked for (native/emulation), for tests and for bench:host.
import type { Device, Tensor } from '../../src/index.js'

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

/** What `body` asks of the device; `integers` makes an int64 tensor of that many there. */
export function countCallsOn(
  device: Device,
  integers: (count: number) => Tensor,
  body: () => void,
): CallCounts {
  const { native, calls } = device
  // Where the counts so far go: ready, so that nothing of its making is counted.
  const [before, after] = [integers(NAMES.length), integers(NAMES.length)]
  for (const place of [before, after]) place.dataSync()
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
