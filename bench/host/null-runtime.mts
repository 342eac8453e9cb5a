// The CUDA backend with its runtime replaced by native/emulation, as device 'cuda' of this process:
// the whole host side runs, and with `nothingRuns` what it launches is counted and dropped.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Device, device, setDefaultDevice, zeros } from 'adjoint'
import { type CallCounts, countCallsOn } from '../support/call-counts.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', '..')
const build = path.join(root, 'build', 'emulated')

function cmake(...options: string[]): void {
  const done = spawnSync('cmake', options, { cwd: root, encoding: 'utf8' })
  if (done.status !== 0) {
    throw new Error(`cmake ${options.join(' ')}: ${done.error ?? done.stdout + done.stderr}`)
  }
}

/** Builds the addon where it is older than its sources, and makes it the default device. */
export function openEmulated(): Device {
  cmake('-S', '.', '-B', build, '-DADJOINT_EMULATION=ON', '-DCMAKE_BUILD_TYPE=Release')
  cmake('--build', build, '--target', 'adjoint_emulated', '--parallel')
  // Where users have adjoint_cuda.node.
  const folder = mkdtempSync(path.join(os.tmpdir(), 'adjoint-host-'))
  const addon = path.join(build, 'Release', 'adjoint_emulated.node')
  copyFileSync(addon, path.join(folder, 'adjoint_cuda.node'))
  process.env.ADJOINT_ADDON_DIR = folder
  try {
    setDefaultDevice('cuda')
    return device('cuda')
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** Work that is queued while `body` runs is counted and dropped; what is read then means nothing. */
export async function nothingRuns<T>({ calls }: Device, body: () => Promise<T>): Promise<T> {
  calls.begin('nullRuntime').flag(true).run()
  try {
    return await body()
  } finally {
    calls.begin('nullRuntime').flag(false).run()
  }
}

export function callsOf(device: Device, body: () => unknown): CallCounts {
  return countCallsOn(
    device,
    (count) => zeros([count], { dtype: 'int64', device }),
    () => {
      body()
    },
  )
}
