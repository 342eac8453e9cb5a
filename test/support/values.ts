import { expect } from 'vitest'
import { AdjointError, synchronize, type Tensor } from '../../src/index.js'

/** The elements in row-major order as plain numbers. */
export function values(t: Tensor | null): number[] {
  if (t === null) throw new Error('expected a tensor, got null')
  return Array.from(t.dataSync() as ArrayLike<number | bigint>, Number)
}

type ErrorClass = abstract new (...args: never[]) => Error

/** Runs `body`, which must throw an error of this very class, and returns its message. */
export function errorOf(kind: ErrorClass, body: () => unknown): string {
  try {
    body()
    // What a kernel finds wrong may be raised only now.
    synchronize()
  } catch (error) {
    expect(error).toBeInstanceOf(AdjointError)
    expect((error as Error).constructor).toBe(kind)
    return (error as Error).message
  }
  throw new Error(`expected ${kind.name}, got no error`)
}
