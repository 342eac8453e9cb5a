import { spawnSync } from 'node:child_process'
import path from 'node:path'

export const root = path.resolve(__dirname, '..', '..')

export interface Finished {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a TypeScript file of the tests in a process of its own, so that a crash is a result. */
export function runScript(
  file: string,
  args: readonly string[] = [],
  env: Record<string, string> = {},
): Finished {
  const done = spawnSync(process.execPath, ['--import', 'tsx', path.join(root, file), ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    encoding: 'utf8',
    timeout: 120_000,
  })
  return { status: done.status, signal: done.signal, stdout: done.stdout, stderr: done.stderr }
}
