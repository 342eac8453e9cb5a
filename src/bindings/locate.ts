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
  /** What was tried before it. */
  readonly failures: readonly LoadFailure[]
}

export type AddonName = 'adjoint_cpu' | 'adjoint_cuda' | 'adjoint_emulated'

/** The package's root: this file lies in src/bindings or dist/bindings. */
export const packageRoot = path.resolve(__dirname, '..', '..')

/** Where an addon may lie, in the order in which it is looked for. */
function candidates(name: AddonName): string[] {
  const override = process.env.ADJOINT_ADDON_DIR
  const file = `${name}.node`
  const built = ['Release', 'Debug'].map((kind) => path.join(packageRoot, 'build', kind, file))
  try {
    const prebuilt = `@adjoint/${process.platform}-${process.arch}/${file}`
    built.unshift(require.resolve(prebuilt, { paths: [packageRoot] }))
  } catch {
    // None is installed.
  }
  return override ? [path.join(path.resolve(override), file), ...built] : built
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
      return { addon: load(file), path: file, failures }
    } catch (error) {
      failures.push({ path: file, reason: error instanceof Error ? error.message : String(error) })
    }
  }
  return failures
}
