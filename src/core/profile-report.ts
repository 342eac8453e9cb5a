import { ArgumentError, describe } from './errors.js'

/** One native call. Times are milliseconds of one clock. */
export interface ProfiledCall {
  /** The kernel, with its opcode where it has one: `'matmul'`, `'binary.add'`. */
  readonly name: string
  readonly device: string
  readonly isBackward: boolean
  /** When the device began with it, and how long it took there. */
  readonly startMs: number
  readonly durationMs: number
  /** When JavaScript made the call, and when it could go on. */
  readonly hostStartMs: number
  readonly hostMs: number
  /** Bytes of the device's tensors before and after it. */
  readonly bytesBefore: number
  readonly bytes: number
}

/** All calls of one kernel on one device. */
export interface OpTotal {
  readonly name: string
  readonly device: string
  calls: number
  /** On the device. */
  totalMs: number
  /** In the calls, on JavaScript's thread. */
  hostMs: number
  /** What the calls allocated, freed again or not. */
  allocatedBytes: number
}

/** Bytes of a device's tensors: before the first call, after the last, and at most after any. */
export interface MemoryUse {
  readonly device: string
  readonly firstBytes: number
  readonly lastBytes: number
  readonly peakBytes: number
}

const MIB = 2 ** 20
const mebibytes = (bytes: number) => `${(bytes / MIB).toFixed(2)} MiB`
const ms = (time: number) => time.toFixed(3)

function totalsOf(calls: readonly ProfiledCall[]): OpTotal[] {
  const totals = new Map<string, OpTotal>()
  for (const { name, device, durationMs, hostMs, bytes, bytesBefore } of calls) {
    const key = `${device} ${name}`
    const total = totals.get(key) ?? {
      name,
      device,
      calls: 0,
      totalMs: 0,
      hostMs: 0,
      allocatedBytes: 0,
    }
    total.calls++
    total.totalMs += durationMs
    total.hostMs += hostMs
    total.allocatedBytes += Math.max(0, bytes - bytesBefore)
    totals.set(key, total)
  }
  return [...totals.values()].sort((a, b) => b.totalMs - a.totalMs)
}

function memoryOf(calls: readonly ProfiledCall[]): MemoryUse[] {
  return [...new Set(calls.map(({ device }) => device))].map((device) => {
    const own = calls.filter((call) => call.device === device)
    return {
      device,
      firstBytes: own[0].bytesBefore,
      lastBytes: own[own.length - 1].bytes,
      peakBytes: own.reduce((peak, { bytes }) => Math.max(peak, bytes), own[0].bytesBefore),
    }
  })
}

/** Columns of text: the first to the left, numbers to the right. */
function align(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)))
  return rows
    .map((row) =>
      row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))),
    )
    .map((row) => row.join('  '))
    .join('\n')
}

/** Calls with their times, and what can be read from them. */
export class ProfileReport {
  /** By kernel, the longest time first. */
  readonly ops: readonly OpTotal[]
  readonly memory: readonly MemoryUse[]

  constructor(
    /** In the order in which they were made. */
    readonly calls: readonly ProfiledCall[],
    /** From the start of the function until the devices had done its work. */
    readonly wallMs: number,
  ) {
    this.ops = totalsOf(calls)
    this.memory = memoryOf(calls)
  }

  /** A table of the kernels that took longest, and a line for each device. */
  table(rows = 30): string {
    if (!(rows >= 1)) {
      throw new ArgumentError(`table: expected at least 1 row, got ${describe(rows)}`)
    }
    const all = this.ops.reduce((sum, { totalMs }) => sum + totalMs, 0)
    const body = this.ops
      .slice(0, rows)
      .map((op) => [
        op.name,
        op.device,
        String(op.calls),
        ms(op.totalMs),
        `${((100 * op.totalMs) / (all || 1)).toFixed(1)} %`,
        ((1000 * op.totalMs) / op.calls).toFixed(1),
        ms(op.hostMs),
        mebibytes(op.allocatedBytes),
      ])
    const head = ['op', 'device', 'calls', 'total ms', 'share', 'mean us', 'host ms', 'allocated']
    const left = this.ops.length - body.length
    return [
      align([head, ...body]),
      ...(left > 0 ? [`and ${left} more`] : []),
      ...this.memory.map((use) => this.summary(use)),
    ].join('\n')
  }

  private summary({ device, firstBytes, lastBytes, peakBytes }: MemoryUse): string {
    const own = this.ops.filter((op) => op.device === device)
    const calls = own.reduce((sum, op) => sum + op.calls, 0)
    const busy = own.reduce((sum, op) => sum + op.totalMs, 0)
    return (
      `${device}: ${calls} calls, ${ms(busy)} of ${ms(this.wallMs)} ms; memory ` +
      `${mebibytes(firstBytes)} before, ${mebibytes(lastBytes)} after, ${mebibytes(peakBytes)} at most`
    )
  }

  toString(): string {
    return this.table()
  }

  /** All calls as Chrome's trace events: a row for each device, and one for the calls to a GPU. */
  chromeTrace(): { traceEvents: object[]; displayTimeUnit: 'ms' } {
    const origin = this.calls.reduce((least, c) => Math.min(least, c.hostStartMs), Infinity)
    const us = (time: number) => 1000 * (time - origin)
    const traceEvents: object[] = []
    this.memory.forEach(({ device }, i) => {
      const onDevice = { pid: 0, tid: 2 * i }
      const onHost = { pid: 0, tid: 2 * i + 1 }
      const isQueued = device !== 'cpu'
      const title = (place: object, name: string) =>
        traceEvents.push({ ph: 'M', name: 'thread_name', ...place, args: { name } })
      title(onDevice, device)
      if (isQueued) title(onHost, `calls to ${device}`)
      for (const call of this.calls) {
        if (call.device !== device) continue
        const { name, startMs, durationMs, hostStartMs, hostMs, bytes } = call
        const cat = call.isBackward ? 'backward' : 'forward'
        const args = { allocated: Math.max(0, bytes - call.bytesBefore) }
        const ts = us(startMs)
        traceEvents.push({ ph: 'X', name, cat, ...onDevice, ts, dur: 1000 * durationMs, args })
        const called = { ts: us(hostStartMs), dur: 1000 * hostMs }
        if (isQueued) traceEvents.push({ ph: 'X', name, cat, ...onHost, ...called })
        const live = { ts: called.ts + called.dur, args: { bytes } }
        traceEvents.push({ ph: 'C', name: `memory of ${device}`, pid: 0, ...live })
      }
    })
    return { traceEvents, displayTimeUnit: 'ms' }
  }
}
