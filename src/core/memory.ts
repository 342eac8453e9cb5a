import type { NativeMemoryStats } from '../bindings/native.js'
import { type DeviceLike, defaultDevice, device as findDevice } from './device.js'
import { ArgumentError, describe } from './errors.js'

export type MemoryStats = NativeMemoryStats

const at = (name?: DeviceLike) => (name === undefined ? defaultDevice() : findDevice(name))

/**
 * What a device holds: bytes and tensors of this thread, the allocator's figures for the process,
 * and the time that reclaiming dead tensors has taken.
 */
export function memoryStats(device?: DeviceLike): MemoryStats {
  return at(device).native.memoryStats()
}

/** Frees everything that is not referenced any more, now: a full collection. Never needed. */
export function collectGarbage(device?: DeviceLike): void {
  at(device).native.collect()
}

/** Gives memory that is kept for reuse back to the system. */
export function emptyCache(device?: DeviceLike): void {
  at(device).native.trimCache()
}

/** The most bytes that tensors of the process may take on a device; 0 for no limit. */
export function setMemoryCap(bytes: number, device?: DeviceLike): void {
  if (!Number.isFinite(bytes) || bytes < 0) {
    throw new ArgumentError(`setMemoryCap: expected bytes of 0 or more, got ${describe(bytes)}`)
  }
  at(device).native.setMemoryCap(bytes)
}

/** Waits until all queued work of a device is done. */
export function synchronize(device?: DeviceLike): void {
  at(device).native.synchronize()
}

/** How many threads compute, the calling one included. */
export function getNumThreads(): number {
  return findDevice('cpu').native.threadCount()
}

const MAX_THREADS = 4096

/** Sets how many threads compute. Results do not depend on it. */
export function setNumThreads(count: number): void {
  if (!Number.isInteger(count) || count < 1 || count > MAX_THREADS) {
    throw new ArgumentError(
      `setNumThreads: expected a whole number from 1 to ${MAX_THREADS}, got ${describe(count)}`,
    )
  }
  findDevice('cpu').native.setThreadCount(count)
}
