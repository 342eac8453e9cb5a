import { Bench } from 'tinybench'
import type { Spread } from './measure.mjs'

/** One thing that is timed. */
export interface Row {
  readonly name: string
  /** Default float32. */
  readonly precision?: string
  /** Throws if the result is wrong; runs before the clock does. */
  readonly check: () => void
  readonly run: () => unknown
  /** How many operations one `run` stands for; default 1. */
  readonly operations?: number
  /** Floating-point operations of one `run`, where a rate says more than a time. */
  readonly flops?: number
  /** The least milliseconds that one `run` can take on this machine, where that is known. */
  readonly floor?: () => number | undefined
}

/** What a row took, per operation. */
export interface Timing extends Spread {
  /** Of training steps: the loss after them, the least time, and pages mapped in one of them. */
  readonly loss?: number
  readonly floor_ms?: number
  readonly page_faults?: number
}

export interface Suite {
  /** The rows are called `<name>/<row>`. */
  readonly name: string
  /** Rows are compared with the first one that runs. */
  readonly rows: () => Row[]
  /** Default: tinybench. */
  readonly measure?: (row: Row, milliseconds: number) => Timing
}

export interface Measured extends Timing {
  readonly name: string
  readonly precision: string
  /** Against the first row of the suite that ran. */
  readonly ratio: number
  readonly gflops?: number
}

/** Throws unless every element agrees within the tolerance; NaN never does. */
export function expectClose(
  what: string,
  actual: ArrayLike<number | bigint>,
  expected: ArrayLike<number>,
  tolerance = 1e-4,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${what}: expected ${expected.length} values, got ${actual.length}`)
  }
  for (let i = 0; i < expected.length; i++) {
    const off = Math.abs(Number(actual[i]) - expected[i])
    if (!(off <= tolerance * Math.max(1, Math.abs(expected[i])))) {
      throw new Error(`${what}: expected ${expected[i]} at ${i}, got ${actual[i]}`)
    }
  }
}

function withTinybench(row: Row, milliseconds: number): Timing {
  const bench = new Bench({ time: milliseconds, warmupTime: milliseconds / 4 })
  const [task] = bench.add(row.name, () => void row.run()).runSync()
  const { result } = task
  if (result.state !== 'completed') throw new Error(`${row.name}: ${result.state}`)
  const { p50, p75, min } = result.latency
  const operations = row.operations ?? 1
  return {
    ms_median: p50 / operations,
    ms_best: min / operations,
    spread: p75 / p50 - 1,
  }
}

/** Checks and times the rows of a suite whose names match, `milliseconds` each. */
export function* runSuite(suite: Suite, filter: RegExp, milliseconds: number): Generator<Measured> {
  const measure = suite.measure ?? withTinybench
  let first: number | undefined
  for (const row of suite.rows()) {
    const name = `${suite.name}/${row.name}`
    const { precision = 'float32' } = row
    if (!filter.test(name) && !filter.test(`${name} ${precision}`)) continue
    row.check()
    const timing = measure(row, milliseconds)
    first ??= timing.ms_median
    yield {
      name,
      precision,
      ...timing,
      ratio: timing.ms_median / first,
      ...(row.flops && { gflops: row.flops / (timing.ms_median * 1e6) }),
    }
  }
}

export function formatTime(milliseconds: number): string {
  if (milliseconds < 1e-3) return `${(milliseconds * 1e6).toFixed(1)} ns`
  if (milliseconds < 1) return `${(milliseconds * 1e3).toFixed(2)} µs`
  return `${milliseconds.toFixed(3)} ms`
}
