import { autocastTo } from '../core/autocast.js'
import { isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe, ShapeError } from '../core/errors.js'
import { deviceOf } from '../core/op.js'
import { numelOf, type Shape, sameShape, showShape } from '../core/shape.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { cast } from './copy.js'
import { binary, unary } from './elementwise.js'
import { gather, indexSelect } from './indexing.js'
import { mean, sum } from './reduce.js'
import { permute, reshape, unsqueeze } from './views.js'
import { where } from './where.js'

/** What becomes of the losses of a batch; default 'mean'. */
export type Reduction = 'mean' | 'sum' | 'none'

export interface LossOptions {
  /** Default 'mean'. */
  reduction?: Reduction
}

export interface ClassLossOptions extends LossOptions {
  /** Factors by class, [C]; the mean is then a weighted one. Default: 1 each. */
  weight?: Tensor | null
  /** Targets of this value count for nothing; default -100. */
  ignoreIndex?: number
}

/** @internal */
export const IGNORE_INDEX = -100

/** @internal */
export function checkReduction(op: string, reduction: unknown = 'mean'): Reduction {
  if (reduction === 'mean' || reduction === 'sum' || reduction === 'none') return reduction
  throw new ArgumentError(
    `${op}: expected reduction 'mean', 'sum' or 'none', got ${describe(reduction)}`,
  )
}

function reduced(op: string, loss: Tensor, reduction?: Reduction): Tensor {
  const kind = checkReduction(op, reduction)
  return kind === 'mean' ? mean(loss) : kind === 'sum' ? sum(loss) : loss
}

function checkSame(op: string, input: Tensor, target: Tensor, options: LossOptions): void {
  checkOptions(op, options)
  deviceOf(op, [checkTensor(op, input), checkTensor(op, target)])
  if (!sameShape(input.shape, target.shape)) {
    throw new ShapeError(
      `${op}: expected input and target of one shape, got ${showShape(input.shape)} and ` +
        showShape(target.shape),
    )
  }
  if (!isFloating(input.dtype)) {
    throw new DTypeError(`${op}: expected a floating input, got ${input.dtype}`)
  }
}

/** Losses are computed in float32 under autocast. */
const inFloat32 = (...operands: Tensor[]) => autocastTo('float32', operands)

/** (input - target)², of one shape: broadcasting here is nearly always a mistake. */
export function mseLoss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  checkSame('mseLoss', input, target, options)
  const [x, y] = inFloat32(input, target)
  return reduced('mseLoss', unary('square', binary('sub', x, y)), options.reduction)
}

/** |input - target|, of one shape. */
export function l1Loss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  checkSame('l1Loss', input, target, options)
  const [x, y] = inFloat32(input, target)
  return reduced('l1Loss', unary('abs', binary('sub', x, y)), options.reduction)
}

export interface BCEWithLogitsOptions extends LossOptions {
  /** Factors of the losses; broadcasts. */
  weight?: Tensor | null
  /** Factors of the loss where the target is 1, as for rare classes; broadcasts. */
  posWeight?: Tensor | null
}

/**
 * Binary cross-entropy of sigmoid(input) with targets in [0, 1], of one shape, without overflow:
 * (1 - t) x + (1 + (posWeight - 1) t) log(1 + e⁻ˣ)
 */
export function binaryCrossEntropyWithLogits(
  input: Tensor,
  target: Tensor,
  options: BCEWithLogitsOptions = {},
): Tensor {
  const op = 'binaryCrossEntropyWithLogits'
  checkSame(op, input, target, options)
  const { weight, posWeight, reduction } = options
  const [x, t] = inFloat32(input, target)
  const rest = binary('mul', binary('sub', 1, t), x)
  let positive = unary('softplus', unary('neg', x))
  if (posWeight) {
    const factor = binary('add', binary('mul', binary('sub', checkTensor(op, posWeight), 1), t), 1)
    positive = binary('mul', factor, positive)
  }
  let loss = binary('add', rest, positive)
  if (weight) loss = binary('mul', loss, checkTensor(op, weight))
  if (!sameShape(loss.shape, input.shape)) {
    throw new ShapeError(
      `${op}: expected weights that broadcast to ${showShape(input.shape)}, got a loss of shape ` +
        showShape(loss.shape),
    )
  }
  return reduced(op, loss, reduction)
}

/** Scores by class as rows, and what belongs to each row. @internal */
export interface ClassRows {
  /** [rows, C] */
  readonly scores: Tensor
  /** int64 [rows] */
  readonly target: Tensor
  /** Shape of a loss for each target. */
  readonly shape: Shape
}

/** Where the classes are in scores [N, C, ..] or [C]. @internal */
export const classAxis = (scores: Tensor) => (scores.ndim === 1 ? 0 : 1)

/**
 * Scores [N, C, d1, ..] (or [C]) with integer targets [N, d1, ..] (or []) as rows of C.
 * @internal
 */
export function classRows(op: string, scores: Tensor, target: Tensor): ClassRows {
  deviceOf(op, [checkTensor(op, scores), checkTensor(op, target)])
  if (isFloating(target.dtype) || target.dtype === 'bool') {
    throw new DTypeError(`${op}: expected int64 classes as targets, got ${target.dtype}`)
  }
  const { shape } = scores
  const axis = classAxis(scores)
  const lead = shape.filter((_, i) => i !== axis)
  if (scores.ndim === 0 || !sameShape(target.shape, lead)) {
    throw new ShapeError(
      `${op}: expected scores [N, C, ..] and targets [N, ..], got ${showShape(shape)} and ` +
        showShape(target.shape),
    )
  }
  const rows = numelOf(lead)
  const last = scores.ndim <= 2 ? scores : permute(scores, [0, ...[...shape.keys()].slice(2), 1])
  return {
    scores: reshape(last, [rows, shape[axis]]),
    target: reshape(cast(target, 'int64'), [rows]),
    shape: lead,
  }
}

/** Checks factors by class. @internal */
export function checkClassWeight(op: string, scores: Tensor, weight: Tensor): void {
  deviceOf(op, [checkTensor(op, scores), checkTensor(op, weight)])
  const classes = scores.shape[classAxis(scores)]
  if (weight.ndim !== 1 || weight.shape[0] !== classes || !isFloating(weight.dtype)) {
    throw new ShapeError(
      `${op}: expected floating weights of shape [${classes}], got ${weight.dtype} ` +
        showShape(weight.shape),
    )
  }
}

/** @internal */
export function checkIgnoreIndex(op: string, ignoreIndex: unknown): void {
  if (Number.isSafeInteger(ignoreIndex)) return
  throw new ArgumentError(
    `${op}: expected a whole number as ignoreIndex, got ${describe(ignoreIndex)}`,
  )
}

/** The weight of each row: 0 where its target is ignored, else that of its class, or 1. @internal */
export function rowWeights(target: Tensor, options: ClassLossOptions): Tensor {
  const counted = binary('ne', target, options.ignoreIndex ?? IGNORE_INDEX)
  if (!options.weight) return counted
  return where(counted, indexSelect(options.weight, 0, where(counted, target, 0)), 0)
}

/**
 * Reduces losses [rows] that are 0 for ignored targets; the mean is over the targets that are
 * not ignored, weighted by class as PyTorch does. @internal
 */
export function reduceRows(
  op: string,
  losses: Tensor,
  { target, shape }: ClassRows,
  options: ClassLossOptions,
): Tensor {
  const kind = checkReduction(op, options.reduction)
  const weights = options.weight || kind === 'mean' ? rowWeights(target, options) : null
  const weighted = options.weight && weights ? binary('mul', losses, weights) : losses
  if (kind === 'none') return reshape(weighted, shape)
  return kind === 'sum' ? sum(weighted) : binary('div', sum(weighted), sum(weights as Tensor))
}

/**
 * -logProbabilities at the target classes: logProbabilities [N, C, d1, ..] (or [C]), int64 targets
 * [N, d1, ..] (or []). The mean is over the targets that are not ignored.
 * @throws IndexError for a class outside [0, C); on CUDA, the next call that waits throws it
 */
export function nllLoss(
  logProbabilities: Tensor,
  target: Tensor,
  options: ClassLossOptions = {},
): Tensor {
  checkOptions('nllLoss', options)
  const { ignoreIndex = IGNORE_INDEX } = options
  checkIgnoreIndex('nllLoss', ignoreIndex)
  const [scores] = inFloat32(checkTensor('nllLoss', logProbabilities))
  const rows = classRows('nllLoss', scores, target)
  if (options.weight) checkClassWeight('nllLoss', logProbabilities, options.weight)
  const counted = binary('ne', rows.target, ignoreIndex)
  const picked = gather(rows.scores, 1, unsqueeze(where(counted, rows.target, 0), 1))
  const losses = where(counted, unary('neg', reshape(picked, rows.target.shape)), 0)
  return reduceRows('nllLoss', losses, rows, options)
}
