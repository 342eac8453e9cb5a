// What a person sees of a training run: a bar per epoch on a terminal, a line per epoch elsewhere.
import cliProgress, { type SingleBar } from 'cli-progress'

/** Means over the samples seen so far in an epoch; accuracy from 0 to 1 where the task has one. */
export interface Scores {
  loss: number
  accuracy?: number
}

export interface EpochStart {
  /** From 1. */
  epoch: number
  epochs: number
  /** Samples in the epoch. */
  samples: number
  /** Samples of the epoch done before, when a run resumes in mid-epoch. */
  done?: number
}

export interface ProgressOptions {
  /** Default `process.stdout`. */
  stream?: NodeJS.WriteStream
  /** The clock, in milliseconds; default `performance.now`. */
  now?: () => number
}

const FORMAT = 'Epoch {label} {bar} {value}/{total} · {scores} · {rate} samples/s · {left} left'

export class Progress {
  private readonly stream: NodeJS.WriteStream
  private readonly now: () => number
  private bar: SingleBar | undefined
  private current: Required<EpochStart> = { epoch: 0, epochs: 0, samples: 0, done: 0 }
  private startedAt = 0
  private endedAt: number | undefined
  private trained: Scores | undefined
  private done = 0

  constructor(options: ProgressOptions = {}) {
    this.stream = options.stream ?? process.stdout
    this.now = options.now ?? (() => performance.now())
  }

  startEpoch(start: EpochStart): void {
    this.stop()
    this.current = { done: 0, ...start }
    this.done = this.current.done
    this.startedAt = this.now()
    this.endedAt = undefined
    if (!this.stream.isTTY) return
    this.bar = new cliProgress.SingleBar(
      {
        format: FORMAT,
        stream: this.stream,
        barsize: 24,
        hideCursor: false,
        // Its own SIGINT handler would end the process before the trainer has saved a checkpoint.
        gracefulExit: false,
      },
      cliProgress.Presets.shades_classic,
    )
    this.bar.start(this.current.samples, this.done, this.tokens('loss -'))
  }

  /** `done`: samples of this epoch so far; `scores`: their means. */
  update(done: number, scores: Scores): void {
    this.done = done
    this.bar?.update(done, this.tokens(scoresText(scores)))
  }

  /** Ends the training of the epoch, and the clock of its rate. */
  endTraining(scores: Scores): void {
    this.endedAt = this.now()
    this.trained = scores
    this.update(this.current.samples, scores)
    this.stop()
  }

  /** Ends the epoch; `validation` is absent where nothing was validated. */
  endEpoch(validation?: Scores): void {
    const validationText = validation && `validation ${scoresText(validation)}`
    if (this.stream.isTTY) {
      if (validationText) this.stream.write(`  ${validationText}\n`)
      return
    }
    const seconds = `${this.seconds().toFixed(1)} s`
    const scores = this.trained && scoresText(this.trained)
    const parts = [`Epoch ${this.label()}`, scores, validationText, `${this.rate()} samples/s`]
    const line = [...parts, seconds].filter((part) => part !== undefined).join(' · ')
    this.stream.write(`${line}\n`)
  }

  /** Leaves the bar as it stands and frees the terminal, as after an error or Ctrl-C. */
  stop(): void {
    this.bar?.stop()
    this.bar = undefined
  }

  private label(): string {
    return `${this.current.epoch}/${this.current.epochs}`
  }

  private tokens(scores: string): Record<string, string> {
    const perSecond = this.samplesPerSecond()
    const left = perSecond > 0 ? durationText((this.current.samples - this.done) / perSecond) : '-'
    return { label: this.label(), scores, rate: this.rate(), left }
  }

  private seconds(): number {
    return ((this.endedAt ?? this.now()) - this.startedAt) / 1000
  }

  private samplesPerSecond(): number {
    const seconds = this.seconds()
    return seconds > 0 ? (this.done - this.current.done) / seconds : 0
  }

  private rate(): string {
    return Math.round(this.samplesPerSecond()).toLocaleString('en-US')
  }
}

/** "loss 0.0123 · accuracy 99.21 %" */
export function scoresText({ loss, accuracy }: Scores): string {
  const text = `loss ${loss.toFixed(4)}`
  return accuracy === undefined ? text : `${text} · accuracy ${(100 * accuracy).toFixed(2)} %`
}

/** "7 s", "3:07 min" or "2:03:07 h" */
export function durationText(seconds: number): string {
  const whole = Math.round(seconds)
  const pad = (n: number) => String(n).padStart(2, '0')
  const s = whole % 60
  const m = Math.floor(whole / 60) % 60
  const h = Math.floor(whole / 3600)
  if (h > 0) return `${h}:${pad(m)}:${pad(s)} h`
  return m > 0 ? `${m}:${pad(s)} min` : `${s} s`
}
