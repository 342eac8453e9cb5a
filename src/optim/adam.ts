import { ArgumentError, describe } from '../core/errors.js'
import {
  type Calls,
  checkRange,
  Optimizer,
  type Params,
  type Row,
  type Slots,
} from './optimizer.js'

export interface AdamOptions {
  /** Default 1e-3. */
  lr: number
  /** Of the running means of the gradient and of its square; default [0.9, 0.999]. */
  betas: readonly [number, number]
  /** Added to the root in the denominator; default 1e-8. */
  eps: number
  /** Default 0 for Adam, 1e-2 for AdamW. */
  weightDecay: number
  /** Divides by the largest second moment so far (Reddi et al. 2018); default false. */
  amsgrad: boolean
  /** Climbs instead of descending; default false. */
  maximize: boolean
}

const defaults: AdamOptions = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  amsgrad: false,
  maximize: false,
}

abstract class AdamFamily extends Optimizer<AdamOptions> {
  /** Whether weights decay by themselves, or through the gradient. */
  protected abstract readonly decoupledDecay: boolean

  protected override checkGroup(group: AdamOptions): void {
    const name = this.constructor.name
    checkRange(name, 'lr', group.lr, 0)
    checkRange(name, 'eps', group.eps, 0)
    checkRange(name, 'weightDecay', group.weightDecay, 0)
    if (!Array.isArray(group.betas) || group.betas.length !== 2) {
      throw new ArgumentError(`${name}: expected two betas, got ${describe(group.betas)}`)
    }
    for (const beta of group.betas) checkRange(name, 'betas', beta, 0, 1)
  }

  protected override bufferNames(group: AdamOptions): readonly string[] {
    return group.amsgrad ? ['exp_avg', 'exp_avg_sq', 'max_exp_avg_sq'] : ['exp_avg', 'exp_avg_sq']
  }

  protected override encode(
    calls: Calls,
    { params, grads, states }: Row,
    group: AdamOptions,
    slots: Slots,
  ): void {
    calls.begin('adam').number(params.length).flag(group.amsgrad)
    for (const grad of grads) calls.input(grad)
    params.forEach((p, i) => {
      const { buffers } = states[i]
      calls.output(p).output(buffers.exp_avg).output(buffers.exp_avg_sq)
      if (group.amsgrad) calls.output(buffers.max_exp_avg_sq)
    })
    calls.number(slots.lr).number(slots.step).number(group.betas[0]).number(group.betas[1])
    calls.number(group.eps).number(group.weightDecay)
    calls.flag(this.decoupledDecay).flag(group.maximize).run()
  }
}

/**
 * Adam (Kingma & Ba 2015): m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²;
 * p ← p - lr m̂ / (√v̂ + eps), with m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ).
 * Weight decay is added to the gradient.
 */
export class Adam extends AdamFamily {
  protected override readonly decoupledDecay = false

  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, defaults, options)
  }
}

/** Adam with weights that decay by themselves, p ← (1 - lr weightDecay) p (Loshchilov & Hutter 2019). */
export class AdamW extends AdamFamily {
  protected override readonly decoupledDecay = true

  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, { ...defaults, weightDecay: 1e-2 }, options)
  }
}
