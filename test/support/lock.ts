import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'

const wait = new Int32Array(new SharedArrayBuffer(4))

/** Whether the process that a lock names is there; a lock that is being written counts as held. */
function isHeld(file: string): boolean {
  try {
    const holder = Number(readFileSync(file, 'utf8'))
    if (!holder) return true
    process.kill(holder, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Runs `body` while no other process of this machine holds the lock file; waits for its turn. */
export function withLock<T>(file: string, body: () => T): T {
  for (;;) {
    try {
      const lock = openSync(file, 'wx')
      writeSync(lock, String(process.pid))
      closeSync(lock)
      break
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      if (!isHeld(file)) rmSync(file, { force: true })
      else Atomics.wait(wait, 0, 0, 100)
    }
  }
  try {
    return body()
  } finally {
    rmSync(file, { force: true })
  }
}
