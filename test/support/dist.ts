import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import path from 'node:path'
import { root } from './run.js'

/** Compiles src to dist if that was not done since the last change; examples import dist. */
export function ensureDist(): void {
  const built = path.join(root, 'dist', 'index.mjs')
  const sources = readdirSync(path.join(root, 'src'), { recursive: true, encoding: 'utf8' })
  const newest = Math.max(...sources.map((file) => statSync(path.join(root, 'src', file)).mtimeMs))
  if (existsSync(built) && statSync(built).mtimeMs > newest) return
  const script = path.join(root, 'scripts', 'build-ts.mjs')
  const done = spawnSync(process.execPath, [script], { encoding: 'utf8' })
  if (done.status !== 0) throw new Error(`build-ts failed:\n${done.stdout}${done.stderr}`)
}
