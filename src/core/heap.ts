import { getHeapStatistics } from 'node:v8'
import { OutOfMemoryError } from './errors.js'

/** What `make` allocates, beside JavaScript's heap; `what` it is, for the message. */
export function allocate<T>(op: string, what: string, make: () => T): T {
  try {
    return make()
  } catch {
    throw new OutOfMemoryError(`${op}: expected room for ${what}, got none`)
  }
}

// Longer arrays can't grow element by element.
const MAX_LENGTH = 2 ** 26

/**
 * V8 ends the process when JavaScript's heap is full; so what may be large is refused before.
 * @param count things of `bytes` each
 * @param longest the length of the longest array that holds them
 */
export function checkHeap(op: string, count: number, bytes: number, longest = count): void {
  if (count < 2 ** 16) return
  const { heap_size_limit, used_heap_size } = getHeapStatistics()
  if (longest <= MAX_LENGTH && count * bytes < heap_size_limit - used_heap_size) return
  throw new OutOfMemoryError(
    `${op}: expected few enough for JavaScript's heap of ${heap_size_limit} bytes, got ${count}`,
  )
}
