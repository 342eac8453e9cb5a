import { existsSync } from 'node:fs'
import path from 'node:path'
import type { Addon } from './native.js'
import { opcodeMismatch } from './opcodes.js'

/** An addon file that was tried and why it was not used. */
export interface LoadFailure {
  readonly path: string
  readonly reason: string
}

export interface LoadedAddon {
  readonly addon: Addon
  readonly path: string
}

export type AddonName = 'adjoint_cpu' | 'adjoint_cuda' | 'adjoint_emulated'

/** The package's root: this file lies in src/bindings or dist/bindings. */
export const packageRoot = path.resolve(__dirname, '..', '..')

/** Where an addon may lie, in the order in which it is looked for. */
function candidates(name: AddonName): string[] {
  const override = process.env.ADJOINT_ADDON_DIR
  const folders = [
    ...(override ? [path.resolve(override)] : []),
    path.join(packageRoot, 'build', 'Release'),
    path.join(packageRoot, 'build', 'Debug'),
  ]
  const files = folders.map((folder) => path.join(folder, `${name}.node`))
  try {
    // Prebuilt packages, looked for before a local build.
    files.unshift(
      require.resolve(`@adjoint/${process.platform}-${process.arch}/${name}.node`, {
        paths: [packageRoot],
      }),
    )
  } catch {
    // None is installed.
  }
  return files
}

function load(file: string): Addon {
  const holder: { exports: Partial<Addon> } = { exports: {} }
  process.dlopen(holder, file)
  const addon = holder.exports
  if (typeof addon.open !== 'function' || !addon.opcodes) {
    throw new Error('it is not an adjoint addon of this version')
  }
  const mismatch = opcodeMismatch(addon.opcodes)
  if (mismatch) throw new Error(`it was built from other sources: ${mismatch}`)
  return addon as Addon
}

/** The first addon that loads, or everything that was tried and why it failed. */
export function loadAddon(name: AddonName): LoadedAddon | LoadFailure[] {
  const failures: LoadFailure[] = []
  for (const file of candidates(name)) {
    if (!existsSync(file)) {
      failures.push({ path: file, reason: 'no such file' })
      continue
    }
    try {
      return { addon: load(file), path: file }
    } catch (error) {
      failures.push({ path: file, reason: error instanceof Error ? error.message : String(error) })
    }
  }
  return failures
}
