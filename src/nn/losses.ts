import { checkOptions } from '../core/errors.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import {
  type BCEWithLogitsOptions,
  binaryCrossEntropyWithLogits,
  type ClassLossOptions,
  type CrossEntropyOptions,
  crossEntropy,
  type LossOptions,
  l1Loss,
  mseLoss,
  nllLoss,
  type Reduction,
} from '../ops/index.js'
import { Module } from './module.js'

abstract class Loss extends Module {
  readonly reduction: Reduction

  constructor(options: LossOptions) {
    super()
    checkOptions(this.constructor.name, options)
    this.reduction = options.reduction ?? 'mean'
  }

  /** Factors are buffers, which state dictionaries hold, as in PyTorch. */
  protected factors(name: string, weight: Tensor | null | undefined): Tensor | null {
    if (weight === null || weight === undefined) return null
    return this.registerBuffer(name, checkTensor(this.constructor.name, weight).detach())
  }
}

/** -log softmax(logits) at the targets; see `crossEntropy`. */
export class CrossEntropyLoss extends Loss {
  readonly weight: Tensor | null
  readonly ignoreIndex: number
  readonly labelSmoothing: number

  constructor(options: CrossEntropyOptions = {}) {
    super(options)
    this.weight = this.factors('weight', options.weight)
    this.ignoreIndex = options.ignoreIndex ?? -100
    this.labelSmoothing = options.labelSmoothing ?? 0
  }

  override forward(logits: Tensor, target: Tensor): Tensor {
    return crossEntropy(logits, target, this)
  }
}

/** The negative log-probability of the targets; see `nllLoss`. */
export class NLLLoss extends Loss {
  readonly weight: Tensor | null
  readonly ignoreIndex: number

  constructor(options: ClassLossOptions = {}) {
    super(options)
    this.weight = this.factors('weight', options.weight)
    this.ignoreIndex = options.ignoreIndex ?? -100
  }

  override forward(logProbabilities: Tensor, target: Tensor): Tensor {
    return nllLoss(logProbabilities, target, this)
  }
}

/** Binary cross-entropy of sigmoid(input); see `binaryCrossEntropyWithLogits`. */
export class BCEWithLogitsLoss extends Loss {
  readonly weight: Tensor | null
  readonly posWeight: Tensor | null

  constructor(options: BCEWithLogitsOptions = {}) {
    super(options)
    this.weight = this.factors('weight', options.weight)
    this.posWeight = this.factors('pos_weight', options.posWeight)
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return binaryCrossEntropyWithLogits(input, target, this)
  }
}

/** (input - target)² */
export class MSELoss extends Loss {
  constructor(options: LossOptions = {}) {
    super(options)
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return mseLoss(input, target, this)
  }
}

/** |input - target| */
export class L1Loss extends Loss {
  constructor(options: LossOptions = {}) {
    super(options)
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return l1Loss(input, target, this)
  }
}
