import { expect, it } from 'vitest'
import { type LeakSite, liveTensors, zeros } from '../../src/index.js'
import { runScript } from '../support/run.js'

it('names the lines that made the tensors still alive', () => {
  const done = runScript('test/memory/leaks.script.ts', [], { ADJOINT_TRACE_LEAKS: '1' })
  expect(done.status).toBe(0)
  const sites = JSON.parse(done.stdout) as LeakSite[]
  expect(sites).toEqual([
    {
      line: expect.stringMatching(/^forgotten \(.*leaks\.script\.ts:5:/),
      count: 3,
      shapes: ['float32[3, 2]'],
    },
    { line: expect.stringMatching(/leaks\.script\.ts:10:/), count: 1, shapes: ['float32[2]'] },
  ])
  expect(done.stderr).toContain('tensors still alive, by the line that made them')
  expect(done.stderr).toMatch(/3 x float32\[3, 2\] {2}forgotten/)
})

it('traces nothing unless it is asked to', () => {
  const t = zeros([2])
  expect(liveTensors()).toEqual([])
  t.dispose()
})
