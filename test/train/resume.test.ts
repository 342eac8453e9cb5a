import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'adjoint-resume-'))
afterAll(() => rmSync(folder, { recursive: true }))

interface Finished {
  lines: string[]
  code: number | null
  signal: NodeJS.Signals | null
}

// Runs the child; `onLine` may signal it.
function train(
  checkpoint: string,
  mode: 'fresh' | 'resume',
  onLine: (line: string, child: ChildProcess) => void = () => {},
): Promise<Finished> {
  const script = join(import.meta.dirname, 'resume.script.ts')
  const child = spawn(process.execPath, ['--import', 'tsx', script, checkpoint, mode], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines: string[] = []
  let rest = ''
  child.stdout.on('data', (chunk) => {
    const parts = (rest + chunk).split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) {
      lines.push(line)
      onLine(line, child)
    }
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ lines, code, signal }))
  })
}

describe('a run that is resumed', () => {
  it('ends with the bits of one that was left alone, after kill -9 and after Ctrl-C', async () => {
    const whole = await train(join(folder, 'whole.ckpt'), 'fresh')
    expect(whole.code).toBe(0)
    expect(whole.lines.filter((line) => line.startsWith('batch')).length).toBe(60)
    const result = whole.lines.at(-1)
    expect(result).toMatch(/^completed [0-9a-f]{64}$/)

    // Killed in the second epoch, between two checkpoints; again after resuming, in the third.
    const path = join(folder, 'killed.ckpt')
    const killAt = (at: string) => (line: string, child: ChildProcess) => {
      if (line === `batch ${at}`) child.kill('SIGKILL')
    }
    const first = await train(path, 'fresh', killAt('2.7'))
    expect(first.signal).toBe('SIGKILL')
    const second = await train(path, 'resume', killAt('3.10'))
    expect(second.signal).toBe('SIGKILL')
    expect(second.lines[0]).toMatch(/^batch 2\.([2-9]|1\d)$/)

    // Ctrl-C in the fourth.
    const third = await train(path, 'resume', (line, child) => {
      if (line === 'batch 4.5') child.kill('SIGINT')
    })
    expect(third.code).toBe(0)
    expect(third.lines.at(-1)).toMatch(/^interrupted/)

    const last = await train(path, 'resume')
    expect(last.code).toBe(0)
    expect(last.lines[0]).toMatch(/^batch 4\./)
    expect(last.lines.at(-1)).toBe(result)
    expect(existsSync(path)).toBe(true)
  }, 120_000)
})
