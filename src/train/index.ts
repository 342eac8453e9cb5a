export { loadCheckpoint, type RunPosition, type Stateful, saveCheckpoint } from './checkpoint.js'
export { classifierStep } from './classifier.js'
export type { EarlyStop, EpochRecord } from './history.js'
export { type EpochStart, Progress, type ProgressOptions, type Scores } from './progress.js'
export type { StepResult } from './tally.js'
export {
  type CheckpointOptions,
  type FitOptions,
  type FitResult,
  type Scheduling,
  type Steppable,
  type Trainable,
  Trainer,
  type TrainerOptions,
} from './trainer.js'
