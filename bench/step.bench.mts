// Whole training steps (AdamW, cross-entropy), against themselves in float64.
import { floorMs } from './support/floor.mjs'
import { countFor, pageFaults, spreadOf, timed } from './support/measure.mjs'
import { lossError, stepRows, TrainingStep } from './support/steps.mjs'
import type { Row, Suite } from './support/suite.mjs'

const TURNS = 9
// AdamW divides small gradients by their own size, so a step multiplies what rounding has made.
const LOSS_ERROR = 1e-3

export const suite: Suite = {
  name: 'step',
  rows: () =>
    stepRows.map((row): Row => {
      let step: TrainingStep
      return {
        name: row.name,
        check: () => {
          // A few samples say as much, and float64 is slow.
          const expected = new TrainingStep(row, { samples: 4, float64: true }).losses(3)
          const actual = new TrainingStep(row, { samples: 4 }).losses(3)
          if (!(lossError(actual, expected) <= LOSS_ERROR)) {
            throw new Error(`step/${row.name}: expected losses ${expected}, got ${actual}`)
          }
          step = new TrainingStep(row)
        },
        run: () => step.run(),
        flops: row.gflop && row.gflop * 1e9,
        floor: () => floorMs(row, step),
      }
    }),
  // Turns of many steps: a clock read between steps would count the collector in some alone.
  measure: ({ run, floor }, milliseconds) => {
    const count = countFor(run, milliseconds / TURNS)
    const times = Array.from({ length: TURNS }, () => timed(run, count))
    const loss = (run() as ReturnType<TrainingStep['run']>).item()
    const floor_ms = floor?.()
    return { ...spreadOf(times), loss, floor_ms, page_faults: pageFaults(run, count) }
  },
}
