// What a trainer is given, checked before anything is trained.
import {
  ArgumentError,
  checkFunction,
  checkList,
  checkMethods,
  checkOptions,
  checkPath,
  describe,
} from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { Progress } from './progress.js'
import type { StepResult } from './tally.js'
import type { FitOptions, TrainerOptions } from './trainer.js'

const STATEFUL = ['stateDict', 'loadStateDict']

export function checkTrainer<Batch>(options: TrainerOptions<Batch>): void {
  checkOptions('Trainer', options)
  const { model, optimizer, step, schedule, scheduleEvery = 'epoch' } = options
  checkMethods('Trainer', 'a model', model, ['train', 'eval', ...STATEFUL])
  checkMethods('Trainer', 'an optimizer', optimizer, ['zeroGrad', 'step', ...STATEFUL])
  checkFunction('Trainer', step)
  if (schedule !== undefined) {
    checkMethods('Trainer', 'a schedule', schedule, ['step', ...STATEFUL])
  }
  if (scheduleEvery !== 'epoch' && scheduleEvery !== 'batch') {
    throw new ArgumentError(
      `Trainer: expected scheduleEvery 'epoch' or 'batch', got ${describe(scheduleEvery)}`,
    )
  }
}

export function checkFit<Batch>(loader: unknown, options: FitOptions<Batch>): void {
  checkOptions('fit', options)
  checkMethods('fit', 'a loader', loader, ['state', 'loadState'])
  checkList('fit', 'a loader', loader, true)
  const { validation, progress, checkpoint, resume, onBatchEnd, onEpochEnd, signal } = options
  if (validation !== undefined) checkList('fit', 'validation batches', validation, true)
  if (typeof (progress ?? true) !== 'boolean' && !(progress instanceof Progress)) {
    throw new ArgumentError(
      `fit: expected progress true, false or a bar, got ${describe(progress)}`,
    )
  }
  if (checkpoint !== undefined) {
    if (typeof checkpoint !== 'string') checkOptions('fit', checkpoint)
    checkPath('fit', typeof checkpoint === 'string' ? checkpoint : checkpoint.path)
    if (typeof checkpoint !== 'string') {
      checkInterval('everyBatches', checkpoint.everyBatches)
      checkInterval('everySeconds', checkpoint.everySeconds)
    }
  }
  if (resume !== undefined) checkPath('fit', resume)
  for (const f of [onBatchEnd, onEpochEnd]) if (f !== undefined) checkFunction('fit', f)
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new ArgumentError(`fit: expected an AbortSignal, got ${describe(signal)}`)
  }
}

function checkInterval(name: string, value: unknown): void {
  if (value === undefined || (typeof value === 'number' && value >= 0)) return
  throw new ArgumentError(`fit: expected ${name} of 0 or more, got ${describe(value)}`)
}

/** What a step gave back. */
export function checkResult(result: StepResult): StepResult {
  checkOptions('step', result)
  const { loss, correct, samples } = result
  if (!(loss instanceof Tensor) || loss.numel !== 1) {
    throw new ArgumentError(`step: expected a loss of one element, got ${describe(loss)}`)
  }
  if (correct !== undefined && !(correct instanceof Tensor)) {
    throw new ArgumentError(`step: expected a count of right answers, got ${describe(correct)}`)
  }
  if (!Number.isSafeInteger(samples) || samples < 0) {
    throw new ArgumentError(`step: expected how many samples it saw, got ${describe(samples)}`)
  }
  return result
}
