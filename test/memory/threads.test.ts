import { describe, expect, it } from 'vitest'
import { runScript } from '../support/run.js'

describe('workers', () => {
  it('compute the same side by side and leave nothing', () => {
    const done = runScript('test/memory/worker.script.ts')
    expect(done.stderr).toBe('')
    expect(done.stdout).toBe('agreed\n')
    expect(done.status).toBe(0)
  }, 60_000)
})

describe('exit with work under way', () => {
  it.each(['exit', 'throw', 'terminate'])(
    'is clean: %s',
    (kind) => {
      const done = runScript('test/memory/exit.script.ts', [kind])
      expect(done.stderr).toBe('')
      expect({ status: done.status, signal: done.signal }).toEqual({ status: 0, signal: null })
    },
    60_000,
  )
})
