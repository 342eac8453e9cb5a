import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { runScript } from './support/run.js'

const folder = mkdtempSync(path.join(os.tmpdir(), 'adjoint-cli-'))
afterAll(() => rmSync(folder, { recursive: true }))

const adjoint = (args: string[], env: Record<string, string> = {}) =>
  runScript('src/cli/main.ts', args, env)

describe('adjoint doctor', () => {
  it('prints what was found', () => {
    const done = adjoint(['doctor'])
    expect(done.status).toBe(0)
    for (const what of ['version', 'node', 'processor', 'simd', 'threads', 'cuda', 'driver']) {
      expect(done.stdout).toContain(what)
    }
    expect(done.stdout).toContain(process.version)
    expect(done.stdout).toMatch(/ready: tensors run on the CPU\n$/)
  })

  it('shows the SIMD level that was asked for', () => {
    expect(adjoint(['doctor'], { ADJOINT_SIMD: 'scalar' }).stdout).toMatch(/simd\s+scalar/)
  })

  it('says why an addon was not used', () => {
    writeFileSync(path.join(folder, 'adjoint_cpu.node'), 'not an addon')
    const done = adjoint(['doctor'], { ADJOINT_ADDON_DIR: folder, ADJOINT_DEVICE: 'cuda' })
    expect(done.stdout).toContain('ADJOINT_ADDON_DIR')
    expect(done.stdout).toMatch(/adjoint_cuda\.node\s+no such file/)
    // The one in the package loads; the broken one is named beside it.
    const broken = path.join(folder, 'adjoint_cpu.node')
    expect(done.stdout.split('\n').find((line) => line.includes(broken))).toMatch(/ELF|file/)
    expect(done.stdout).toMatch(/addon\s+.*adjoint_cpu\.node/)
  })
})

describe('adjoint', () => {
  it('explains itself', () => {
    expect(adjoint(['--help']).stdout).toContain('usage: adjoint <command>')
    expect(adjoint([]).status).toBe(2)
    const wrong = adjoint(['frobnicate'])
    expect(wrong.status).toBe(2)
    expect(wrong.stderr).toContain('no such command: frobnicate')
  })
})
