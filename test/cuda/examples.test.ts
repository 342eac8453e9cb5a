// The examples as their users run them, with ADJOINT_DEVICE=cuda and few steps, beside the CPU.
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { isRealCuda, testCuda } from '../support/cuda.js'
import { writeDigits } from '../support/digit-files.js'
import { ensureDist } from '../support/dist.js'
import { root } from '../support/run.js'

const folder = mkdtempSync(path.join(tmpdir(), 'adjoint-examples-'))
const addons = path.join(folder, 'addons')
afterAll(() => rmSync(folder, { recursive: true }))

beforeAll(() => {
  ensureDist()
  writeDigits(folder, { train: 60, test: 20 })
  // Examples know no emulation: its addon stands where the one of CUDA is looked for.
  const { addonPath } = testCuda()
  mkdirSync(addons)
  symlinkSync(addonPath, path.join(addons, 'adjoint_cuda.node'))
}, 300_000)

/** What a script prints on a device. */
function run(device: 'cpu' | 'cuda', file: string, ...args: string[]): Promise<string> {
  const env = {
    ...process.env,
    ADJOINT_DEVICE: device,
    ...(device === 'cuda' && !isRealCuda ? { ADJOINT_ADDON_DIR: addons } : {}),
  }
  const script = path.join(root, file)
  const child = spawn(process.execPath, ['--import', 'tsx', script, ...args], { cwd: root, env })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk) => {
    stdout += chunk
  })
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => {
      if (code === 0 && stderr === '') resolve(stdout)
      else reject(new Error(`${file} on ${device} ended with ${code}: ${stdout}${stderr}`))
    })
  })
}

const onBoth = (file: string, ...args: string[]) =>
  Promise.all([run('cpu', file, ...args), run('cuda', file, ...args)])

const numbers = (text: string, pattern: RegExp) =>
  Array.from(text.matchAll(pattern), ([, number]) => Number(number))

/** Finite, lower at the end, and at first the CPU's but for rounding. */
function expectLosses(got: number[], want: number[], tolerance: number): void {
  expect(got.length).toBe(want.length)
  expect(got.every(Number.isFinite)).toBe(true)
  expect(got.at(-1)).toBeLessThan(got[0])
  for (const i of [0, 1, 2].filter((i) => i < got.length)) {
    expect(Math.abs(got[i] - want[i]), `step ${i}`).toBeLessThanOrEqual(tolerance * want[i])
  }
}

test('two-classes.mts', async () => {
  const [here, there] = await onBoth('examples/two-classes.mts', '--steps', '251')
  const losses = (text: string) => numbers(text, /loss ([\d.]+)/g)
  // Four digits are printed.
  expectLosses(losses(there), losses(here), 1e-3)
  expect(losses(there).length).toBe(2)
}, 60_000)

test('digits.mts', async () => {
  const args = ['--data', folder, '--epochs', '2', '--batch-size', '20', '--out']
  const [here, there] = await Promise.all([
    run('cpu', 'examples/digits.mts', ...args, path.join(folder, 'cpu')),
    run('cuda', 'examples/digits.mts', ...args, path.join(folder, 'cuda')),
  ])
  const losses = (text: string) => numbers(text, / loss ([\d.]+) · accuracy/g)
  expectLosses(losses(there), losses(here), 1e-2)
  expect(there).toMatch(/Test accuracy +\d+\.\d\d %/)
}, 60_000)

describe('the networks of examples/support', () => {
  test('learn as on the CPU', async () => {
    const [here, there] = await onBoth('test/cuda/examples.script.mjs')
    const want = JSON.parse(here) as Record<string, number[]>
    const got = JSON.parse(there) as Record<string, number[]>
    expect(Object.keys(got)).toEqual(Object.keys(want))
    for (const [name, losses] of Object.entries(got)) {
      expectLosses(losses, want[name], name === 'lenet with batch norm' ? 1e-4 : 2e-5)
    }
  }, 60_000)
})
