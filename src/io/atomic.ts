// Files are written whole or not at all: into a temporary file of the same folder, which is
// synced and then renamed over the target.
import { randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { checkFunction, checkPath, FileError } from '../core/errors.js'

/** Appends bytes to the file that is being written. */
export type WriteBytes = (bytes: Uint8Array) => void

// Linux moves at most 2^31 - 4096 bytes per call; one size below that serves every system.
const CHUNK_BYTES = 1 << 30

/** The text of a failed system call, e.g. "ENOENT: no such file or directory, open 'x'". */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/**
 * Writes `path` through `write`. Either the whole file is there afterwards (also after a power
 * cut), or what stood there before is untouched and the temporary file is gone.
 * @throws FileError when the file cannot be written; whatever `write` throws passes through.
 */
export function writeFileAtomic(path: string, write: (append: WriteBytes) => void): void {
  checkPath('writeFileAtomic', path)
  checkFunction('writeFileAtomic', write)
  const folder = dirname(path)
  const temporary = join(folder, `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`)
  const system = <T>(call: () => T): T => {
    try {
      return call()
    } catch (error) {
      throw new FileError(`${path}: cannot be written (${reasonOf(error)})`, { cause: error })
    }
  }

  const fd = system(() => openSync(temporary, 'wx'))
  let open = true
  try {
    write((bytes) => {
      for (let done = 0; done < bytes.length; ) {
        const length = Math.min(CHUNK_BYTES, bytes.length - done)
        done += system(() => writeSync(fd, bytes, done, length))
      }
    })
    system(() => fsyncSync(fd))
    open = false
    system(() => closeSync(fd))
    system(() => renameSync(temporary, path))
  } catch (error) {
    if (open) closeSync(fd)
    rmSync(temporary, { force: true })
    throw error
  }
  syncFolder(folder)
}

// Makes the rename itself durable. Not every system opens folders, and by now the file is right.
function syncFolder(folder: string): void {
  try {
    const fd = openSync(folder, 'r')
    try {
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
  } catch {
    // Windows refuses; there the rename is journaled by the file system.
  }
}
