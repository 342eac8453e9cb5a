import { apply, applyAll } from '../core/apply.js'
import { autocastTo } from '../core/autocast.js'
import { isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe, ShapeError } from '../core/errors.js'
import { defineOp, deviceOf, from, jointly, type Op } from '../core/op.js'
import { sameShape, showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { onesLike } from './creation.js'
import { binary, unary } from './elementwise.js'
import {
  type ClassLossOptions,
  checkClassWeight,
  checkIgnoreIndex,
  checkReduction,
  classAxis,
  classRows,
  IGNORE_INDEX,
  nllLoss,
  reduceRows,
  rowWeights,
} from './losses.js'
import { sum } from './reduce.js'
import { logSoftmax } from './softmax.js'
import { mul, neg } from './terms.js'
import { expand, reshape, unsqueeze } from './views.js'
import { where } from './where.js'

interface CrossEntropyAttrs {
  readonly ignoreIndex: number
}

// loss[n] = lse[n] - logits[n, target[n]], 0 where the target is ignored;
// lse[n] = log Σ exp(logits[n, :]); logits [N, C], target int64 [N]
const crossEntropyOp: Op<CrossEntropyAttrs> = defineOp<CrossEntropyAttrs>()({
  name: 'crossEntropy',
  inputs: ['logits', 'target'],
  outputs: ['loss', 'lse'],
  differentiable: 2,
  run: ([logits, target], { ignoreIndex }) => {
    const loss = Tensor.pending(logits.device, logits.dtype, target.shape)
    const dtype = logits.dtype === 'float64' ? 'float64' : 'float32'
    const lse = Tensor.pending(logits.device, dtype, target.shape)
    const { calls } = logits.device
    calls.begin('crossEntropy').input(logits).input(target).output(loss).output(lse)
    calls.number(ignoreIndex).run()
    return [loss, lse]
  },
  // Through the loss by the fused kernel; ∂lse/∂logits = softmax
  gradient: jointly(['logits', 'target', 'lse'], ({ dys, attrs, logits, target, lse }) => {
    const [dy, dlse] = dys
    const fromLoss = dy ? apply(crossEntropyBackwardOp, [dy, logits, lse, target], attrs) : null
    if (!dlse) return [fromLoss, null]
    const fromLse = mul(unsqueeze(dlse, 1), softmaxOf(logits, lse))
    return [fromLoss === null ? fromLse : binary('add', fromLoss, fromLse), null]
  }),
  autocast: 'float32',
  samples: (s) => [
    { inputs: [s.normal([4, 3]), s.integers([4], 0, 3)], attrs: { ignoreIndex: -100 } },
    { inputs: [s.normal([5, 3]), s.integers([5], 0, 3)], attrs: { ignoreIndex: 1 } },
  ],
})

// The mean of crossEntropy's losses over the targets that are not ignored, and rate = 1 / their
// number: dlogits = dy rate (p - [c = target]).
const crossEntropyMeanOp: Op<CrossEntropyAttrs> = defineOp<CrossEntropyAttrs>()({
  name: 'crossEntropyMean',
  inputs: ['logits', 'target'],
  outputs: ['loss', 'lse', 'rate'],
  run: ([logits, target], { ignoreIndex }) => {
    const { device, dtype } = logits
    const wide = dtype === 'float64' ? 'float64' : 'float32'
    const loss = Tensor.pending(device, dtype, [])
    const lse = Tensor.pending(device, wide, target.shape)
    const rate = Tensor.pending(device, wide, [])
    const { calls } = device
    calls.begin('crossEntropyMean').input(logits).input(target)
    calls.output(loss).output(lse).output(rate).number(ignoreIndex).run()
    return [loss, lse, rate]
  },
  // Where this is differentiated again, lse has to be: it comes from the op that gives it so.
  gradient: jointly(['logits', 'target', 'lse', 'rate'], (context) => {
    const { dy, attrs, logits, target, lse, rate, createGraph } = context
    const g = expand(mul(dy, rate), target.shape)
    const rows = createGraph ? applyAll(crossEntropyOp, [logits, target], attrs)[1] : lse
    return [apply(crossEntropyBackwardOp, [g, logits, rows, target], attrs), null]
  }),
  autocast: 'float32',
  samples: (s) => [
    { inputs: [s.normal([4, 3]), s.integers([4], 0, 3)], attrs: { ignoreIndex: -100 } },
    { inputs: [s.normal([5, 3]), s.integers([5], 0, 3)], attrs: { ignoreIndex: 1 } },
  ],
})

const softmaxOf = (logits: Tensor, lse: Tensor) =>
  unary('exp', binary('sub', logits, unsqueeze(lse, 1)))

// d[n, c] = g[n] (p[n, c] - [c = target[n]]), 0 for ignored rows, with p = exp(logits - lse)
const crossEntropyBackwardOp: Op<CrossEntropyAttrs> = defineOp<CrossEntropyAttrs>()({
  name: 'crossEntropyBackward',
  inputs: ['g', 'logits', 'lse', 'target'],
  run: ([g, logits, lse, target], { ignoreIndex }) => {
    const d = Tensor.pending(logits.device, logits.dtype, logits.shape)
    const { calls } = logits.device
    calls.begin('crossEntropyBackward').input(g).input(logits).input(lse).input(target).output(d)
    calls.number(ignoreIndex).run()
    return d
  },
  gradient: {
    // Σ dy (p - [c = target])
    g: from(['logits', 'lse', 'target'], ({ dy, logits, lse, target, attrs }) => {
      const ones = onesLike(lse, { dtype: logits.dtype })
      return sum(mul(dy, apply(crossEntropyBackwardOp, [ones, logits, lse, target], attrs)), 1)
    }),
    // dy g p
    logits: from(['g', 'logits', 'lse', 'target'], (context) => scaled(context)),
    // -Σ dy g p
    lse: from(['g', 'logits', 'lse', 'target'], (context) => neg(sum(scaled(context), 1))),
    target: null,
  },
  samples: (s) => [
    {
      inputs: [s.normal([4]), s.normal([4, 3]), s.normal([4]), s.integers([4], 0, 3)],
      attrs: { ignoreIndex: 1 },
    },
  ],
})

/** dy g p [N, C], 0 for ignored rows. */
function scaled(context: {
  readonly dy: Tensor
  readonly g: Tensor
  readonly logits: Tensor
  readonly lse: Tensor
  readonly target: Tensor
  readonly attrs: CrossEntropyAttrs
}): Tensor {
  const { dy, g, logits, lse, target, attrs } = context
  const counted = where(binary('ne', target, attrs.ignoreIndex), g, 0)
  return mul(mul(dy, softmaxOf(logits, lse)), unsqueeze(counted, 1))
}

export interface CrossEntropyOptions extends ClassLossOptions {
  /** How much of each target is spread evenly over the classes, in [0, 1]; default 0. */
  labelSmoothing?: number
}

/**
 * -log softmax(logits) at the targets: logits [N, C, d1, ..] (or [C]) with int64 classes
 * [N, d1, ..] (or []), or with probabilities of the logits' shape. The mean is over the targets
 * that are not ignored, weighted by class if `weight` is given, as in PyTorch.
 * @throws IndexError for a class outside [0, C); on CUDA, the next call that waits throws it
 */
export function crossEntropy(
  scores: Tensor,
  target: Tensor,
  options: CrossEntropyOptions = {},
): Tensor {
  checkOptions('crossEntropy', options)
  const [logits] = autocastTo(crossEntropyOp.autocast, [scores])
  const { weight, ignoreIndex = IGNORE_INDEX, labelSmoothing = 0 } = options
  if (typeof labelSmoothing !== 'number' || !(labelSmoothing >= 0 && labelSmoothing <= 1)) {
    throw new ArgumentError(
      `crossEntropy: expected labelSmoothing in [0, 1], got ${describe(labelSmoothing)}`,
    )
  }
  checkIgnoreIndex('crossEntropy', ignoreIndex)
  if (!isFloating(checkTensor('crossEntropy', logits).dtype)) {
    throw new DTypeError(`crossEntropy: expected floating logits, got ${logits.dtype}`)
  }
  if (weight) checkClassWeight('crossEntropy', logits, weight)
  if (isFloating(checkTensor('crossEntropy', target).dtype))
    return withProbabilities(logits, target, options)
  if (labelSmoothing > 0) return smoothed(logits, target, options)
  const rows = classRows('crossEntropy', logits, target)
  if (checkReduction('crossEntropy', options.reduction) === 'mean' && !weight) {
    const [loss, lse, rate] = applyAll(crossEntropyMeanOp, [rows.scores, rows.target], {
      ignoreIndex,
    })
    // What backward needs of them is held by the tape.
    lse.dispose()
    rate.dispose()
    return loss
  }
  const [loss, lse] = applyAll(crossEntropyOp, [rows.scores, rows.target], { ignoreIndex })
  lse.dispose()
  return reduceRows('crossEntropy', loss, rows, options)
}

// (1 - ε) nll + ε / C Σ_c -w_c log p_c; each is reduced over the targets that count
// (Szegedy et al. 2016)
function smoothed(logits: Tensor, target: Tensor, options: CrossEntropyOptions): Tensor {
  const { weight, labelSmoothing = 0, ignoreIndex = IGNORE_INDEX } = options
  const reduction = checkReduction('crossEntropy', options.reduction)
  const rows = classRows('crossEntropy', logits, target)
  const logP = logSoftmax(rows.scores, 1)
  const nll = nllLoss(logP, rows.target, options)
  const spread = neg(sum(weight ? mul(logP, weight) : logP, 1))
  let even = where(binary('ne', rows.target, ignoreIndex), spread, 0)
  if (reduction !== 'none') even = sum(even)
  if (reduction === 'mean') even = binary('div', even, sum(rowWeights(rows.target, options)))
  const classes = rows.scores.shape[1]
  const loss = binary('add', mul(nll, 1 - labelSmoothing), mul(even, labelSmoothing / classes))
  return reduction === 'none' ? reshape(loss, rows.shape) : loss
}

/** Factors by class so that they broadcast against scores [N, C, ..] or [C]. */
function alongClasses(weight: Tensor, scores: Tensor): Tensor {
  return reshape(weight, [weight.shape[0], ...scores.shape.slice(2).map(() => 1)])
}

// Σ_c -w_c q_c log p_c; the mean is over the targets, whatever the weights
function withProbabilities(logits: Tensor, target: Tensor, options: CrossEntropyOptions): Tensor {
  const { weight, labelSmoothing = 0 } = options
  const reduction = checkReduction('crossEntropy', options.reduction)
  deviceOf('crossEntropy', [logits, target])
  if (!sameShape(logits.shape, target.shape) || logits.ndim === 0) {
    throw new ShapeError(
      `crossEntropy: expected probabilities of the logits' shape ${showShape(logits.shape)}, got ` +
        `${showShape(target.shape)} (classes are int64)`,
    )
  }
  const axis = classAxis(logits)
  const classes = logits.shape[axis]
  const q =
    labelSmoothing > 0
      ? binary('add', mul(target, 1 - labelSmoothing), labelSmoothing / classes)
      : target
  const terms = mul(logSoftmax(logits, axis), q)
  const losses = neg(sum(weight ? mul(terms, alongClasses(weight, logits)) : terms, axis))
  if (reduction === 'none') return losses
  return reduction === 'sum' ? sum(losses) : binary('div', sum(losses), losses.numel)
}
