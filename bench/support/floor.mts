// The least time that a training step can take on this machine: its arithmetic at the rate of
// multiply-adds on registers, plus the bytes that must move at the rate of a copy.
import { probeRates } from 'adjoint'
import type { StepRow, TrainingStep } from './steps.mjs'

let rates: ReturnType<typeof probeRates> | null = null

/** The rates that this run is measured against, probed once. */
export function machineRates(): ReturnType<typeof probeRates> {
  rates ??= probeRates('cpu')
  return rates
}

/** Milliseconds; undefined where arithmetic is not listed, or its rate not probed (bfloat16). */
export function floorMs(row: StepRow, step: TrainingStep): number | undefined {
  if (row.gflop === undefined || step.precision !== 'float32') return undefined
  const { flops, copyBytes } = machineRates()
  return 1e3 * ((row.gflop * 1e9) / flops + step.leastBytes() / copyBytes)
}
