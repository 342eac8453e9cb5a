import { cuda } from 'adjoint'
import type { TorchSource } from '../peers/context.mjs'
import type { Pace } from '../support/pairs.mjs'

export interface GpuContext {
  readonly filter: RegExp
  readonly pace: Pace
  readonly torch: TorchSource
}

/**
 * Milliseconds of each of `count` runs after one that is not counted: from an idle device until it is
 * idle again.
 */
export function timedOnGpu(run: () => unknown, count: number): number {
  run()
  cuda.synchronize()
  const start = performance.now()
  for (let i = 0; i < count; i++) run()
  cuda.synchronize()
  return (performance.now() - start) / count
}
