import { setImmediate } from 'node:timers/promises'
import { ArgumentError, checkList, describe } from '../core/errors.js'
import { noGrad } from '../core/grad-mode.js'
import type { BatchSource, DataLoaderState } from '../data/loader.js'
import { loadCheckpoint, type Stateful, saveCheckpoint } from './checkpoint.js'
import { checkFit, checkResult, checkTrainer } from './checks.js'
import { checkEarlyStop, type EarlyStop, type EpochRecord, shouldStop } from './history.js'
import { Interrupt } from './interrupt.js'
import { Progress, type Scores } from './progress.js'
import { type StepResult, Tally } from './tally.js'

/** What the trainer asks of a model; every `nn.Module` has it. */
export interface Trainable extends Stateful {
  train(mode?: boolean): unknown
  eval(): unknown
}

/** What the trainer asks of an optimizer. */
export interface Steppable extends Stateful {
  zeroGrad(): void
  step(): void
}

/** What the trainer asks of a learning rate schedule. */
export interface Scheduling extends Stateful {
  step(): void
}

export interface TrainerOptions<Batch> {
  model: Trainable
  optimizer: Steppable
  /** Forward pass and loss of one batch, in training and in validation alike. */
  step: (batch: Batch) => StepResult
  schedule?: Scheduling
  /** When the schedule steps; default 'epoch'. */
  scheduleEvery?: 'epoch' | 'batch'
}

export interface CheckpointOptions {
  path: string
  /** Also in mid-epoch, after this many batches since the last one; default never. */
  everyBatches?: number
  /** Also in mid-epoch, after this many seconds since the last one; default never. */
  everySeconds?: number
}

export interface FitOptions<Batch> {
  /** In all, those before a checkpoint included. */
  epochs: number
  /** Evaluated after every epoch. */
  validation?: Iterable<Batch>
  /** Default true: a bar per epoch on a terminal, a line per epoch elsewhere. */
  progress?: boolean | Progress
  /** Written after every epoch, when the run is interrupted, and as its options say. */
  checkpoint?: string | CheckpointOptions
  /** A checkpoint to go on from. */
  resume?: string
  earlyStop?: EarlyStop
  /** Called after each batch; `batch` counts from 1 within the epoch. */
  onBatchEnd?: (info: { epoch: number; batch: number; result: StepResult }) => void
  /** Called after each epoch; returning 'stop' ends the run. */
  onEpochEnd?: (record: EpochRecord) => unknown
  /** Whether the first Ctrl-C or SIGTERM ends the run after the batch under way; default true. */
  handleSignals?: boolean
  /** Ends the run in the same way. */
  signal?: AbortSignal
}

export interface FitResult {
  /** One record per epoch, those before a checkpoint included. */
  history: EpochRecord[]
  /** Why the run ended. */
  end: 'completed' | 'earlyStop' | 'callback' | 'interrupted'
}

// How often the progress bar asks for the scores, which waits for the device.
const PROGRESS_MS = 100

/**
 * Trains a model epoch by epoch. It lets timers and signals run between batches, so that Ctrl-C,
 * progress and early stopping work; a synchronous loop of one's own never would.
 */
export class Trainer<Batch> {
  /** @throws ArgumentError */
  constructor(readonly options: TrainerOptions<Batch>) {
    checkTrainer(options)
  }

  /**
   * Trains until `epochs` epochs are done. With the same seeds, a run that was interrupted (or
   * killed) and resumed from its checkpoint ends with the same bits as one that was not.
   * @throws FileError when a checkpoint cannot be written, or read to resume from
   */
  async fit(loader: BatchSource<Batch>, options: FitOptions<Batch>): Promise<FitResult> {
    checkFit(loader, options)
    if (!Number.isSafeInteger(options.epochs) || options.epochs < 0) {
      throw new ArgumentError(`fit: expected epochs of 0 or more, got ${describe(options.epochs)}`)
    }
    if (options.earlyStop) checkEarlyStop(options.earlyStop)
    const run = new Run(this.options, loader, options)
    try {
      return { end: await run.run(), history: run.history }
    } finally {
      run.close()
    }
  }

  /** Means over a data set, in evaluation mode and without gradients. */
  async evaluate(batches: Iterable<Batch>): Promise<Scores> {
    checkList('evaluate', 'batches', batches, true)
    return (await evaluate(this.options, batches, () => false)) as Scores
  }
}

// Null where `interrupted` came true on the way.
async function evaluate<Batch>(
  { model, step }: TrainerOptions<Batch>,
  batches: Iterable<Batch>,
  interrupted: () => boolean,
): Promise<Scores | null> {
  const tally = new Tally()
  model.eval()
  try {
    for (const batch of batches) {
      tally.add(checkResult(noGrad(() => step(batch))))
      await setImmediate()
      if (interrupted()) return null
    }
  } finally {
    model.train()
  }
  return tally.scores()
}

/** One call of `fit`. */
class Run<Batch> {
  history: EpochRecord[] = []
  private tally = new Tally()
  /** After the latest batch: the loader itself forgets an epoch that is left. */
  private position: DataLoaderState
  private readonly progress: Progress | null
  private readonly interrupt: Interrupt
  private readonly checkpoint: CheckpointOptions | null
  private batchesSinceSave = 0
  private savedAt = performance.now()
  private shownAt = 0

  constructor(
    private readonly parts: TrainerOptions<Batch>,
    private readonly loader: BatchSource<Batch>,
    private readonly options: FitOptions<Batch>,
  ) {
    const { progress = true, checkpoint } = options
    this.progress = progress === true ? new Progress() : progress || null
    this.checkpoint = typeof checkpoint === 'string' ? { path: checkpoint } : (checkpoint ?? null)
    if (options.resume !== undefined) this.resume(options.resume)
    this.position = loader.state()
    this.interrupt = new Interrupt(options.handleSignals ?? true, options.signal)
  }

  async run(): Promise<FitResult['end']> {
    const { epochs, earlyStop, onEpochEnd } = this.options
    while (this.history.length < epochs) {
      if (earlyStop && shouldStop(this.history, earlyStop)) return 'earlyStop'
      const record = await this.epoch()
      if (record === null) {
        this.save()
        return 'interrupted'
      }
      this.history.push(record)
      this.tally = new Tally()
      this.position = this.loader.state()
      if (this.parts.scheduleEvery !== 'batch') this.parts.schedule?.step()
      this.save()
      if (onEpochEnd?.(record) === 'stop') return 'callback'
    }
    return 'completed'
  }

  close(): void {
    this.progress?.stop()
    this.interrupt.dispose()
  }

  /** The rest of the epoch under way, and its validation; null if it was interrupted. */
  private async epoch(): Promise<EpochRecord | null> {
    const { loader, progress, options } = this
    const epoch = this.history.length + 1
    const started = performance.now()
    const done = this.tally.state().samples
    progress?.startEpoch({ epoch, epochs: options.epochs, samples: loader.samples, done })
    this.parts.model.train()
    for (const batch of loader) {
      const result = this.trainBatch(batch)
      this.position = loader.state()
      this.showProgress()
      options.onBatchEnd?.({ epoch, batch: this.position.position, result })
      await setImmediate()
      if (this.interrupt.requested) return null
      if (this.isSaveDue()) this.save()
    }
    const scores = this.tally.scores()
    const seconds = (performance.now() - started) / 1000
    progress?.endTraining(scores)
    const interrupted = () => this.interrupt.requested
    const validation =
      options.validation && (await evaluate(this.parts, options.validation, interrupted))
    if (validation === null) return null
    progress?.endEpoch(validation)
    return { epoch, ...scores, ...(validation && { validation }), seconds }
  }

  private trainBatch(batch: Batch): StepResult {
    const { optimizer, schedule, scheduleEvery, step } = this.parts
    optimizer.zeroGrad()
    const result = checkResult(step(batch))
    result.loss.backward()
    optimizer.step()
    if (scheduleEvery === 'batch') schedule?.step()
    this.tally.add(result)
    return result
  }

  private showProgress(): void {
    const now = performance.now()
    if (this.progress === null || now - this.shownAt < PROGRESS_MS) return
    this.shownAt = now
    this.progress.update(this.tally.state().samples, this.tally.scores())
  }

  private isSaveDue(): boolean {
    if (this.checkpoint === null) return false
    const { everyBatches = Number.POSITIVE_INFINITY, everySeconds = Number.POSITIVE_INFINITY } =
      this.checkpoint
    const seconds = (performance.now() - this.savedAt) / 1000
    return ++this.batchesSinceSave >= everyBatches || seconds >= everySeconds
  }

  private save(): void {
    if (this.checkpoint === null) return
    const { history, position: loader } = this
    saveCheckpoint(this.checkpoint.path, this.parts, { loader, tally: this.tally.state(), history })
    this.batchesSinceSave = 0
    this.savedAt = performance.now()
  }

  private resume(path: string): void {
    const { loader, tally, history } = loadCheckpoint(path, this.parts)
    this.loader.loadState(loader)
    this.tally = new Tally(tally)
    this.history = history
  }
}
