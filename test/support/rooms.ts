import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { root } from './run.js'

/** The files below a folder whose names end so, as paths from the repository's root. */
export function filesBelow(folder: string, ending: RegExp): string[] {
  const at = path.join(root, folder)
  if (!existsSync(at)) return []
  return readdirSync(at, { recursive: true, encoding: 'utf8' })
    .filter((name) => ending.test(name))
    .map((name) => path.join(folder, name))
    .sort()
}

/** Loads every file that may declare an op, so that the registry is complete. */
export async function loadAllOps(): Promise<void> {
  for (const room of ['src/ops', 'src/nn']) {
    for (const file of filesBelow(room, /\.ts$/)) {
      await import(pathToFileURL(path.join(root, file)).href)
    }
  }
}
