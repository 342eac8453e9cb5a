import v8 from 'node:v8'
import vm from 'node:vm'

/**
 * V8's `gc` function, which native code calls under memory pressure: `gc({ type: 'minor' })` is a
 * minor collection and `gc()` a major one on every supported version of Node. The flag is on only
 * while a fresh context picks the function up. Undefined where V8 refuses.
 */
export function findCollector(): ((options?: { type: 'minor' }) => void) | undefined {
  try {
    v8.setFlagsFromString('--expose-gc')
    const gc: unknown = vm.runInNewContext('gc')
    v8.setFlagsFromString('--no-expose-gc')
    return typeof gc === 'function' ? (gc as () => void) : undefined
  } catch {
    return undefined
  }
}
