import { Bench } from 'tinybench'

/** One thing that is timed. */
export interface Row {
  readonly name: string
  /** Throws if the result is wrong; runs before the clock does. */
  readonly check: () => void
  readonly run: () => void
  /** How many operations one `run` stands for; default 1. */
  readonly operations?: number
  /** Floating-point operations of one `run`, where a rate says more than a time. */
  readonly flops?: number
}

export interface Suite {
  readonly name: string
  /** Rows are compared with the first one. */
  readonly rows: () => Row[]
}

export interface Measured {
  readonly suite: string
  readonly name: string
  /** Median nanoseconds of one operation. */
  readonly ns: number
  /** Against the first row of the suite. */
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

/** Checks and times the rows of a suite, `milliseconds` each. */
export function runSuite(suite: Suite, milliseconds: number): Measured[] {
  const rows = suite.rows()
  for (const row of rows) row.check()
  const bench = new Bench({ time: milliseconds, warmupTime: milliseconds / 4 })
  for (const row of rows) bench.add(row.name, row.run)
  const tasks = bench.runSync()
  const measured: Measured[] = []
  tasks.forEach((task, i) => {
    const { result } = task
    if (result.state !== 'completed') throw new Error(`${suite.name}/${task.name}: ${result.state}`)
    const ns = (result.latency.p50 * 1e6) / (rows[i].operations ?? 1)
    const { flops } = rows[i]
    measured.push({
      suite: suite.name,
      name: task.name,
      ns,
      ratio: ns / (measured[0]?.ns ?? ns),
      ...(flops === undefined ? {} : { gflops: flops / (result.latency.p50 * 1e6) }),
    })
  })
  return measured
}

export function formatTime(ns: number): string {
  if (ns < 1e3) return `${ns.toFixed(1)} ns`
  if (ns < 1e6) return `${(ns / 1e3).toFixed(2)} µs`
  return `${(ns / 1e6).toFixed(3)} ms`
}
