import { ArgumentError, checkOptions, describe, ShapeError } from '../core/errors.js'
import { noGrad } from '../core/grad-mode.js'
import { showShape } from '../core/shape.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import type { Activation } from '../ops/fused-activation.js'
import { batchNorm, layerNorm, ones, rmsNorm, zeros } from '../ops/index.js'
import { checkEps } from '../ops/layer-norm.js'
import { checkSize, type LayerOptions, listFields, placement } from './layer-options.js'
import { Module } from './module.js'
import { Parameter } from './parameter.js'

export interface BatchNormOptions extends LayerOptions {
  /** Added to the variance; default 1e-5. */
  eps?: number
  /** Share of the batch in the running averages; null for the mean over all batches. Default 0.1. */
  momentum?: number | null
  /** Whether factors and offsets are learned; default true. */
  affine?: boolean
  /** Whether averages are kept for evaluation; without, batches are used there too. Default true. */
  trackRunningStats?: boolean
}

/**
 * Normalises by channel over the batch (Ioffe & Szegedy 2015): in training by the batch's own mean
 * and variance, in evaluation by their running averages.
 */
export abstract class BatchNorm extends Module {
  /** [numFeatures] */
  readonly weight: Parameter | null = null
  /** [numFeatures] */
  readonly bias: Parameter | null = null
  readonly runningMean: Tensor | null = null
  readonly runningVar: Tensor | null = null
  /** int64 []: how many batches the averages are of. */
  readonly numBatchesTracked: Tensor | null = null
  readonly eps: number
  readonly momentum: number | null

  constructor(
    readonly numFeatures: number,
    options: BatchNormOptions = {},
  ) {
    super()
    checkOptions(this.constructor.name, options)
    const { eps = 1e-5, momentum = 0.1, affine = true, trackRunningStats = true } = options
    const name = this.constructor.name
    checkSize(name, 'numFeatures', numFeatures)
    if (
      typeof eps !== 'number' ||
      !(eps >= 0) ||
      (momentum !== null && !Number.isFinite(momentum))
    ) {
      throw new ArgumentError(
        `${name}: expected eps of 0 or more and a finite momentum, got ${describe(eps)} and ` +
          describe(momentum),
      )
    }
    this.eps = eps
    this.momentum = momentum
    const place = placement(options)
    if (affine) {
      this.weight = new Parameter(ones([numFeatures], place))
      this.bias = new Parameter(zeros([numFeatures], place))
    }
    if (trackRunningStats) {
      this.runningMean = this.registerBuffer('running_mean', zeros([numFeatures], place))
      this.runningVar = this.registerBuffer('running_var', ones([numFeatures], place))
      const count = zeros([], { dtype: 'int64', device: options.device })
      // Files of older PyTorch do not have it.
      this.numBatchesTracked = this.registerBuffer('num_batches_tracked', count, { optional: true })
    }
  }

  /** Whether x has the axes that the layer is for. */
  protected abstract checkInput(x: Tensor): void

  override forward(x: Tensor): Tensor {
    return this.normalize(x, null)
  }

  /** The layer with an activation in the same pass, if any: `Sequential` asks for it. Internal. */
  normalize(x: Tensor, activation: Activation | null): Tensor {
    this.checkInput(checkTensor(this.constructor.name, x))
    const { weight, bias, runningMean, runningVar, eps } = this
    const training = this.training || runningMean === null
    const numBatchesTracked = this.training ? this.numBatchesTracked : null
    const momentum = this.training ? this.shareOfBatch() : 0
    const options = { weight, bias, training, momentum, eps, numBatchesTracked, activation }
    return batchNorm(x, runningMean, runningVar, options)
  }

  /** The next batch's share in the running averages. */
  private shareOfBatch(): number {
    const count = this.numBatchesTracked
    return this.momentum ?? (count === null ? 0 : 1 / (count.item() + 1))
  }

  /** Forgets the batches seen so far. */
  resetRunningStats(): void {
    noGrad(() => {
      this.runningMean?.zero_()
      this.runningVar?.fill_(1)
      this.numBatchesTracked?.zero_()
    })
  }

  protected override describe(): string {
    const { numFeatures, eps, momentum, weight, runningMean } = this
    const fields = {
      eps,
      momentum,
      affine: weight !== null,
      trackRunningStats: runningMean !== null,
    }
    return `${numFeatures}, ${listFields(fields)}`
  }
}

/** Batch norm of x [N, C] or [N, C, L]. */
export class BatchNorm1d extends BatchNorm {
  protected override checkInput(x: Tensor): void {
    if (x.ndim !== 2 && x.ndim !== 3) {
      throw new ShapeError(
        `BatchNorm1d: expected x of shape [N, C] or [N, C, L], got ${showShape(x.shape)}`,
      )
    }
  }
}

/** Batch norm of x [N, C, H, W]. */
export class BatchNorm2d extends BatchNorm {
  protected override checkInput(x: Tensor): void {
    if (x.ndim !== 4) {
      throw new ShapeError(
        `BatchNorm2d: expected x of shape [N, C, H, W], got ${showShape(x.shape)}`,
      )
    }
  }
}

/** Checks a layer's `normalizedShape`, a size or several. */
function checkRow(layer: string, shape: number | readonly number[]): readonly number[] {
  const sizes: unknown = typeof shape === 'number' ? [shape] : shape
  if (!Array.isArray(sizes) || sizes.length === 0) {
    throw new ArgumentError(
      `${layer}: expected normalizedShape of one or more sizes, got ${describe(shape)}`,
    )
  }
  return sizes.map((size) => checkSize(layer, 'normalizedShape', size))
}

export interface LayerNormOptions extends LayerOptions {
  /** Added to the variance; default 1e-5. */
  eps?: number
  /** Whether factors and offsets are learned; default true. */
  elementwiseAffine?: boolean
  /** Whether offsets are learned, where factors are; default true. */
  bias?: boolean
}

/**
 * Normalises each row, the last axes of x [.., normalizedShape], by its own mean and variance
 * (Ba et al. 2016).
 * @example new nn.LayerNorm(384).forward(x)
 */
export class LayerNorm extends Module {
  readonly normalizedShape: readonly number[]
  /** Of shape normalizedShape, from 1. */
  readonly weight: Parameter | null = null
  /** Of shape normalizedShape, from 0. */
  readonly bias: Parameter | null = null
  readonly eps: number

  constructor(normalizedShape: number | readonly number[], options: LayerNormOptions = {}) {
    super()
    checkOptions('LayerNorm', options)
    const { eps = 1e-5, elementwiseAffine = true, bias = true } = options
    this.normalizedShape = checkRow('LayerNorm', normalizedShape)
    this.eps = checkEps('LayerNorm', eps)
    if (elementwiseAffine) {
      this.weight = new Parameter(ones(this.normalizedShape, placement(options)))
      if (bias) this.bias = new Parameter(zeros(this.normalizedShape, placement(options)))
    }
  }

  override forward(x: Tensor): Tensor {
    const { weight, bias, eps } = this
    return layerNorm(x, this.normalizedShape, { weight, bias, eps })
  }

  protected override describe(): string {
    const { normalizedShape, eps, weight, bias } = this
    return listFields({
      normalizedShape,
      eps,
      elementwiseAffine: weight !== null,
      bias: bias !== null,
    })
  }
}

export interface RMSNormOptions extends LayerOptions {
  /** Added to the mean square; default: the machine epsilon of the type of computation. */
  eps?: number | null
  /** Whether factors are learned; default true. */
  elementwiseAffine?: boolean
}

/**
 * Scales each row, the last axes of x [.., normalizedShape], to a mean square of 1
 * (Zhang & Sennrich 2019).
 */
export class RMSNorm extends Module {
  readonly normalizedShape: readonly number[]
  /** Of shape normalizedShape, from 1. */
  readonly weight: Parameter | null = null
  readonly eps: number | null

  constructor(normalizedShape: number | readonly number[], options: RMSNormOptions = {}) {
    super()
    checkOptions('RMSNorm', options)
    const { eps = null, elementwiseAffine = true } = options
    this.normalizedShape = checkRow('RMSNorm', normalizedShape)
    this.eps = eps === null ? null : checkEps('RMSNorm', eps)
    if (elementwiseAffine) {
      this.weight = new Parameter(ones(this.normalizedShape, placement(options)))
    }
  }

  override forward(x: Tensor): Tensor {
    const { weight, eps } = this
    return rmsNorm(x, this.normalizedShape, { weight, eps })
  }

  protected override describe(): string {
    const { normalizedShape, eps, weight } = this
    return listFields({ normalizedShape, eps, elementwiseAffine: weight !== null })
  }
}
