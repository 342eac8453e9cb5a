import { setCreationHook, type ViewLike } from '../bindings/calls.js'
import { type Device, openDevices } from './device.js'
import { dtypes } from './dtype.js'

/** A line of source and the tensors it made that are still alive. */
export interface LeakSite {
  readonly line: string
  readonly count: number
  /** Up to four of their dtypes and shapes. */
  readonly shapes: readonly string[]
}

interface Origin {
  readonly stack: string
  readonly what: string
}

/** By device, then by handle. A handle names one tensor for as long as that is alive. */
const origins = new Map<string, Map<number, Origin>>()

const STACK_DEPTH = 40

function remember(t: ViewLike & { device?: Device }): void {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = STACK_DEPTH
  const stack = new Error().stack ?? ''
  Error.stackTraceLimit = limit
  const name = String(t.device)
  const known = origins.get(name) ?? new Map<number, Origin>()
  origins.set(name, known)
  known.set(t.handle, { stack, what: `${dtypes[t.dtypeCode]}[${t.shape.join(', ')}]` })
}

/** The first line of a stack that is not in this package's own code. */
function userLine(stack: string): string {
  const own =
    /[\\/](?:src|dist)[\\/](?:core|ops|nn|optim|data|io|train|bindings)[\\/]|node:internal/
  const lines = stack.split('\n').slice(1)
  return (lines.find((line) => !own.test(line)) ?? lines[0] ?? '?').trim().replace(/^at /, '')
}

/**
 * The tensors still alive after a full collection, by the line that made them, most first. Empty
 * unless the process runs with `ADJOINT_TRACE_LEAKS=1`, which also prints this list at exit.
 */
export function liveTensors(): LeakSite[] {
  const sites = new Map<string, { count: number; shapes: Set<string> }>()
  for (const device of openDevices()) {
    const known = origins.get(String(device))
    if (known === undefined) continue
    device.native.collect()
    const alive = new Set(device.native.liveHandles())
    for (const [handle, { stack, what }] of known) {
      if (!alive.has(handle)) {
        known.delete(handle)
        continue
      }
      const line = userLine(stack)
      const site = sites.get(line) ?? { count: 0, shapes: new Set() }
      sites.set(line, site)
      site.count++
      if (site.shapes.size < 4) site.shapes.add(what)
    }
  }
  return [...sites]
    .map(([line, { count, shapes }]) => ({ line, count, shapes: [...shapes] }))
    .sort((a, b) => b.count - a.count)
}

function formatLeaks(sites: readonly LeakSite[]): string {
  if (sites.length === 0) return 'adjoint: no tensor is alive\n'
  const rows = sites.map((s) => `  ${s.count} x ${s.shapes.join(' ')}  ${s.line}`)
  return `adjoint: tensors still alive, by the line that made them\n${rows.join('\n')}\n`
}

/** Starts tracing. Called once, by the package's entry, where the environment asks for it. */
export function traceLeaks(): void {
  setCreationHook(remember)
  process.once('exit', () => process.stderr.write(formatLeaks(liveTensors())))
}
