import { ArgumentError, describe } from '../core/errors.js'
import type { Scores } from './progress.js'

/** What one epoch came to. */
export interface EpochRecord extends Scores {
  /** From 1. */
  epoch: number
  /** On the validation set, after the epoch; absent where there is none. */
  validation?: Scores
  /** Wall time in seconds of training, without validation; of a resumed epoch its last part. */
  seconds: number
}

export interface EarlyStop {
  /** Epochs without improvement after which the run ends. */
  patience: number
  /** What is watched, on the validation set if there is one; default 'loss'. */
  monitor?: 'loss' | 'accuracy'
  /** What counts as an improvement must be larger than this; default 0. */
  minDelta?: number
}

export function checkEarlyStop({ patience, monitor = 'loss', minDelta = 0 }: EarlyStop): void {
  if (!Number.isSafeInteger(patience) || patience < 1) {
    throw new ArgumentError(
      `earlyStop: expected a patience of 1 or more, got ${describe(patience)}`,
    )
  }
  if (monitor !== 'loss' && monitor !== 'accuracy') {
    throw new ArgumentError(`earlyStop: expected 'loss' or 'accuracy', got ${describe(monitor)}`)
  }
  if (typeof minDelta !== 'number' || !(minDelta >= 0)) {
    throw new ArgumentError(
      `earlyStop: expected a minDelta of 0 or more, got ${describe(minDelta)}`,
    )
  }
}

/** Whether the last `patience` epochs were no better than the best before them. */
export function shouldStop(history: readonly EpochRecord[], rule: EarlyStop): boolean {
  const { patience, monitor = 'loss', minDelta = 0 } = rule
  // Larger is better.
  let best = Number.NEGATIVE_INFINITY
  let bestAt = -1
  for (const [i, record] of history.entries()) {
    const scores = record.validation ?? record
    const value = monitor === 'loss' ? -scores.loss : (scores.accuracy ?? Number.NaN)
    if (value > best + minDelta || bestAt < 0) {
      best = Number.isNaN(value) ? best : value
      bestAt = i
    }
  }
  return history.length - 1 - bestAt >= patience
}
