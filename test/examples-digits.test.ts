import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadSafetensors } from '../src/io/index.js'
import { writeDigits } from './support/digit-files.js'
import { ensureDist } from './support/dist.js'
import { root } from './support/run.js'

const folder = mkdtempSync(path.join(tmpdir(), 'adjoint-digits-'))
const data = path.join(folder, 'data')
afterAll(() => rmSync(folder, { recursive: true }))

beforeAll(() => {
  ensureDist()
  writeDigits(folder, { train: 500, test: 100 })
}, 120_000)

interface Run {
  code: number | null
  stdout: string
  stderr: string
}

// npm run train, with Ctrl-C when `interruptAt` has been printed.
function train(args: string[], interruptAt?: string): Promise<Run> {
  const script = path.join(root, 'examples', 'digits.mts')
  const child = spawn(process.execPath, ['--import', 'tsx', script, ...args], { cwd: root })
  const run: Run = { code: null, stdout: '', stderr: '' }
  let interrupted = interruptAt === undefined
  child.stdout.on('data', (chunk) => {
    run.stdout += chunk
    if (!interrupted && run.stdout.includes(interruptAt as string)) {
      interrupted = true
      child.kill('SIGINT')
    }
  })
  child.stderr.on('data', (chunk) => {
    run.stderr += chunk
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ ...run, code }))
  })
}

describe('npm run train', () => {
  it('explains itself, and its refusals', async () => {
    const help = await train(['--help'])
    expect(help.code).toBe(0)
    for (const option of ['data', 'epochs', 'batch-size', 'seed', 'out', 'resume', 'check']) {
      expect(help.stdout).toContain(`--${option} `)
    }
    for (const args of [
      ['--epochs', '0'],
      ['--lr', '1'],
    ]) {
      const { code, stdout, stderr } = await train(args)
      expect([code, stdout]).toEqual([2, ''])
      expect(stderr).toContain(args[0])
      expect(stderr).not.toContain('    at ')
    }
  }, 60_000)

  it('names a file that is missing or broken', async () => {
    const missing = await train(['--data', data])
    expect(missing.code).toBe(1)
    expect(missing.stderr).toContain(path.join(data, 'train-images-idx3-ubyte.gz'))
    expect(missing.stderr.trim().split('\n').length).toBe(1)
    const noCheckpoint = await train(['--data', folder, '--out', data, '--resume'])
    expect(noCheckpoint.code).toBe(1)
    expect(noCheckpoint.stderr).toContain(path.join(data, 'checkpoint.safetensors'))
  }, 60_000)

  it('trains, leaves weights and curves, and goes on after Ctrl-C to the same bits', async () => {
    const common = ['--data', folder, '--epochs', '3', '--batch-size', '20']
    const whole = path.join(folder, 'whole')
    const full = await train([...common, '--out', whole])
    expect(full.stderr).toBe('')
    expect(full.code).toBe(0)
    expect(full.stdout).toMatch(/Training on 450 images of drawn digits/)
    expect(full.stdout).toMatch(/Epoch 3\/3 · loss [\d.]+ · accuracy [\d.]+ % · validation loss/)
    expect(full.stdout).toMatch(/Test accuracy +\d+\.\d\d %/)
    expect(readFileSync(path.join(whole, 'curves.svg'), 'utf8')).toMatch(/^<svg/)
    const weights = loadSafetensors(path.join(whole, 'weights.safetensors'))
    expect(weights['fc2.weight'].shape).toEqual([10, 128])

    const stopped = path.join(folder, 'stopped')
    const first = await train([...common, '--out', stopped], 'Epoch 1/3')
    expect(first.code).toBe(130)
    expect(first.stdout).toContain('--resume')
    expect(first.stdout).not.toContain('Epoch 3/3')
    const rest = await train([...common, '--out', stopped, '--resume'])
    expect(rest.code).toBe(0)
    expect(rest.stdout).not.toContain('Epoch 1/3')
    const file = 'weights.safetensors'
    expect(readFileSync(path.join(stopped, file))).toEqual(readFileSync(path.join(whole, file)))
  }, 120_000)

  it('fails the check below the accuracy stated', async () => {
    const out = path.join(folder, 'check')
    const { code, stdout } = await train([
      ...['--data', folder, '--epochs', '1', '--batch-size', '500', '--out', out, '--check'],
    ])
    expect(code).toBe(1)
    expect(stdout).toContain('FAILED: 99 % stated for drawn digits')
  }, 60_000)
})
