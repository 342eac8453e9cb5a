import { mkdirSync } from 'node:fs'
import { FileError } from 'adjoint'

/** Makes a folder and those above it. @throws FileError that names it */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true })
  } catch (error) {
    throw new FileError(`${path}: cannot be made (${(error as Error).message})`)
  }
}
