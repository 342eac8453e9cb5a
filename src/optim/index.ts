export { Adam, type AdamOptions, AdamW } from './adam.js'
export { clipGradNorm_, clipGradValue_ } from './clip.js'
export { GradScaler, type GradScalerOptions, type GradScalerState } from './grad-scaler.js'
export {
  type Hyperparameter,
  Optimizer,
  type OptimizerStateDict,
  type ParamGroup,
  type Params,
} from './optimizer.js'
export { LRScheduler, type SchedulerStateDict } from './scheduler.js'
export {
  CosineAnnealingLR,
  ExponentialLR,
  LambdaLR,
  LinearLR,
  MultiStepLR,
  OneCycleLR,
  type OneCycleOptions,
  StepLR,
} from './schedules.js'
export { SGD, type SGDOptions } from './sgd.js'
