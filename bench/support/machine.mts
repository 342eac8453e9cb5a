import os from 'node:os'
import { device, getNumThreads } from 'adjoint'

/** What a figure belongs to. */
export interface Machine extends Readonly<Record<string, string | number>> {
  readonly processor: string
  readonly threads: number
  readonly node: string
}

export function machine(): Machine {
  return {
    ...device('cpu').native.deviceInfo(),
    processor: os.cpus()[0]?.model.trim() ?? 'unknown',
    threads: getNumThreads(),
    node: process.version,
  }
}
