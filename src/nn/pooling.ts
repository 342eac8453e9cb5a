import { checkOptions } from '../core/errors.js'
import type { Tensor } from '../core/tensor.js'
import {
  type AdaptiveSize,
  type AvgPool2dOptions,
  adaptiveAvgPool2d,
  avgPool2d,
  maxPool2d,
  type Pair,
  type MaxPool2dOptions as PoolingOptions,
} from '../ops/index.js'
import { checkPair, type HW } from '../ops/spatial.js'
import { listFields } from './layer-options.js'
import { Module } from './module.js'

export type MaxPool2dOptions = Omit<PoolingOptions, 'returnIndices'>

/** The largest element of each window: x [N, C, H, W] gives [N, C, P, Q]. */
export class MaxPool2d extends Module {
  readonly kernelSize: HW
  readonly stride: HW
  readonly padding: HW
  readonly dilation: HW
  readonly ceilMode: boolean

  constructor(kernelSize: Pair, options: MaxPool2dOptions = {}) {
    super()
    checkOptions('MaxPool2d', options)
    this.kernelSize = checkPair('MaxPool2d', 'kernelSize', kernelSize, 1)
    this.stride = checkPair('MaxPool2d', 'stride', options.stride, 1, kernelSize)
    this.padding = checkPair('MaxPool2d', 'padding', options.padding, 0, 0)
    this.dilation = checkPair('MaxPool2d', 'dilation', options.dilation, 1, 1)
    this.ceilMode = options.ceilMode ?? false
  }

  override forward(x: Tensor): Tensor {
    const { stride, padding, dilation, ceilMode } = this
    return maxPool2d(x, this.kernelSize, { stride, padding, dilation, ceilMode })
  }

  protected override describe(): string {
    const { kernelSize, stride, padding, dilation, ceilMode } = this
    return listFields({ kernelSize, stride, padding, dilation, ceilMode })
  }
}

/** The mean of each window: x [N, C, H, W] gives [N, C, P, Q]. */
export class AvgPool2d extends Module {
  readonly kernelSize: HW
  readonly stride: HW
  readonly padding: HW
  readonly ceilMode: boolean
  readonly countIncludePad: boolean

  constructor(kernelSize: Pair, options: AvgPool2dOptions = {}) {
    super()
    checkOptions('AvgPool2d', options)
    this.kernelSize = checkPair('AvgPool2d', 'kernelSize', kernelSize, 1)
    this.stride = checkPair('AvgPool2d', 'stride', options.stride, 1, kernelSize)
    this.padding = checkPair('AvgPool2d', 'padding', options.padding, 0, 0)
    this.ceilMode = options.ceilMode ?? false
    this.countIncludePad = options.countIncludePad ?? true
  }

  override forward(x: Tensor): Tensor {
    const { stride, padding, ceilMode, countIncludePad } = this
    return avgPool2d(x, this.kernelSize, { stride, padding, ceilMode, countIncludePad })
  }

  protected override describe(): string {
    const { kernelSize, stride, padding, ceilMode, countIncludePad } = this
    return listFields({ kernelSize, stride, padding, ceilMode, countIncludePad })
  }
}

/** Means over as many windows as the result has positions: [N, C, H, W] gives [N, C, P, Q]. */
export class AdaptiveAvgPool2d extends Module {
  constructor(readonly outputSize: AdaptiveSize) {
    super()
  }

  override forward(x: Tensor): Tensor {
    return adaptiveAvgPool2d(x, this.outputSize)
  }

  protected override describe(): string {
    return listFields({ outputSize: this.outputSize })
  }
}
