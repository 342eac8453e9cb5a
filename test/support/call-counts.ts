import { type CallCounts, countCallsOn } from '../../bench/support/call-counts.mjs'
import { zeros } from '../../src/index.js'
import { testCuda } from './cuda.js'

export type { CallCounts }

/** What `body` asks of the emulated device. */
export function countCalls(body: () => void): CallCounts {
  const device = testCuda()
  return countCallsOn(device, (count) => zeros([count], { dtype: 'int64', device }), body)
}
