import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { type Device, useEmulatedCuda } from '../../src/core/device.js'
import { root } from './run.js'

/**
 * The CUDA backend as it runs on the host (`native/emulation`), as device 'cuda' of this process.
 * Built where it is missing or older than its sources: half a minute once, nothing after that.
 */
export function emulatedCuda(): Device {
  const folder = path.join(root, 'build', 'emulated')
  const cmake = (...options: string[]) => {
    const done = spawnSync('cmake', options, { cwd: root, encoding: 'utf8' })
    if (done.status !== 0) {
      throw new Error(`cmake ${options.join(' ')}: ${done.error ?? done.stdout + done.stderr}`)
    }
  }
  cmake('-S', root, '-B', folder, '-DADJOINT_EMULATION=ON', '-DCMAKE_BUILD_TYPE=Release')
  cmake('--build', folder, '--target', 'adjoint_emulated', '--parallel')
  process.env.ADJOINT_ADDON_DIR = path.join(folder, 'Release')
  return useEmulatedCuda()
}
