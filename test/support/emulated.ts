import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, statSync, utimesSync } from 'node:fs'
import path from 'node:path'
import { type Device, useEmulatedCuda } from '../../src/core/device.js'
import { withLock } from './lock.js'
import { root } from './run.js'

const folder = path.join(root, 'build', 'emulated')
const addon = path.join(folder, 'Release', 'adjoint_emulated.node')

function cmake(...options: string[]): void {
  const done = spawnSync('cmake', options, { cwd: root, encoding: 'utf8' })
  if (done.status !== 0) {
    throw new Error(`cmake ${options.join(' ')}: ${done.error ?? done.stdout + done.stderr}`)
  }
}

/** Whether the addon is there and newer than everything that it is made of. */
function isUpToDate(): boolean {
  if (!existsSync(addon)) return false
  const sources = readdirSync(path.join(root, 'native'), { recursive: true, encoding: 'utf8' })
  const files = [
    ...sources.map((file) => path.join(root, 'native', file)),
    `${root}/CMakeLists.txt`,
  ]
  const newest = Math.max(...files.map((file) => statSync(file).mtimeMs))
  return statSync(addon).mtimeMs > newest
}

/**
 * The CUDA backend as it runs on the host (`native/emulation`), as device 'cuda' of this process.
 * Built where it is missing or older than its sources: half a minute once, nothing after that.
 */
export function emulatedCuda(): Device {
  mkdirSync(path.join(root, 'build'), { recursive: true })
  withLock(`${folder}.lock`, () => {
    if (isUpToDate()) return
    cmake('-S', root, '-B', folder, '-DADJOINT_EMULATION=ON', '-DCMAKE_BUILD_TYPE=Release')
    cmake('--build', folder, '--target', 'adjoint_emulated', '--parallel')
    // A source that the addon is not made of may be newer still.
    const now = new Date()
    utimesSync(addon, now, now)
  })
  process.env.ADJOINT_ADDON_DIR = path.dirname(addon)
  return useEmulatedCuda()
}
