import { applyAll } from '../core/apply.js'
import { isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe, ShapeError } from '../core/errors.js'
import { defineOp, deviceOf, jointly, type Op } from '../core/op.js'
import { numelOf, type Shape, sameShape, showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { byFormula } from './by-formula.js'
import { unary } from './elementwise.js'
import { sum, sumTo } from './reduce.js'
import { add, div, mul, sub } from './terms.js'
import { expand } from './views.js'

interface NormAttrs {
  /** How many of the last axes are normalised. */
  readonly axes: number
  readonly eps: number
}

/** The sizes of the last axes, over which a row extends. */
const rowShape = (x: Shape, axes: number): Shape => x.slice(x.length - axes)
/** One number for each row, with axes that broadcast against x. */
const perRow = (x: Shape, axes: number): Shape => [
  ...x.slice(0, x.length - axes),
  ...Array<number>(axes).fill(1),
]
/** Σ over a row, with its axes kept; Σ over the rows. */
const sumOfRow = (x: Tensor, axes: number): Tensor =>
  sum(x, x.shape.map((_, axis) => axis).slice(x.ndim - axes), { keepdim: true })
const sumOfRows = (x: Tensor, axes: number): Tensor => sumTo(x, rowShape(x.shape, axes))

/** Statistics are kept in float32, or in float64 for float64. */
const statisticsType = (x: Tensor) => (x.dtype === 'float64' ? 'float64' : 'float32')

/** -rstd³ / C drstd: what times x - mean is the gradient through rstd. */
function slopeOfRstd(drstd: Tensor, rstd: Tensor, length: number): Tensor {
  return div(mul(drstd, mul(unary('square', rstd), rstd)), -length)
}

const plus = (a: Tensor | null, b: Tensor) => (a === null ? b : add(a, b))

// mean and var (biased) over the last axes; rstd = 1 / √(var + eps); y = (x - mean) rstd w + b
// (Ba et al. 2016)
const layerNormOp: Op<NormAttrs> = defineOp<NormAttrs>()({
  name: 'layerNorm',
  autocast: 'float32 on cuda',
  inputs: ['x', 'weight', 'bias'],
  outputs: ['y', 'mean', 'rstd'],
  differentiable: 3,
  run: ([x, weight, bias], { axes, eps }) => {
    const y = Tensor.pending(x.device, x.dtype, x.shape)
    const mean = Tensor.pending(x.device, statisticsType(x), perRow(x.shape, axes))
    const rstd = Tensor.pending(x.device, statisticsType(x), mean.shape)
    const { calls } = x.device
    calls.begin('layerNorm').input(x).optional(weight).optional(bias)
    calls.output(y).output(mean).output(rstd).number(eps).run()
    return [y, mean, rstd]
  },
  // Through y by the fused kernel; ∂mean/∂x = 1 / C, ∂rstd/∂x = -rstd³ (x - mean) / C
  gradient: jointly(['x', 'weight', 'mean', 'rstd'], (context) => {
    const { dys, attrs, x, weight, mean, rstd } = context
    const [dy, dmean, drstd] = dys
    const length = numelOf(rowShape(x.shape, attrs.axes))
    const [fromY, dweight = null, dbias = null] = dy
      ? applyAll(layerNormBackwardOp, [dy, x, weight, mean, rstd], attrs)
      : []
    let dx: Tensor | null = fromY ?? null
    if (dmean) dx = plus(dx, expand(div(dmean, length), x.shape))
    if (drstd) dx = plus(dx, mul(slopeOfRstd(drstd, rstd, length), sub(x, mean)))
    return [dx, dweight, dbias]
  }),
  samples: (s) => [
    {
      inputs: [s.normal([3, 4]), s.normal([4]), s.normal([4])],
      attrs: { axes: 1, eps: 1e-5 },
    },
    { inputs: [s.normal([2, 2, 3]), null, null], attrs: { axes: 2, eps: 1e-3 } },
  ],
})

// g is the gradient of y, x̂ = (x - mean) rstd, h = g w: dweight = Σ g x̂ and dbias = Σ g over the
// rows; dx = rstd (h - (Σ h + x̂ Σ h x̂) / C), sums over a row
const layerNormBackwardOp: Op<NormAttrs> = defineOp<NormAttrs>()({
  name: 'layerNormBackward',
  inputs: ['g', 'x', 'weight', 'mean', 'rstd'],
  outputs: ['dx', 'dweight', 'dbias'],
  differentiable: 3,
  run: ([g, x, weight, mean, rstd], { axes }) => {
    const dx = Tensor.pending(x.device, x.dtype, x.shape)
    const dtype = weight?.dtype ?? mean.dtype
    const dweight = Tensor.pending(x.device, dtype, rowShape(x.shape, axes))
    const dbias = Tensor.pending(x.device, dtype, dweight.shape)
    const { calls } = x.device
    calls.begin('layerNormBackward').input(g).input(x).optional(weight).input(mean).input(rstd)
    calls.output(dx).output(dweight).output(dbias).run()
    return [dx, dweight, dbias]
  },
  gradient: byFormula(
    ['g', 'x', 'weight', 'mean', 'rstd'],
    ({ g, x, weight, mean, rstd }, { axes }) => {
      const xhat = mul(sub(x, mean), rstd)
      const h = weight === null ? g : mul(g, weight)
      const total = add(sumOfRow(h, axes), mul(xhat, sumOfRow(mul(h, xhat), axes)))
      const dx = mul(rstd, sub(h, div(total, numelOf(rowShape(x.shape, axes)))))
      return [dx, sumOfRows(mul(g, xhat), axes), sumOfRows(g, axes)]
    },
  ),
  samples: (s) => [
    {
      inputs: [
        s.normal([3, 4]),
        s.normal([3, 4]),
        s.normal([4]),
        s.normal([3, 1]),
        s.uniform([3, 1], 0.5, 2),
      ],
      attrs: { axes: 1, eps: 1e-5 },
    },
    {
      inputs: [
        s.normal([2, 2, 3]),
        s.normal([2, 2, 3]),
        null,
        s.normal([2, 1, 1]),
        s.uniform([2, 1, 1], 0.5, 2),
      ],
      attrs: { axes: 2, eps: 1e-5 },
    },
  ],
})

// rstd = 1 / √(Σ x² / C + eps) over the last axes; y = x rstd w (Zhang & Sennrich 2019)
const rmsNormOp: Op<NormAttrs> = defineOp<NormAttrs>()({
  name: 'rmsNorm',
  autocast: 'float32 on cuda',
  inputs: ['x', 'weight'],
  outputs: ['y', 'rstd'],
  differentiable: 2,
  run: ([x, weight], { axes, eps }) => {
    const y = Tensor.pending(x.device, x.dtype, x.shape)
    const rstd = Tensor.pending(x.device, statisticsType(x), perRow(x.shape, axes))
    const { calls } = x.device
    calls.begin('rmsNorm').input(x).optional(weight).output(y).output(rstd).number(eps).run()
    return [y, rstd]
  },
  // Through y by the fused kernel; ∂rstd/∂x = -rstd³ x / C
  gradient: jointly(['x', 'weight', 'rstd'], ({ dys, attrs, x, weight, rstd }) => {
    const [dy, drstd] = dys
    const [fromY, dweight = null] = dy
      ? applyAll(rmsNormBackwardOp, [dy, x, weight, rstd], attrs)
      : []
    let dx: Tensor | null = fromY ?? null
    const length = numelOf(rowShape(x.shape, attrs.axes))
    if (drstd) dx = plus(dx, mul(slopeOfRstd(drstd, rstd, length), x))
    return [dx, dweight]
  }),
  samples: (s) => [
    { inputs: [s.normal([3, 4]), s.normal([4])], attrs: { axes: 1, eps: 1e-5 } },
    { inputs: [s.normal([2, 2, 3]), null], attrs: { axes: 2, eps: 1e-3 } },
  ],
})

// As layerNormBackward without a mean: dx = rstd (h - x̂ Σ h x̂ / C), dweight = Σ g x̂
const rmsNormBackwardOp: Op<NormAttrs> = defineOp<NormAttrs>()({
  name: 'rmsNormBackward',
  inputs: ['g', 'x', 'weight', 'rstd'],
  outputs: ['dx', 'dweight'],
  differentiable: 2,
  run: ([g, x, weight, rstd], { axes }) => {
    const dx = Tensor.pending(x.device, x.dtype, x.shape)
    const dtype = weight?.dtype ?? rstd.dtype
    const dweight = Tensor.pending(x.device, dtype, rowShape(x.shape, axes))
    const { calls } = x.device
    calls.begin('rmsNormBackward').input(g).input(x).optional(weight).input(rstd)
    calls.output(dx).output(dweight).run()
    return [dx, dweight]
  },
  gradient: byFormula(['g', 'x', 'weight', 'rstd'], ({ g, x, weight, rstd }, { axes }) => {
    const xhat = mul(x, rstd)
    const h = weight === null ? g : mul(g, weight)
    const along = mul(xhat, sumOfRow(mul(h, xhat), axes))
    const dx = mul(rstd, sub(h, div(along, numelOf(rowShape(x.shape, axes)))))
    return [dx, sumOfRows(mul(g, xhat), axes)]
  }),
  samples: (s) => [
    {
      inputs: [s.normal([3, 4]), s.normal([3, 4]), s.normal([4]), s.uniform([3, 1], 0.5, 2)],
      attrs: { axes: 1, eps: 1e-5 },
    },
    {
      inputs: [s.normal([2, 2, 3]), s.normal([2, 2, 3]), null, s.uniform([2, 1, 1], 0.5, 2)],
      attrs: { axes: 2, eps: 1e-5 },
    },
  ],
})

export interface RmsNormOptions {
  /** Factors by element of a row, of shape `normalizedShape`; default 1. */
  weight?: Tensor | null
  /** Added to the mean square; default: the machine epsilon of the type of computation. */
  eps?: number | null
}

export interface LayerNormOptions {
  /** Factors by element of a row, of shape `normalizedShape`; default 1. */
  weight?: Tensor | null
  /** Added by element of a row, of shape `normalizedShape`; default 0. */
  bias?: Tensor | null
  /** Added to the variance; default 1e-5. */
  eps?: number
}

/** Checks the input and its last axes; returns how many of them a row has. */
function checkRows(op: string, x: Tensor, normalizedShape: number | readonly number[]): number {
  checkTensor(op, x)
  const row = typeof normalizedShape === 'number' ? [normalizedShape] : normalizedShape
  if (!Array.isArray(row) || row.length === 0) {
    throw new ArgumentError(
      `${op}: expected a size or a list of sizes to normalise over, got ${describe(row)}`,
    )
  }
  const last = x.shape.slice(Math.max(0, x.ndim - row.length))
  if (last.length !== row.length || last.some((size, i) => size !== row[i])) {
    const sizes = row.map((size) => describe(size)).join(', ')
    throw new ShapeError(`${op}: expected x of shape [.., ${sizes}], got ${showShape(x.shape)}`)
  }
  if (!isFloating(x.dtype)) {
    throw new DTypeError(`${op}: expected a floating dtype, got ${x.dtype}`)
  }
  return row.length
}

function checkCoefficients(op: string, name: string, v: Tensor | null, x: Tensor, axes: number) {
  if (v === null) return
  const row = rowShape(x.shape, axes)
  if (!sameShape(checkTensor(op, v).shape, row)) {
    throw new ShapeError(
      `${op}: expected ${name} of shape ${showShape(row)}, got ${showShape(v.shape)}`,
    )
  }
  deviceOf(op, [x, v])
  if (!isFloating(v.dtype)) {
    throw new DTypeError(`${op}: expected a floating ${name}, got ${v.dtype}`)
  }
}

/** Checks what is added under the root. */
export function checkEps(op: string, eps: number): number {
  if (typeof eps !== 'number' || !(eps >= 0)) {
    throw new ArgumentError(`${op}: expected eps of 0 or more, got ${describe(eps)}`)
  }
  return eps
}

/**
 * Normalises each row of x: (x - mean) / √(var + eps) weight + bias, with the mean and the (biased)
 * variance over the last axes, whose sizes are `normalizedShape` (Ba et al. 2016).
 * @example layerNorm(x, 384, { weight, bias })
 * @throws ShapeError where the last axes of x, or weight or bias, have other sizes
 */
export function layerNorm(
  x: Tensor,
  normalizedShape: number | readonly number[],
  options: LayerNormOptions = {},
): Tensor {
  checkOptions('layerNorm', options)
  const { weight = null, bias = null, eps = 1e-5 } = options
  const axes = checkRows('layerNorm', x, normalizedShape)
  checkCoefficients('layerNorm', 'weight', weight, x, axes)
  checkCoefficients('layerNorm', 'bias', bias, x, axes)
  const attrs = { axes, eps: checkEps('layerNorm', eps) }
  const [y, mean, rstd] = applyAll(layerNormOp, [x, weight, bias], attrs)
  // What backward needs of them is held by the tape.
  mean.dispose()
  rstd.dispose()
  return y
}

/**
 * Scales each row of x to a mean square of 1: x / √(Σ x² / C + eps) weight over the last axes,
 * whose sizes are `normalizedShape` (Zhang & Sennrich 2019).
 * @throws ShapeError where the last axes of x, or the weight, have other sizes
 */
export function rmsNorm(
  x: Tensor,
  normalizedShape: number | readonly number[],
  options: RmsNormOptions = {},
): Tensor {
  checkOptions('rmsNorm', options)
  const { weight = null, eps } = options
  const axes = checkRows('rmsNorm', x, normalizedShape)
  checkCoefficients('rmsNorm', 'weight', weight, x, axes)
  const epsilon = x.dtype === 'float64' ? 2 ** -52 : 2 ** -23
  const attrs = { axes, eps: checkEps('rmsNorm', eps ?? epsilon) }
  const [y, rstd] = applyAll(rmsNormOp, [x, weight], attrs)
  rstd.dispose()
  return y
}
