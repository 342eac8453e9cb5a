// Whole training steps (AdamW, cross-entropy), against themselves in float64.
import { floorMs } from './support/floor.mjs'
import { countFor, pageFaults, spreadOf, timed } from './support/measure.mjs'
import {
  lossError,
  PRECISIONS,
  type Precision,
  type StepRow,
  stepRows,
  TrainingStep,
} from './support/steps.mjs'
import type { Row, Suite } from './support/suite.mjs'

const TURNS = 9
// AdamW divides small gradients by their own size, so a step multiplies what rounding has made.
const LOSS_ERROR = { float32: 1e-3, bfloat16: 0.1 }

function stepRow(row: StepRow, precision: Precision): Row {
  let step: TrainingStep
  return {
    name: row.name,
    precision,
    check: () => {
      // A few samples say as much, and float64 is slow.
      const expected = new TrainingStep(row, 'float64', 4).losses(3)
      const actual = new TrainingStep(row, precision, 4).losses(3)
      if (!(lossError(actual, expected) <= LOSS_ERROR[precision])) {
        throw new Error(`step/${row.name}: expected losses ${expected}, got ${actual}`)
      }
      step = new TrainingStep(row, precision)
    },
    run: () => step.run(),
    flops: row.gflop && row.gflop * 1e9,
    floor: () => floorMs(row, step),
  }
}

export const suite: Suite = {
  name: 'step',
  rows: () => PRECISIONS.flatMap((precision) => stepRows.map((row) => stepRow(row, precision))),
  // Turns of many steps: a clock read between steps would count the collector in some alone.
  measure: ({ run, floor }, milliseconds) => {
    const count = countFor(run, milliseconds / TURNS)
    const times = Array.from({ length: TURNS }, () => timed(run, count))
    const loss = (run() as ReturnType<TrainingStep['run']>).item()
    const floor_ms = floor?.()
    return { ...spreadOf(times), loss, floor_ms, page_faults: pageFaults(run, count) }
  },
}
