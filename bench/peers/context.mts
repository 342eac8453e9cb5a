import type { Spread } from '../support/measure.mjs'
import type { Compared, Pace } from '../support/pairs.mjs'
import type { Precision } from '../support/steps.mjs'
import { PeerError, Torch, type TorchDevice, type TorchFacts } from './torch.mjs'

/** A peer's figures beside ours, or why there are none. */
export type Column = Omit<Compared, 'name'> | { readonly not_measured: string }

export interface PeerRow extends Spread {
  readonly name: string
  readonly precision: string
  /** By the peer's name; `ratio` is its time divided by ours, so above 1 we are ahead. */
  readonly peers: Readonly<Record<string, Column>>
  /** Figures that only some rows have, by the name of their column in the table. */
  readonly facts: Readonly<Record<string, number>>
  /** Of training steps: after the steps that were compared. */
  readonly loss?: number
  readonly notes: readonly string[]
}

/** What the sections of the benchmark share. */
export interface Context {
  readonly filter: RegExp
  readonly pace: Pace
  /** Of training steps. */
  readonly precisions: readonly Precision[]
  /** Which of PyTorch's columns are wanted. */
  readonly columns: readonly string[]
  /** For weights and batches that go over to the peers. */
  readonly folder: string
  readonly torch: TorchSource
}

/** Keeps one PyTorch process; starts another where it had to be stopped. */
export class TorchSource {
  #torch: Torch | null = null
  #missing: PeerError | null = null
  facts: TorchFacts | null = null

  constructor(
    private readonly threads: number,
    private readonly device: TorchDevice = 'cpu',
  ) {}

  /** @throws PeerError where PyTorch does not start here */
  async get(): Promise<Torch> {
    if (this.#missing) throw this.#missing
    if (!this.#torch || this.#torch.ended) {
      try {
        const { torch, facts } = await Torch.start(this.threads, {}, this.device)
        this.#torch = torch
        this.facts = facts
      } catch (error) {
        if (error instanceof PeerError) this.#missing = error
        throw error
      }
    }
    return this.#torch
  }

  /** A process of its own, with an environment of its own; the caller stops it. */
  async fresh(environment: Readonly<Record<string, string>> = {}): Promise<Torch> {
    if (this.#missing) throw this.#missing
    return (await Torch.start(this.threads, environment, this.device)).torch
  }

  stop(): void {
    this.#torch?.stop()
  }
}

/** Calls `measure`; a peer that cannot is a column that says why. */
export async function orNotMeasured<T>(
  measure: () => Promise<T>,
): Promise<T | { not_measured: string }> {
  try {
    return await measure()
  } catch (error) {
    if (!(error instanceof PeerError)) throw error
    return { not_measured: error.message }
  }
}
