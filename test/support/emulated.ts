import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { type Device, useEmulatedCuda } from '../../src/core/device.js'
import { root } from './run.js'

const LOCK_WAIT_MS = 100

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Runs `body` in one process at a time: whose number stands in the file `lock`. */
function alone(lock: string, body: () => void): void {
  for (;;) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' })
      break
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_WAIT_MS)
    const owner = existsSync(lock) ? readFileSync(lock, 'utf8') : ''
    if (owner !== '' && !isAlive(Number(owner))) rmSync(lock, { force: true })
  }
  try {
    body()
  } finally {
    rmSync(lock, { force: true })
  }
}

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
  mkdirSync(path.dirname(folder), { recursive: true })
  alone(`${folder}.lock`, () => {
    cmake('-S', root, '-B', folder, '-DADJOINT_EMULATION=ON', '-DCMAKE_BUILD_TYPE=Release')
    cmake('--build', folder, '--target', 'adjoint_emulated', '--parallel')
  })
  process.env.ADJOINT_ADDON_DIR = path.join(folder, 'Release')
  return useEmulatedCuda()
}
