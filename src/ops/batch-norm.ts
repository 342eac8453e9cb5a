import { applyAll } from '../core/apply.js'
import { isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe, ShapeError } from '../core/errors.js'
import { defineOp, deviceOf, jointly, type Op } from '../core/op.js'
import { numelOf, type Shape, showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { byFormula } from './by-formula.js'
import { cast } from './copy.js'
import { binary, unary } from './elementwise.js'
import { type Activation, checkActivation } from './fused-activation.js'
import { sum } from './reduce.js'
import { add, div, mul, sub } from './terms.js'
import { expand, reshape } from './views.js'

interface BatchNormAttrs {
  readonly momentum: number
  readonly eps: number
  readonly relu: boolean
}

/** All axes but the channels. */
const otherAxes = (x: Shape) => x.map((_, axis) => axis).filter((axis) => axis !== 1)
/** How many elements a channel has. */
const countOf = (x: Shape) => numelOf(x) / x[1]
/** [C] as [1, C, 1, …], which broadcasts against x. */
const alongChannels = (v: Tensor, x: Shape) => reshape(v, [1, x[1], ...x.slice(2).map(() => 1)])

/** Statistics are kept in float32, or in float64 for float64. */
const statisticsType = (x: Tensor) => (x.dtype === 'float64' ? 'float64' : 'float32')

// mean, var over all axes but 1 of x [N, C, ..]; rstd = 1 / √(var + eps); y = (x - mean) rstd w + b
// (Ioffe & Szegedy 2015), rectified if asked for. The running averages are updated in place, and the
// batch is counted.
const batchNormOp: Op<BatchNormAttrs> = defineOp<BatchNormAttrs>()({
  name: 'batchNorm',
  inputs: ['x', 'weight', 'bias', 'runningMean', 'runningVar', 'numBatchesTracked'],
  outputs: ['y', 'mean', 'rstd'],
  differentiable: 3,
  run: ([x, weight, bias, runningMean, runningVar, numBatches], { momentum, eps, relu }) => {
    const y = Tensor.pendingLike(x, x.dtype, x.shape)
    const mean = Tensor.pending(x.device, statisticsType(x), [x.shape[1]])
    const rstd = Tensor.pending(x.device, statisticsType(x), [x.shape[1]])
    const { calls } = x.device
    calls.begin('batchNorm').input(x).optional(weight).optional(bias)
    calls.optional(runningMean).optional(runningVar).optional(numBatches)
    calls.output(y).output(mean).output(rstd).number(momentum).number(eps).flag(relu).run()
    return [y, mean, rstd]
  },
  // Through y by the fused kernel; ∂mean/∂x = 1 / M, ∂rstd/∂x = -rstd³ (x - mean) / M
  gradient: jointly(['x', 'weight', 'bias', 'mean', 'rstd'], (context) => {
    const { dys, x, weight, bias, mean, rstd, attrs } = context
    const [dy, dmean, drstd] = dys
    const [fromY, dweight = null, dbias = null] = dy
      ? applyAll(batchNormBackwardOp, [dy, x, weight, bias, mean, rstd], { relu: attrs.relu })
      : []
    let dx: Tensor | null = fromY ?? null
    const along = (v: Tensor) => expand(alongChannels(div(v, countOf(x.shape)), x.shape), x.shape)
    if (dmean) dx = dx === null ? along(dmean) : add(dx, along(dmean))
    if (drstd) {
      const slope = unary('neg', along(mul(drstd, mul(unary('square', rstd), rstd))))
      const through = mul(slope, sub(x, alongChannels(mean, x.shape)))
      dx = dx === null ? through : add(dx, through)
    }
    return [dx, dweight, dbias, null, null, null]
  }),
  samples: (s) => [
    {
      inputs: [s.normal([3, 2, 2]), s.normal([2]), s.normal([2]), null, null, null],
      attrs: { momentum: 0.1, eps: 1e-5, relu: false },
    },
    {
      inputs: [s.normal([4, 2]), null, null, null, null, null],
      attrs: { momentum: 0.1, eps: 1e-5, relu: false },
    },
    {
      inputs: [s.distinct([4, 2, 3]), s.uniform([2], 0.5, 2), s.normal([2]), null, null, null],
      attrs: { momentum: 0.1, eps: 1e-5, relu: true },
    },
  ],
})

// x̂ = (x - mean) rstd; g counts as 0 where x̂ w + b was rectified;
// dweight = Σ g x̂; dbias = Σ g; dx = w rstd (g - (dbias + x̂ dweight) / M)
const batchNormBackwardOp: Op<{ readonly relu: boolean }> = defineOp<{ readonly relu: boolean }>()({
  name: 'batchNormBackward',
  inputs: ['g', 'x', 'weight', 'bias', 'mean', 'rstd'],
  outputs: ['dx', 'dweight', 'dbias'],
  differentiable: 3,
  run: ([g, x, weight, bias, mean, rstd], { relu }) => {
    const dx = Tensor.pendingLike(x, x.dtype, x.shape)
    const dtype = weight?.dtype ?? mean.dtype
    const dweight = Tensor.pending(x.device, dtype, mean.shape)
    const dbias = Tensor.pending(x.device, dtype, mean.shape)
    const { calls } = x.device
    calls.begin('batchNormBackward').input(g).input(x).optional(weight).optional(bias)
    calls.input(mean).input(rstd).output(dx).output(dweight).output(dbias).flag(relu).run()
    return [dx, dweight, dbias]
  },
  gradient: byFormula(['g', 'x', 'weight', 'bias', 'mean', 'rstd'], (values, { relu }) => {
    const { x, weight, bias, mean, rstd } = values
    const along = (v: Tensor) => alongChannels(v, x.shape)
    const xhat = mul(sub(x, along(mean)), along(rstd))
    let g = values.g
    if (relu) {
      const scaled = weight === null ? xhat : mul(xhat, along(weight))
      const y = bias === null ? scaled : add(scaled, along(bias))
      g = binary('reluBackward', g, y)
    }
    const dweight = sum(mul(g, xhat), otherAxes(x.shape))
    const dbias = sum(g, otherAxes(x.shape))
    const shared = div(add(along(dbias), mul(xhat, along(dweight))), countOf(x.shape))
    const scale = weight === null ? rstd : mul(weight, rstd)
    return [mul(sub(g, shared), along(scale)), dweight, dbias]
  }),
  samples: (s) => [
    {
      inputs: [
        s.normal([3, 2, 2]),
        s.normal([3, 2, 2]),
        s.normal([2]),
        null,
        s.normal([2]),
        s.uniform([2], 0.5, 2),
      ],
      attrs: { relu: false },
    },
    {
      inputs: [
        s.normal([3, 2]),
        s.normal([3, 2]),
        null,
        null,
        s.normal([2]),
        s.uniform([2], 0.5, 2),
      ],
      attrs: { relu: false },
    },
    {
      inputs: [
        s.normal([3, 2, 2]),
        s.distinct([3, 2, 2]),
        s.uniform([2], 0.5, 2),
        s.normal([2]),
        s.normal([2]),
        s.uniform([2], 0.5, 2),
      ],
      attrs: { relu: true },
    },
  ],
})

export interface BatchNormOptions {
  /** Factors by channel, [C]; default 1. */
  weight?: Tensor | null
  /** Added by channel, [C]; default 0. */
  bias?: Tensor | null
  /** Whether to normalise by the batch (and to update the running averages); default false. */
  training?: boolean
  /** Share of the batch in the new running averages; default 0.1. */
  momentum?: number
  /** Added to the variance; default 1e-5. */
  eps?: number
  /** int64 []: how many batches the running averages are of; training adds 1. Default null. */
  numBatchesTracked?: Tensor | null
  /** Applied to the result, in training in the same passes over memory; default null. */
  activation?: Activation | null
}

function checkChannels(x: Tensor, name: string, v: Tensor | null | undefined): void {
  if (!v) return
  if (checkTensor('batchNorm', v).ndim !== 1 || v.shape[0] !== x.shape[1]) {
    throw new ShapeError(
      `batchNorm: expected ${name} of shape [${x.shape[1]}], got ${showShape(v.shape)}`,
    )
  }
  deviceOf('batchNorm', [x, v])
  if (!isFloating(v.dtype)) {
    throw new DTypeError(`batchNorm: expected a floating ${name}, got ${v.dtype}`)
  }
}

function checkCount(x: Tensor, count: Tensor | null): void {
  if (count === null) return
  deviceOf('batchNorm', [x, checkTensor('batchNorm', count)])
  if (count.dtype !== 'int64' || count.ndim !== 0) {
    throw new ArgumentError(
      `batchNorm: expected numBatchesTracked of int64 and shape [], got ${count.dtype} ` +
        showShape(count.shape),
    )
  }
}

/**
 * Normalises x [N, C, ..] by channel: (x - mean) / √(var + eps) weight + bias. In training, by the
 * batch's mean and (biased) variance, and `runningMean`, `runningVar` [C] move towards them (with
 * the unbiased variance); otherwise by the running averages.
 * @throws ShapeError for fewer than two axes, or one value per channel in training
 */
export function batchNorm(
  x: Tensor,
  runningMean: Tensor | null,
  runningVar: Tensor | null,
  options: BatchNormOptions = {},
): Tensor {
  checkOptions('batchNorm', options)
  const { weight = null, bias = null, training = false, momentum = 0.1, eps = 1e-5 } = options
  const { numBatchesTracked = null } = options
  const relu = checkActivation('batchNorm', options.activation) === 'relu'
  if (checkTensor('batchNorm', x).ndim < 2) {
    throw new ShapeError(`batchNorm: expected x of shape [N, C, ..], got ${showShape(x.shape)}`)
  }
  if (!isFloating(x.dtype)) {
    throw new DTypeError(`batchNorm: expected a floating dtype, got ${x.dtype}`)
  }
  const vectors = { weight, bias, runningMean, runningVar }
  for (const [name, v] of Object.entries(vectors)) checkChannels(x, name, v)
  checkCount(x, numBatchesTracked)
  if (typeof eps !== 'number' || !(eps >= 0) || !Number.isFinite(momentum)) {
    throw new ArgumentError(
      `batchNorm: expected eps of 0 or more and a finite momentum, got ${describe(eps)} and ` +
        describe(momentum),
    )
  }
  if (training) {
    if (countOf(x.shape) === 1) {
      throw new ShapeError(
        `batchNorm: expected more than one value per channel in training, got ` +
          showShape(x.shape),
      )
    }
    const inputs = [x, weight, bias, runningMean, runningVar, numBatchesTracked]
    const [y, mean, rstd] = applyAll(batchNormOp, inputs, { momentum, eps, relu })
    // What backward needs of them is held by the tape.
    mean.dispose()
    rstd.dispose()
    return y
  }
  if (runningMean === null || runningVar === null) {
    throw new ArgumentError('batchNorm: expected running averages in evaluation, got null')
  }
  // y = x scale + shift, with scale = weight / √(var + eps) and shift = bias - mean scale
  const rstd = unary('rsqrt', add(runningVar, eps))
  const scale = weight === null ? rstd : mul(rstd, weight)
  const centre = mul(runningMean, scale)
  const shift = bias === null ? unary('neg', centre) : sub(bias, centre)
  const y = add(mul(x, alongChannels(scale, x.shape)), alongChannels(shift, x.shape))
  return cast(relu ? unary('relu', y) : y, x.dtype)
}
