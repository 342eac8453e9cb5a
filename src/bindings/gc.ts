import v8 from 'node:v8'
import vm from 'node:vm'

type Collector = (options?: { type: 'minor' }) => void

/**
 * V8's `gc` function, which native code calls under memory pressure: `gc({ type: 'minor' })` is a
 * minor collection and `gc()` a major one on every supported version of Node. The flag is on only
 * while a fresh context picks the function up. Undefined where V8 refuses.
 */
export function findCollector(): Collector | undefined {
  try {
    v8.setFlagsFromString('--expose-gc')
    const gc: unknown = vm.runInNewContext('gc')
    v8.setFlagsFromString('--no-expose-gc')
    return typeof gc === 'function' ? alone(gc as Collector) : undefined
  } catch {
    return undefined
  }
}

/**
 * A minor collection of what a few thousand small objects leave is over before other threads have
 * come to help, and they would have to share the cores with those that compute.
 */
function alone(gc: Collector): Collector {
  if (process.execArgv.includes('--no-parallel-scavenge')) return gc
  return (options) => {
    if (options === undefined) return gc()
    v8.setFlagsFromString('--no-parallel-scavenge')
    gc(options)
    v8.setFlagsFromString('--parallel-scavenge')
  }
}
