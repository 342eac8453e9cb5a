import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import {
  ArgumentError,
  capture,
  type Device,
  device,
  FileError,
  full,
  type ProfileReport,
  profile,
  profileAsync,
  randn,
  type Tensor,
} from '../src/index.js'
import { testCuda } from './support/cuda.js'

const cpu = device('cpu')
const cuda = testCuda()
const folder = mkdtempSync(path.join(os.tmpdir(), 'adjoint-profile-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** Five products, a few elementwise ops and their gradients. */
function step(at: Device): Tensor {
  const w = randn([64, 64], { device: at, requiresGrad: true })
  let x = full([32, 64], 0.1, { device: at })
  for (let i = 0; i < 5; i++) x = x.matmul(w).tanh()
  x.sum().backward()
  return w.grad as Tensor
}

const called = ({ ops }: ProfileReport, name: string) => ops.find((op) => op.name === name)

describe.each([cpu, cuda])('profile on %s', (at) => {
  test('measures each kernel', () => {
    const report = profile(() => step(at))
    expect(report.result.shape).toEqual([64, 64])
    expect(called(report, 'unary.tanh')?.calls).toBe(5)
    expect(called(report, 'matmul')?.calls).toBe(5 + 5 + 4)
    expect(called(report, 'reduce.sum')?.calls).toBe(1)
    expect(called(report, 'random.normal')?.calls).toBe(1)
    const total = report.ops.reduce((sum, { totalMs }) => sum + totalMs, 0)
    expect(total).toBeGreaterThan(0)
    expect(total).toBeLessThanOrEqual(report.wallMs + 1)
    expect(report.ops.map((op) => op.device)).toEqual(report.ops.map(() => String(at)))
    const times = report.ops.map(({ totalMs }) => totalMs)
    expect(times).toEqual([...times].sort((a, b) => b - a))
    for (const { durationMs, hostMs } of report.calls) {
      expect(durationMs).toBeGreaterThanOrEqual(0)
      expect(hostMs).toBeGreaterThanOrEqual(0)
    }
    expect(report.calls.some(({ isBackward }) => isBackward)).toBe(true)
    expect(report.calls[0].isBackward).toBe(false)
  })

  test('counts memory', () => {
    const report = profile(() => full([1000, 1000], 1, { device: at }).add(1).add(1))
    expect(called(report, 'fill')?.allocatedBytes).toBe(4_000_000)
    expect(called(report, 'binary.add')?.allocatedBytes).toBe(8_000_000)
    const [memory] = report.memory
    expect(memory.device).toBe(String(at))
    expect(memory.peakBytes - memory.firstBytes).toBeGreaterThanOrEqual(12_000_000)
    report.result.dispose()
  })

  test('shows reading and writing', () => {
    const report = profile(() => full([10], 1, { device: at }).sum().item())
    expect(report.result).toBe(10)
    expect(called(report, 'toHost')?.calls).toBe(1)
  })

  test('leaves nothing behind', () => {
    const { run, toHost } = at.native
    const report = profile(() => step(at))
    expect(at.native.run).toBe(run)
    expect(at.native.toHost).toBe(toHost)
    const calls = report.calls.length
    step(at)
    expect(report.calls).toHaveLength(calls)
    expect(at.native.takeMarks()).toHaveLength(0)
  })

  test('ends with the function that throws', () => {
    const { run } = at.native
    expect(() =>
      profile(() => {
        full([3], 1, { device: at })
        throw new Error('on purpose')
      }),
    ).toThrow('on purpose')
    expect(at.native.run).toBe(run)
    expect(profile(() => 1).result).toBe(1)
  })
})

describe('a report', () => {
  const report = profile(() => [step(cpu), step(cuda)])

  test('is a table', () => {
    const lines = report.table().split('\n')
    expect(lines[0]).toMatch(/^op +device +calls +total ms +share +mean us +host ms +allocated$/)
    expect(report.table()).toMatch(/^unary\.tanh +cpu +5 /m)
    expect(report.table()).toMatch(/^unary\.tanh +cuda:0 +5 /m)
    expect(report.table()).toMatch(/^cpu: \d+ calls, [\d.]+ of [\d.]+ ms; memory .* at most$/m)
    expect(String(report)).toBe(report.table())
    expect(report.table(2).split('\n')).toHaveLength(1 + 2 + 1 + 2)
    expect(() => report.table(0)).toThrow(ArgumentError)
    expect(profile(() => 1).table()).toMatch(/^op /)
  })

  test('is a Chrome trace', () => {
    const file = path.join(folder, 'trace.json')
    report.writeChromeTrace(file)
    const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as {
      traceEvents: { ph: string; name: string; ts: number; dur: number; tid: number; cat: string }[]
    }
    const complete = traceEvents.filter(({ ph }) => ph === 'X')
    // The GPU's calls have a row of their own.
    const queued = report.calls.filter((call) => call.device === 'cuda:0').length
    expect(complete).toHaveLength(report.calls.length + queued)
    expect(complete.every(({ ts, dur }) => ts >= -1000 && dur >= 0)).toBe(true)
    expect(new Set(complete.map(({ tid }) => tid)).size).toBe(3)
    expect(new Set(complete.map(({ cat }) => cat))).toEqual(new Set(['forward', 'backward']))
    expect(traceEvents.filter(({ ph }) => ph === 'M')).toHaveLength(3)
    expect(traceEvents.filter(({ ph }) => ph === 'C')).toHaveLength(report.calls.length)
  })

  test('says which file it could not write', () => {
    expect(() => report.writeChromeTrace(path.join(folder, 'no', 'x.json'))).toThrow(FileError)
    expect(() => report.writeChromeTrace(5 as never)).toThrow(ArgumentError)
  })
})

describe('profile', () => {
  test('measures an async function to its end', async () => {
    const report = await profileAsync(async () => {
      const x = full([1000], 1, { device: cuda }).add(1)
      return (await x.data())[0]
    })
    expect(report.result).toBe(2)
    expect(called(report, 'binary.add')?.calls).toBe(1)
    expect(called(report, 'toHost')?.calls).toBe(1)
  })

  test('refuses a promise, another profile, and a step that is recorded', () => {
    expect(() => profile(async () => 1)).toThrow(/use profileAsync/)
    expect(() => profile(() => profile(() => 1))).toThrow(/profile: expected no other profile/)
    const x = full([3], 1)
    const captured = capture((y: Tensor) => profile(() => y.add(1)).result)
    captured(x)
    expect(() => captured(x)).toThrow(/profile: expected work that a captured step can repeat/)
  })

  test('sees the replays of a captured step', () => {
    const captured = capture((y: Tensor) => y.add(1).mul(2))
    const x = full([3], 1, { device: cpu })
    captured(x)
    const recorded = profile(() => captured(x))
    expect(recorded.calls.filter(({ name }) => name.startsWith('binary'))).toEqual([])
    const report = profile(() => captured(x).sum().item())
    expect(report.result).toBe(12)
    expect(called(report, 'replay')?.calls).toBe(1)
  })
})
