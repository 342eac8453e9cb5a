// Whole training steps beside PyTorch's: as they are, and captured.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { cuda, setFloat32MatmulPrecision } from 'adjoint'
import { handOver } from '../peers/hand-over.mjs'
import { inTurns, type Side } from '../support/pairs.mjs'
import {
  lossError,
  PRECISIONS,
  type Precision,
  type StepRow,
  TrainingStep,
} from '../support/steps.mjs'
import { type GpuContext, timedOnGpu } from './context.mjs'
import { gpuStepRows } from './networks.mjs'
import type { GpuRow } from './report.mjs'

const COMPARED_STEPS = 4
/**
 * AdamW divides small gradients by their own size, which multiplies rounding: PyTorch's losses are off
 * its float64 too, and ours may be off as far.
 */
const tolerated = (theirs: number) => 4 * theirs + 1e-4

export async function* stepsOnGpu(context: GpuContext): AsyncGenerator<GpuRow> {
  // TF32 on both sides, as one trains on such a card.
  setFloat32MatmulPrecision('high')
  const folder = mkdtempSync(path.join(tmpdir(), 'adjoint-gpu-'))
  try {
    for (const row of gpuStepRows) {
      for (const precision of PRECISIONS) {
        const name = `step ${row.name} ${precision}`
        if (!context.filter.test(name)) continue
        try {
          yield* await besideTorch(context, folder, row, precision, name)
        } catch (error) {
          yield { name, error: error instanceof Error ? error.message : String(error) }
        }
      }
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

async function besideTorch(
  { torch, pace }: GpuContext,
  folder: string,
  row: StepRow,
  precision: Precision,
  name: string,
): Promise<GpuRow[]> {
  cuda.emptyCache()
  const step = new TrainingStep(row, precision)
  const files = handOver(folder, row, step)
  const losses = step.losses(COMPARED_STEPS)
  const peer = await torch.get()
  const open = (fused: boolean) =>
    peer.open({ kind: 'step', arguments: { ...files, precision, variant: { fused, tf32: true } } })
  const exactly = await peer.open({
    kind: 'step',
    arguments: { ...files, precision: 'float64', variant: {} },
  })
  const reference = await exactly.ask<number[]>('losses', { steps: COMPARED_STEPS })
  await exactly.close()
  const [plain, fused] = [await open(false), await open(true)]
  const theirs = await plain.ask<number[]>('losses', { steps: COMPARED_STEPS })
  const error = lossError(losses, reference)
  if (!(error <= tolerated(lossError(theirs, reference)))) {
    return [{ name, error: `losses ${losses}, PyTorch has ${theirs}, in float64 ${reference}` }]
  }
  const sides: Side[] = [{ name: 'adjoint', timed: async (n) => timedOnGpu(() => step.run(), n) }]
  sides.push({ name: 'PyTorch', timed: (count) => plain.timed(count) })
  sides.push({ name: 'PyTorch, fused AdamW', timed: (count) => fused.timed(count) })
  let captureError: string | undefined
  try {
    const captured = new TrainingStep(row, precision, undefined, true)
    const same = lossError(captured.losses(COMPARED_STEPS), losses)
    if (same > 0) throw new Error(`captured losses differ by ${same}`)
    for (let i = 0; i < 2; i++) captured.run()
    sides.push({ name: 'captured', timed: async (n) => timedOnGpu(() => captured.run(), n) })
  } catch (caught) {
    captureError = caught instanceof Error ? caught.message : String(caught)
  }
  const compared = await inTurns(sides, pace)
  await plain.close()
  await fused.close()
  const [ours, eager, best, captured] = compared
  const facts = { torchMs: eager.ms_median, torchBestMs: best.ms_median, lossError: error }
  const rows: GpuRow[] = [
    { name, ms: ours.ms_median, spread: ours.spread, ratio: eager.ratio, ...facts },
  ]
  if (captured) {
    const { ms_median: ms, spread } = captured
    rows.push({ name: `${name} captured`, ms, spread, ratio: eager.ms_median / ms, ...facts })
  } else {
    rows.push({ name: `${name} captured`, error: captureError })
  }
  return rows
}
