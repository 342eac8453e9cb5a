import { ArgumentError, checkNumber, describe } from '../core/errors.js'
import type { Optimizer } from './optimizer.js'
import { checkCount, LRScheduler } from './scheduler.js'

/** lr = base gammaᵏ with k = ⌊epoch / stepSize⌋ */
export class StepLR extends LRScheduler {
  private readonly stepSize: number
  private readonly gamma: number

  /** @param options.gamma default 0.1 */
  constructor(optimizer: Optimizer, options: { stepSize: number; gamma?: number }) {
    super(optimizer, options)
    this.stepSize = checkCount('StepLR', 'stepSize', options.stepSize)
    this.gamma = checkNumber('StepLR', 'gamma', options.gamma ?? 0.1)
    this.update()
  }

  protected override rateAt(epoch: number, baseLr: number): number {
    return baseLr * this.gamma ** Math.floor(epoch / this.stepSize)
  }
}

/** lr = base gammaᵏ where k milestones have been reached */
export class MultiStepLR extends LRScheduler {
  private readonly milestones: readonly number[]
  private readonly gamma: number

  /** @param options.gamma default 0.1 */
  constructor(optimizer: Optimizer, options: { milestones: readonly number[]; gamma?: number }) {
    super(optimizer, options)
    if (!Array.isArray(options.milestones)) {
      throw new ArgumentError(
        `MultiStepLR: expected a list of milestones, got ${describe(options.milestones)}`,
      )
    }
    this.milestones = options.milestones.map((m) => checkCount('MultiStepLR', 'milestones', m, 0))
    this.gamma = checkNumber('MultiStepLR', 'gamma', options.gamma ?? 0.1)
    this.update()
  }

  protected override rateAt(epoch: number, baseLr: number): number {
    return baseLr * this.gamma ** this.milestones.filter((m) => m <= epoch).length
  }
}

/** lr = base gammaᵉᵖᵒᶜʰ */
export class ExponentialLR extends LRScheduler {
  private readonly gamma: number

  constructor(optimizer: Optimizer, options: { gamma: number }) {
    super(optimizer, options)
    this.gamma = checkNumber('ExponentialLR', 'gamma', options.gamma)
    this.update()
  }

  protected override rateAt(epoch: number, baseLr: number): number {
    return baseLr * this.gamma ** epoch
  }
}

/** lr = base f(epoch), with one function for all groups or one for each. */
export class LambdaLR extends LRScheduler {
  private readonly factors: readonly ((epoch: number) => number)[]

  constructor(
    optimizer: Optimizer,
    options: { lrLambda: ((epoch: number) => number) | readonly ((epoch: number) => number)[] },
  ) {
    super(optimizer, options)
    const { lrLambda } = options
    const groups = optimizer.paramGroups.length
    const list = typeof lrLambda === 'function' ? Array(groups).fill(lrLambda) : lrLambda
    if (
      !Array.isArray(list) ||
      list.length !== groups ||
      list.some((f) => typeof f !== 'function')
    ) {
      throw new ArgumentError(
        `LambdaLR: expected a function or ${groups} of them, got ${describe(lrLambda)}`,
      )
    }
    this.factors = list
    this.update()
  }

  protected override rateAt(epoch: number, baseLr: number, group: number): number {
    return baseLr * (this.factors[group] ?? this.factors[0])(epoch)
  }
}

/** From base startFactor to base endFactor in equal steps over totalIters: a warm-up. */
export class LinearLR extends LRScheduler {
  private readonly start: number
  private readonly end: number
  private readonly total: number

  /**
   * @param options.startFactor default 1/3; @param options.endFactor default 1
   * @param options.totalIters default 5
   */
  constructor(
    optimizer: Optimizer,
    options: { startFactor?: number; endFactor?: number; totalIters?: number } = {},
  ) {
    super(optimizer, options)
    this.start = checkNumber('LinearLR', 'startFactor', options.startFactor ?? 1 / 3)
    this.end = checkNumber('LinearLR', 'endFactor', options.endFactor ?? 1)
    this.total = checkCount('LinearLR', 'totalIters', options.totalIters ?? 5)
    this.update()
  }

  protected override rateAt(epoch: number, baseLr: number): number {
    const done = Math.min(epoch, this.total) / this.total
    return baseLr * (this.start + (this.end - this.start) * done)
  }
}

/**
 * lr = etaMin + (base - etaMin) (1 + cos(π epoch / tMax)) / 2 (Loshchilov & Hutter 2017, without
 * restarts).
 */
export class CosineAnnealingLR extends LRScheduler {
  private readonly tMax: number
  private readonly etaMin: number

  /** @param options.etaMin default 0 */
  constructor(optimizer: Optimizer, options: { tMax: number; etaMin?: number }) {
    super(optimizer, options)
    this.tMax = checkCount('CosineAnnealingLR', 'tMax', options.tMax)
    this.etaMin = checkNumber('CosineAnnealingLR', 'etaMin', options.etaMin ?? 0)
    this.update()
  }

  protected override rateAt(epoch: number, baseLr: number): number {
    const share = (1 + Math.cos((Math.PI * epoch) / this.tMax)) / 2
    return this.etaMin + (baseLr - this.etaMin) * share
  }
}

export interface OneCycleOptions {
  maxLr: number
  totalSteps: number
  /** Share of the steps in which the rate rises; default 0.3. */
  pctStart?: number
  /** Default 'cos'. */
  annealStrategy?: 'cos' | 'linear'
  /** The rate starts at maxLr / divFactor; default 25. */
  divFactor?: number
  /** And ends at that / finalDivFactor; default 1e4. */
  finalDivFactor?: number
}

/**
 * Up to maxLr and down to almost nothing, in one cycle (Smith & Topin 2018). It leaves the
 * momentum alone, as PyTorch's does with cycle_momentum=False.
 */
export class OneCycleLR extends LRScheduler {
  private readonly options: Required<OneCycleOptions>

  constructor(optimizer: Optimizer, options: OneCycleOptions) {
    super(optimizer, options)
    const {
      pctStart = 0.3,
      annealStrategy = 'cos',
      divFactor = 25,
      finalDivFactor = 1e4,
      maxLr,
      totalSteps,
    } = options
    checkCount('OneCycleLR', 'totalSteps', totalSteps)
    for (const [name, value] of Object.entries({ maxLr, divFactor, finalDivFactor })) {
      checkNumber('OneCycleLR', name, value)
    }
    if (typeof pctStart !== 'number' || !(pctStart >= 0 && pctStart <= 1)) {
      throw new ArgumentError(`OneCycleLR: expected pctStart in [0, 1], got ${describe(pctStart)}`)
    }
    if (annealStrategy !== 'cos' && annealStrategy !== 'linear') {
      throw new ArgumentError(
        `OneCycleLR: expected annealStrategy 'cos' or 'linear', got ${describe(annealStrategy)}`,
      )
    }
    this.options = { pctStart, annealStrategy, divFactor, finalDivFactor, maxLr, totalSteps }
    this.update()
  }

  protected override rateAt(epoch: number): number {
    const { maxLr, totalSteps, pctStart, divFactor, finalDivFactor } = this.options
    const first = maxLr / divFactor
    const last = totalSteps - 1
    const peak = pctStart * totalSteps - 1
    const at = Math.min(epoch, last)
    if (at < peak) return this.between(first, maxLr, at / peak)
    const down = at === peak ? 0 : (at - peak) / (last - peak)
    return this.between(maxLr, first / finalDivFactor, down)
  }

  private between(from: number, to: number, share: number): number {
    if (this.options.annealStrategy === 'linear') return from + (to - from) * share
    return to + ((from - to) * (1 + Math.cos(Math.PI * share))) / 2
  }
}
