import { ArgumentError, checkOptions } from '../core/errors.js'
import type { Tensor } from '../core/tensor.js'
import type { Activation } from '../ops/fused-activation.js'
import { type Conv2dOptions as ConvolutionOptions, conv2d, type Pair } from '../ops/index.js'
import { checkPair, type HW } from '../ops/spatial.js'
import {
  checkSize,
  defaultBias,
  defaultWeight,
  type LayerOptions,
  listFields,
} from './layer-options.js'
import { Module } from './module.js'
import type { Parameter } from './parameter.js'

export interface Conv2dOptions extends LayerOptions, Omit<ConvolutionOptions, 'activation'> {
  /** Whether a bias is learned; default true. */
  bias?: boolean
}

/**
 * Cross-correlation of images with learned filters: x [N, inChannels, H, W] gives
 * [N, outChannels, P, Q]. Weights and bias start uniform in ±1 / √fanIn, where
 * fanIn = inChannels / groups · R · S.
 */
export class Conv2d extends Module {
  /** [outChannels, inChannels / groups, R, S] */
  readonly weight: Parameter
  /** [outChannels] */
  readonly bias: Parameter | null
  readonly kernelSize: HW
  readonly stride: HW
  readonly padding: HW | 'same' | 'valid'
  readonly dilation: HW
  readonly groups: number

  constructor(
    readonly inChannels: number,
    readonly outChannels: number,
    kernelSize: Pair,
    options: Conv2dOptions = {},
  ) {
    super()
    checkOptions('Conv2d', options)
    const { stride = 1, padding = 0, dilation = 1, groups = 1, bias = true } = options
    checkSize('Conv2d', 'inChannels', inChannels)
    checkSize('Conv2d', 'outChannels', outChannels)
    checkSize('Conv2d', 'groups', groups)
    if (inChannels % groups !== 0 || outChannels % groups !== 0) {
      throw new ArgumentError(
        `Conv2d: expected channels divisible by ${groups} groups, got ${inChannels} and ` +
          `${outChannels}`,
      )
    }
    const named = padding === 'same' || padding === 'valid'
    this.kernelSize = checkPair('Conv2d', 'kernelSize', kernelSize, 1)
    this.stride = checkPair('Conv2d', 'stride', stride, 1)
    this.padding = named ? padding : checkPair('Conv2d', 'padding', padding, 0)
    this.dilation = checkPair('Conv2d', 'dilation', dilation, 1)
    this.groups = groups
    const [r, s] = this.kernelSize
    const inside = inChannels / groups
    this.weight = defaultWeight([outChannels, inside, r, s], options)
    this.bias = bias ? defaultBias(outChannels, inside * r * s, options) : null
  }

  override forward(x: Tensor): Tensor {
    return this.convolve(x, null)
  }

  /** The layer with an activation in the same kernel, if any: `Sequential` asks for it. Internal. */
  convolve(x: Tensor, activation: Activation | null): Tensor {
    const { weight, bias, stride, padding, dilation, groups } = this
    return conv2d(x, weight, bias, { stride, padding, dilation, groups, activation })
  }

  protected override describe(): string {
    const { inChannels, outChannels, kernelSize, stride, padding, dilation, groups } = this
    const fields: Record<string, unknown> = { kernelSize, stride }
    if (typeof padding === 'string' || padding.some((n) => n !== 0)) fields.padding = padding
    if (dilation.some((n) => n !== 1)) fields.dilation = dilation
    if (groups !== 1) fields.groups = groups
    if (this.bias === null) fields.bias = false
    return `${inChannels}, ${outChannels}, ${listFields(fields)}`
  }
}
