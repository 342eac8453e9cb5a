import { ArgumentError, checkOptions, describe } from '../core/errors.js'
import { refuseWhileCapturing } from '../core/recording.js'
import type { Optimizer } from './optimizer.js'

/** Plain data, with PyTorch's keys where it has them. */
export type SchedulerStateDict = {
  readonly last_epoch: number
  readonly base_lrs: readonly number[]
  readonly _last_lr: readonly number[]
}

/**
 * A learning rate as a function of how often `step` was called, by parameter group. It depends on
 * nothing else, so that a run which goes on from a checkpoint has the same rates.
 */
export abstract class LRScheduler {
  /** How often `step` was called. */
  lastEpoch = 0
  /** The rates at the start, by group. */
  private baseLrs: readonly number[]

  protected constructor(
    protected readonly optimizer: Optimizer,
    options: object,
  ) {
    checkOptions(this.constructor.name, options)
    const groups: unknown = optimizer?.paramGroups
    if (!Array.isArray(groups)) {
      throw new ArgumentError(
        `${this.constructor.name}: expected an optimizer, got ${describe(optimizer)}`,
      )
    }
    this.baseLrs = optimizer.paramGroups.map((group) => {
      group.initialLr ??= group.lr
      return group.initialLr
    })
  }

  /** The rate of a group after `step` has been called `epoch` times. */
  protected abstract rateAt(epoch: number, baseLr: number, group: number): number

  /** Sets the rates of the current position. Constructors end with it. */
  protected update(): void {
    this.optimizer.paramGroups.forEach((group, i) => {
      group.lr = this.rateAt(this.lastEpoch, this.baseLrs[i] ?? group.lr, i)
    })
  }

  /** Goes on by one: after an epoch, or after a batch, as the schedule is meant. */
  step(): void {
    refuseWhileCapturing(
      `${this.constructor.name}.step`,
      'a schedule, which a replay would not move; step it after the captured step',
    )
    this.lastEpoch++
    this.update()
  }

  /** The current rates, by group. */
  getLastLr(): number[] {
    return this.optimizer.paramGroups.map((group) => group.lr)
  }

  stateDict(): SchedulerStateDict {
    return {
      last_epoch: this.lastEpoch,
      base_lrs: [...this.baseLrs],
      _last_lr: this.getLastLr(),
    }
  }

  /** Goes on from where another run's schedule of the same kind and options stood. */
  loadStateDict(state: SchedulerStateDict): void {
    checkOptions('loadStateDict', state)
    const { last_epoch, base_lrs } = state
    const groups = this.optimizer.paramGroups.length
    const isRate = (lr: unknown) => typeof lr === 'number' && lr >= 0
    if (!Number.isSafeInteger(last_epoch) || last_epoch < 0) {
      throw new ArgumentError(
        `loadStateDict: expected last_epoch of 0 or more, got ${describe(last_epoch)}`,
      )
    }
    if (!Array.isArray(base_lrs) || base_lrs.length !== groups || !base_lrs.every(isRate)) {
      throw new ArgumentError(
        `loadStateDict: expected ${groups} learning rates, got ${describe(base_lrs)}`,
      )
    }
    this.lastEpoch = last_epoch
    this.baseLrs = [...base_lrs]
    this.update()
  }
}

/** A count of steps. @internal */
export function checkCount(name: string, what: string, value: unknown, least = 1): number {
  if (!Number.isSafeInteger(value) || (value as number) < least) {
    throw new ArgumentError(`${name}: expected ${what} of ${least} or more, got ${describe(value)}`)
  }
  return value as number
}
