import { checkOptions } from '../core/errors.js'
import type { Tensor } from '../core/tensor.js'
import type { LinearActivation } from '../ops/fused-activation.js'
import { feedForward, linear } from '../ops/index.js'
import {
  checkSize,
  defaultBias,
  defaultWeight,
  type LayerOptions,
  listFields,
} from './layer-options.js'
import { Module } from './module.js'
import type { Parameter } from './parameter.js'

export interface LinearOptions extends LayerOptions {
  /** Whether a bias is learned; default true. */
  bias?: boolean
}

/**
 * x Wᵀ + b: x [.., inFeatures] gives [.., outFeatures]. Weights and bias start uniform in
 * ±1 / √inFeatures.
 */
export class Linear extends Module {
  /** [outFeatures, inFeatures] */
  readonly weight: Parameter
  /** [outFeatures] */
  readonly bias: Parameter | null

  constructor(
    readonly inFeatures: number,
    readonly outFeatures: number,
    options: LinearOptions = {},
  ) {
    super()
    checkOptions('Linear', options)
    checkSize('Linear', 'inFeatures', inFeatures)
    checkSize('Linear', 'outFeatures', outFeatures)
    this.weight = defaultWeight([outFeatures, inFeatures], options)
    this.bias = (options.bias ?? true) ? defaultBias(outFeatures, inFeatures, options) : null
  }

  override forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias)
  }

  /** The layer and an activation in one kernel: `Sequential` asks for it. Internal. */
  activate(x: Tensor, activation: LinearActivation): Tensor {
    return linear(x, this.weight, this.bias, { activation })
  }

  /** The layer, an activation and another layer as one op: `Sequential` asks for it. Internal. */
  feedForward(x: Tensor, activation: LinearActivation, next: Linear): Tensor {
    return feedForward(x, this.weight, this.bias, next.weight, next.bias, { activation })
  }

  protected override describe(): string {
    const { inFeatures, outFeatures, bias } = this
    return listFields({ inFeatures, outFeatures, bias: bias !== null })
  }
}
