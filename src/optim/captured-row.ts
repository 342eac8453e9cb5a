import { CaptureError } from '../core/errors.js'
import type { Participant } from '../core/recording.js'
import type { Tensor } from '../core/tensor.js'
import type { Hyperparameter, ParamState, Row, Slots } from './optimizer.js'

/** Set anew before each replay; all other hyperparameters are those of the recording. */
const FRESH: ReadonlySet<string> = new Set(['params', 'lr', 'initialLr'])

type Hyper = { lr: number } & Record<string, Hyperparameter>

const sameValue = (a: unknown, b: Hyperparameter): boolean =>
  Array.isArray(b) ? Array.isArray(a) && b.every((v, i) => a[i] === v) : a === b

/**
 * A row of an optimizer in a captured step: gives each replay its learning rate and step count, and
 * sees to it that everything else is as it was recorded.
 */
export class CapturedRow implements Participant {
  private readonly groupCount: number
  private readonly fixed: readonly (readonly [string, Hyperparameter])[]
  private readonly params: readonly Tensor[]
  private readonly states: readonly ParamState[]
  private readonly group: Hyper

  constructor(
    private readonly name: string,
    private readonly optimizer: { readonly paramGroups: readonly unknown[] },
    private readonly stateOf: ReadonlyMap<Tensor, ParamState>,
    group: object,
    row: Row,
    private readonly slots: Slots,
  ) {
    this.groupCount = optimizer.paramGroups.length
    this.group = group as Hyper
    const copy = (v: Hyperparameter) => (Array.isArray(v) ? (v.slice() as [number, number]) : v)
    this.fixed = Object.entries(this.group)
      .filter(([key]) => !FRESH.has(key))
      .map(([key, value]) => [key, copy(value)])
    this.params = row.params
    this.states = row.states
  }

  prepare(put: (slot: number, value: number) => void): void {
    const { params, states, slots, group } = this
    if (this.optimizer.paramGroups.length !== this.groupCount) {
      throw this.changed('groups of parameters')
    }
    for (const [key, value] of this.fixed) {
      if (!sameValue(group[key], value)) throw this.changed(key)
    }
    const step = nextStep(states[0])
    for (let i = 0; i < states.length; i++) {
      if (this.stateOf.get(params[i]) !== states[i]) throw this.changed('state')
      if (nextStep(states[i]) !== step) throw this.changed('step counts')
    }
    for (const state of states) state.step = step
    put(slots.lr, group.lr)
    put(slots.step, step)
  }

  undo(): void {
    for (const state of this.states) state.step--
  }

  private changed(what: string): CaptureError {
    return new CaptureError(
      `${this.name}.step: expected the optimizer as the step was recorded with it, got other ` +
        `${what}; capture the step again`,
    )
  }
}

/** A parameter without buffers is always at its first step. */
function nextStep(state: ParamState): number {
  for (const _ in state.buffers) return state.step + 1
  return 1
}
