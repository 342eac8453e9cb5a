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

/** Enough for a captured step to be replayed. */
const REPLAYED_STEPS = 5

function stepRow(row: StepRow, precision: Precision, isCaptured: boolean): Row {
  let step: TrainingStep
  return {
    name: isCaptured ? `${row.name} captured` : row.name,
    precision,
    check: () => {
      // A few samples say as much, and float64 is slow.
      const expected = new TrainingStep(row, 'float64', 4).losses(3)
      const actual = new TrainingStep(row, precision, 4).losses(3)
      if (!(lossError(actual, expected) <= LOSS_ERROR[precision])) {
        throw new Error(`step/${row.name}: expected losses ${expected}, got ${actual}`)
      }
      step = new TrainingStep(row, precision, undefined, isCaptured)
      if (isCaptured) {
        const eager = new TrainingStep(row, precision).losses(REPLAYED_STEPS)
        const captured = step.losses(REPLAYED_STEPS)
        if (captured.some((loss, i) => loss !== eager[i])) {
          throw new Error(`step/${row.name}: expected the losses ${eager}, captured ${captured}`)
        }
      }
    },
    run: () => step.run(),
    flops: row.gflop && row.gflop * 1e9,
    floor: () => floorMs(row, step),
  }
}

export const suite: Suite = {
  name: 'step',
  rows: () =>
    PRECISIONS.flatMap((precision) =>
      stepRows.flatMap((row) => [false, true].map((captured) => stepRow(row, precision, captured))),
    ),
  // Turns of many steps: a clock read between steps would count the collector in some alone.
  measure: ({ run, floor }, milliseconds) => {
    const count = countFor(run, milliseconds / TURNS)
    const times = Array.from({ length: TURNS }, () => timed(run, count))
    const loss = (run() as ReturnType<TrainingStep['run']>).item()
    const floor_ms = floor?.()
    return { ...spreadOf(times), loss, floor_ms, page_faults: pageFaults(run, count) }
  },
}
