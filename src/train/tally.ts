import type { Tensor } from '../core/tensor.js'
import type { Scores } from './progress.js'

/** The loss and the number of right answers of one batch. */
export interface StepResult {
  /** The mean over the batch, of one element; `backward` starts here. */
  loss: Tensor
  /** How many samples of the batch were answered rightly, where that can be said. */
  correct?: Tensor
  /** Samples in the batch. */
  samples: number
}

/** Sums over the samples so far; plain data. */
export interface TallyState {
  loss: number
  /** null: not counted. */
  correct: number | null
  samples: number
}

/**
 * Means over an epoch. Results stay on their device until they are asked for, since reading one
 * waits for all queued work; they are summed in float64 in the order of the batches, so when they
 * are read makes no difference to the sums.
 */
export class Tally {
  private pending: StepResult[] = []

  constructor(private sums: TallyState = { loss: 0, correct: null, samples: 0 }) {}

  add({ loss, correct, samples }: StepResult): void {
    this.pending.push({ loss: loss.detach(), correct, samples })
  }

  /** Waits for the results so far. */
  state(): TallyState {
    const sums = { ...this.sums }
    for (const { loss, correct, samples } of this.pending) {
      sums.loss += loss.item() * samples
      sums.samples += samples
      if (correct) sums.correct = (sums.correct ?? 0) + correct.item()
    }
    this.pending = []
    this.sums = sums
    return { ...sums }
  }

  /** Waits for the results so far. */
  scores(): Scores {
    const { loss, correct, samples } = this.state()
    const mean = { loss: loss / samples }
    return correct === null ? mean : { ...mean, accuracy: correct / samples }
  }
}
