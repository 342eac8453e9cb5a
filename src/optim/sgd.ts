import { ArgumentError } from '../core/errors.js'
import {
  type Calls,
  checkRange,
  Optimizer,
  type Params,
  type Row,
  type Slots,
} from './optimizer.js'

export interface SGDOptions {
  /** Default 1e-3. */
  lr: number
  /** Default 0. */
  momentum: number
  /** How much less of the gradient enters the momentum; default 0. */
  dampening: number
  /** Times the parameter, added to the gradient; default 0. */
  weightDecay: number
  /** Looks ahead by one momentum step (Sutskever et al. 2013); default false. */
  nesterov: boolean
  /** Climbs instead of descending; default false. */
  maximize: boolean
}

const defaults: SGDOptions = {
  lr: 1e-3,
  momentum: 0,
  dampening: 0,
  weightDecay: 0,
  nesterov: false,
  maximize: false,
}

/**
 * Stochastic gradient descent, with momentum as in PyTorch:
 * g ← g + weightDecay p; b ← momentum b + (1 - dampening) g (at first b ← g);
 * p ← p - lr b, or with nesterov p ← p - lr (g + momentum b).
 */
export class SGD extends Optimizer<SGDOptions> {
  constructor(params: Params<SGDOptions>, options: Partial<SGDOptions> = {}) {
    super(params, defaults, options)
  }

  protected override checkGroup(group: SGDOptions): void {
    checkRange('SGD', 'lr', group.lr, 0)
    checkRange('SGD', 'momentum', group.momentum, 0)
    checkRange('SGD', 'dampening', group.dampening, Number.NEGATIVE_INFINITY)
    checkRange('SGD', 'weightDecay', group.weightDecay, 0)
    if (group.nesterov && (group.momentum <= 0 || group.dampening !== 0)) {
      throw new ArgumentError(
        'SGD: expected momentum and no dampening with nesterov, got momentum ' +
          `${group.momentum} and dampening ${group.dampening}`,
      )
    }
  }

  protected override bufferNames(group: SGDOptions): readonly string[] {
    return group.momentum !== 0 ? ['momentum_buffer'] : []
  }

  /** PyTorch saves none: where there is momentum, it has begun. */
  protected override stepOf(saved: unknown): number {
    return saved === undefined ? 1 : super.stepOf(saved)
  }

  protected override encode(
    calls: Calls,
    { params, grads, states }: Row,
    group: SGDOptions,
    slots: Slots,
  ): void {
    const hasMomentum = group.momentum !== 0
    calls.begin('sgd').number(params.length).flag(hasMomentum)
    for (const grad of grads) calls.input(grad)
    params.forEach((p, i) => {
      calls.output(p)
      if (hasMomentum) calls.output(states[i].buffers.momentum_buffer)
    })
    calls.number(slots.lr).number(group.momentum).number(group.dampening)
    calls.number(group.weightDecay).flag(group.nesterov).flag(group.maximize)
    calls.number(slots.step).run()
  }
}
