// Clocks, medians, and what the process used.
import { readFileSync } from 'node:fs'

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

export interface Spread {
  readonly ms_median: number
  readonly ms_best: number
  /** How far the upper quartile lies above the median, as a share of it. */
  readonly spread: number
}

/** Of milliseconds. */
export function spreadOf(times: readonly number[]): Spread {
  const sorted = [...times].sort((a, b) => a - b)
  const middle = median(sorted)
  const upperQuartile = sorted[Math.round(0.75 * (sorted.length - 1))]
  return { ms_median: middle, ms_best: sorted[0], spread: upperQuartile / middle - 1 }
}

/** Milliseconds of each of `count` runs after one that is not counted. */
export function timed(run: () => unknown, count: number): number {
  run()
  const start = performance.now()
  for (let i = 0; i < count; i++) run()
  return (performance.now() - start) / count
}

/** How many runs take about `milliseconds`, from the best of a few. */
export function countFor(run: () => unknown, milliseconds: number): number {
  let best = Number.POSITIVE_INFINITY
  for (let spent = 0, i = 0; i < 3 || (spent < milliseconds / 2 && i < 100); i++) {
    const time = timed(run, 1)
    best = Math.min(best, time)
    spent += time
  }
  return Math.max(1, Math.round(milliseconds / best))
}

/** Page faults without input or output per run: new pages that the system had to map. */
export function pageFaults(run: () => unknown, count: number): number {
  run()
  const before = process.resourceUsage().minorPageFault
  for (let i = 0; i < count; i++) run()
  return (process.resourceUsage().minorPageFault - before) / count
}

export interface Resident {
  /** KiB now and at most so far. */
  readonly now: number
  readonly peak: number
}

/**
 * Resident memory of this process. Where there is /proc the peak is VmHWM: the maximum of
 * getrusage begins with that of the process that started this one.
 */
export function resident(): Resident {
  const now = process.memoryUsage.rss() / 1024
  try {
    const status = readFileSync('/proc/self/status', 'utf8')
    return { now, peak: Number(/^VmHWM:\s*(\d+)/m.exec(status)?.[1]) }
  } catch {
    return { now, peak: process.resourceUsage().maxRSS }
  }
}
