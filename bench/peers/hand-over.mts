import path from 'node:path'
import { saveSafetensors } from 'adjoint/io'
import type { StepRow, TrainingStep } from '../support/steps.mjs'

/** Weights and batch in files, for the peer. */
export function handOver(folder: string, row: StepRow, step: TrainingStep) {
  const state = path.join(folder, `${row.name}.state.safetensors`)
  const batch = path.join(folder, `${row.name}.batch.safetensors`)
  saveSafetensors(state, step.network.stateDict())
  saveSafetensors(batch, { x: step.batch.x, y: step.batch.y })
  return { network: row.name, state, batch }
}
