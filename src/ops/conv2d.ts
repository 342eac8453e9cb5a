import type { Calls } from '../bindings/calls.js'
import { apply, applyAll } from '../core/apply.js'
import { autocastTo } from '../core/autocast.js'
import { type DType, isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe, ShapeError } from '../core/errors.js'
import { defineOp, deviceOf, from, jointly, type Op } from '../core/op.js'
import { type Shape, showShape } from '../core/shape.js'
import type { ValueInfo } from '../core/tape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { byFormula } from './by-formula.js'
import { binary } from './elementwise.js'
import { type Activation, checkActivation } from './fused-activation.js'
import { sum } from './reduce.js'
import { checkPair, fromBatch, type HW, type Pair, toBatch, windowCount } from './spatial.js'
import { slice } from './views.js'

interface ConvAttrs {
  readonly stride: HW
  readonly padding: HW
  readonly dilation: HW
  readonly groups: number
}

/** Of the backward kernels: `shape` is that of the result, which the others do not determine. */
interface ConvBackwardAttrs extends ConvAttrs {
  readonly shape: Shape
  /** Of the parameters' gradients, where it is wider than that of g. */
  readonly dtype?: DType | null
}

function attributes(calls: Calls, { stride, padding, dilation, groups }: ConvAttrs): Calls {
  for (const [h, w] of [stride, padding, dilation]) calls.number(h).number(w)
  return calls.number(groups)
}

function outputShape(x: Shape, w: Shape, { stride, padding, dilation }: ConvAttrs): number[] {
  const [p, q] = [0, 1].map((i) =>
    windowCount(x[2 + i], w[2 + i], stride[i], padding[i], dilation[i]),
  )
  return [x[0], w[0], p, q]
}

/**
 * Images that a convolution of `x` makes: channels-last where it is faster so, which the backend
 * says. What follows keeps their order of memory (`Tensor.pendingLike`).
 */
function pendingImages({ device, dtype, dtypeCode }: Tensor, shape: Shape): Tensor {
  return device.native.convolvesChannelsLast(dtypeCode)
    ? Tensor.pendingChannelsLast(device, dtype, shape)
    : Tensor.pending(device, dtype, shape)
}

function convolution([x, w, bias]: readonly Tensor[], attrs: ConvAttrs, relu: boolean): Tensor {
  const y = pendingImages(x, outputShape(x.shape, w.shape, attrs))
  const { calls } = x.device
  calls.begin('conv2d').input(x).input(w).optional(bias).output(y)
  attributes(calls, attrs).flag(relu).run()
  return y
}

interface GradientContext {
  readonly attrs: ConvAttrs
  readonly needs: readonly boolean[]
  readonly inputs: readonly (ValueInfo | null)[]
  readonly createGraph: boolean
  /** For the gradient of w. */
  readonly x: Tensor
  /** For that of x. */
  readonly w: Tensor
}

/** Of x, w and bias, from g, which counts as 0 where y is given and not positive. */
function gradients(
  { attrs, needs, inputs, createGraph, x, w }: GradientContext,
  g: Tensor,
  y: Tensor | null,
): (Tensor | null)[] {
  // The sums are formed in float32: parameters of it that autocast converted get them so.
  const isWide = g.device.type === 'cpu' && !createGraph
  const [ofX, ofW] = inputs.map((info, i) => ({
    ...attrs,
    shape: info?.shape ?? [],
    dtype: isWide && i > 0 ? info?.wideDType : null,
  }))
  const dx = needs[0] ? apply(backwardInputOp, [g, w], ofX) : null
  if (y === null && !(needs[1] && needs[2])) {
    const dw = needs[1] ? apply(backwardWeightOp, [g, x], ofW) : null
    return [dx, dw, needs[2] ? sum(g, [0, 2, 3]) : null]
  }
  const [dw, dbias] = applyAll(backwardParametersOp, [g, x, y], ofW)
  return [dx, needs[1] ? dw : null, needs[2] ? dbias : null]
}

// y[n, k, p, q] = Σ x[n, c, p stride + r dilation - padding, …] w[k, c, r, s] + bias[k]
// x [N, C, H, W], w [K, C / groups, R, S], bias [K], y [N, K, P, Q]
const conv2dOp: Op<ConvAttrs> = defineOp<ConvAttrs>()({
  name: 'conv2d',
  inputs: ['x', 'w', 'bias'],
  run: (inputs, attrs) => convolution(inputs, attrs, false),
  gradient: jointly(['x', 'w'], (context) => gradients(context, context.dy, null), {
    x: 'w',
    w: 'x',
  }),
  autocast: 'half',
  samples: (s) => [
    { inputs: [s.normal([2, 2, 5, 4]), s.normal([3, 2, 3, 2]), s.normal([3])], attrs: plain },
    { inputs: [s.normal([1, 4, 5, 7]), s.normal([4, 2, 2, 3]), null], attrs: general },
  ],
})

// dx [N, C, H, W] from g [N, K, P, Q] and w; linear in both, so each gradient is one of the others
const backwardInputOp: Op<ConvBackwardAttrs> = defineOp<ConvBackwardAttrs>()({
  name: 'conv2dBackwardInput',
  inputs: ['g', 'w'],
  run: ([g, w], attrs) => {
    const dx = pendingImages(g, attrs.shape)
    const { calls } = g.device
    calls.begin('conv2dBackwardInput').input(g).input(w).output(dx)
    attributes(calls, attrs).run()
    return dx
  },
  gradient: {
    g: from(['w'], ({ dy, w, attrs }) => apply(conv2dOp, [dy, w, null], attrs)),
    w: from(['g'], ({ dy, g, attrs, inputs: [, w] }) =>
      apply(backwardWeightOp, [g, dy], { ...attrs, shape: (w as Tensor).shape }),
    ),
  },
  samples: (s) => [
    {
      inputs: [s.normal([2, 3, 3, 3]), s.normal([3, 2, 3, 2])],
      attrs: { ...plain, shape: [2, 2, 5, 4] },
    },
    {
      inputs: [s.normal([1, 4, 3, 2]), s.normal([4, 2, 2, 3])],
      attrs: { ...general, shape: [1, 4, 5, 7] },
    },
  ],
})

// dw [K, C / groups, R, S] from g [N, K, P, Q] and x
const backwardWeightOp: Op<ConvBackwardAttrs> = defineOp<ConvBackwardAttrs>()({
  name: 'conv2dBackwardWeight',
  inputs: ['g', 'x'],
  run: ([g, x], attrs) => {
    const dw = Tensor.pending(g.device, attrs.dtype ?? g.dtype, attrs.shape)
    const { calls } = g.device
    calls.begin('conv2dBackwardWeight').input(g).input(x).output(dw)
    attributes(calls, attrs).run()
    return dw
  },
  gradient: {
    g: from(['x'], ({ dy, x, attrs }) => apply(conv2dOp, [x, dy, null], attrs)),
    x: from(['g'], ({ dy, g, attrs, inputs: [, x] }) =>
      apply(backwardInputOp, [g, dy], { ...attrs, shape: (x as Tensor).shape }),
    ),
  },
  samples: (s) => [
    {
      inputs: [s.normal([2, 3, 3, 3]), s.normal([2, 2, 5, 4])],
      attrs: { ...plain, shape: [3, 2, 3, 2] },
    },
    {
      inputs: [s.normal([1, 4, 3, 2]), s.normal([1, 4, 5, 7])],
      attrs: { ...general, shape: [4, 2, 2, 3] },
    },
  ],
})

// max(conv2d(x, w, bias), 0). Where x needs no gradient, as in a first layer, the rectified dy is
// never stored.
const conv2dReluOp: Op<ConvAttrs> = defineOp<ConvAttrs>()({
  name: 'conv2dRelu',
  inputs: ['x', 'w', 'bias'],
  run: (inputs, attrs) => convolution(inputs, attrs, true),
  gradient: jointly(['x', 'w', 'y'], (context) => {
    const { dy, y, needs } = context
    return needs[0]
      ? gradients(context, binary('reluBackward', dy, y), null)
      : gradients(context, dy, y)
  }),
  autocast: 'half',
  samples: (s) => [
    { inputs: [s.normal([2, 2, 5, 4]), s.normal([3, 2, 3, 2]), s.normal([3])], attrs: plain },
    { inputs: [s.normal([1, 4, 5, 7]), s.normal([4, 2, 2, 3]), null], attrs: general },
  ],
})

// dw and dbias [K] from g, which counts as 0 where y is given and not positive, and x
const backwardParametersOp: Op<ConvBackwardAttrs> = defineOp<ConvBackwardAttrs>()({
  name: 'conv2dBackwardParameters',
  inputs: ['g', 'x', 'y'],
  outputs: ['dw', 'dbias'],
  differentiable: 2,
  run: ([g, x, y], attrs) => {
    const dtype = attrs.dtype ?? g.dtype
    const dw = Tensor.pending(g.device, dtype, attrs.shape)
    const dbias = Tensor.pending(g.device, dtype, [attrs.shape[0]])
    const { calls } = g.device
    calls.begin('conv2dBackwardParameters').input(g).input(x).optional(y).output(dw).output(dbias)
    attributes(calls, attrs).run()
    return [dw, dbias]
  },
  gradient: byFormula(['g', 'x', 'y'], ({ g, x, y }, attrs) => {
    const rectified = y === null ? g : binary('reluBackward', g, y)
    return [apply(backwardWeightOp, [rectified, x], attrs), sum(rectified, [0, 2, 3])]
  }),
  samples: (s) => [
    {
      inputs: [s.normal([2, 3, 3, 3]), s.normal([2, 2, 5, 4]), s.awayFromZero([2, 3, 3, 3])],
      attrs: { ...plain, shape: [3, 2, 3, 2] },
    },
    {
      inputs: [s.normal([1, 4, 3, 2]), s.normal([1, 4, 5, 7]), null],
      attrs: { ...general, shape: [4, 2, 2, 3] },
    },
  ],
})

/** Attributes of the samples: [5, 4] * [3, 2] -> [3, 3] and [5, 7] * [2, 3] -> [3, 2]. */
const plain: ConvAttrs = { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
const general: ConvAttrs = { stride: [2, 2], padding: [1, 0], dilation: [2, 2], groups: 2 }

export interface Conv2dOptions {
  /** Step of the window; default 1. */
  stride?: Pair
  /** Zeros around the image; `'same'` keeps its size (stride 1), `'valid'` is 0. Default 0. */
  padding?: Pair | 'same' | 'valid'
  /** Distance between the window's elements; default 1. */
  dilation?: Pair
  /** Channels fall into so many groups, each with filters of its own; default 1. */
  groups?: number
  /** Applied to the result by the same kernel; default null. */
  activation?: Activation | null
}

/** Checked attributes; `trim` tells by how many positions an axis comes out too long in front. */
interface ConvPlan extends ConvAttrs {
  readonly trim: HW
}

function plan(options: Conv2dOptions, [r, s]: HW): ConvPlan {
  const { padding = 0, groups = 1 } = options
  const stride = checkPair('conv2d', 'stride', options.stride, 1, 1)
  const dilation = checkPair('conv2d', 'dilation', options.dilation, 1, 1)
  if (!Number.isSafeInteger(groups) || groups < 1) {
    throw new ArgumentError(`conv2d: expected groups of 1 or more, got ${describe(groups)}`)
  }
  if (padding === 'same') {
    if (stride[0] !== 1 || stride[1] !== 1) {
      throw new ArgumentError(
        `conv2d: expected stride 1 with padding 'same', got ${describe(options.stride)}`,
      )
    }
    // dilation (R - 1) zeros in all, the odd one at the end, as in PyTorch: padded evenly with one
    // more, the first position of the result is the one too many.
    const total = [dilation[0] * (r - 1), dilation[1] * (s - 1)]
    const half: HW = [Math.ceil(total[0] / 2), Math.ceil(total[1] / 2)]
    return { stride, dilation, groups, padding: half, trim: [total[0] % 2, total[1] % 2] }
  }
  const zeros = padding === 'valid' ? 0 : padding
  const checked = checkPair('conv2d', "padding ('same', 'valid' or)", zeros, 0)
  return { stride, dilation, groups, padding: checked, trim: [0, 0] }
}

function checkOperands(x: Tensor, w: Tensor, bias: Tensor | null, { groups }: ConvAttrs): void {
  const shapes = `x ${showShape(x.shape)} and w ${showShape(w.shape)}`
  if (x.shape[1] !== w.shape[1] * groups || w.shape[0] % groups !== 0) {
    throw new ShapeError(
      `conv2d: expected x [N, C, H, W] and w [K, C / groups, R, S] with ${groups} groups, got ` +
        shapes,
    )
  }
  if (bias && (checkTensor('conv2d', bias).ndim !== 1 || bias.shape[0] !== w.shape[0])) {
    throw new ShapeError(
      `conv2d: expected a bias of shape [${w.shape[0]}], got ${showShape(bias.shape)}`,
    )
  }
  deviceOf('conv2d', [x, w, bias])
  const dtypes = [x, w, ...(bias ? [bias] : [])].map((t) => t.dtype)
  if (!isFloating(x.dtype) || dtypes.some((dtype) => dtype !== x.dtype)) {
    throw new DTypeError(
      `conv2d: expected operands of one floating dtype, got ${dtypes.join(', ')}`,
    )
  }
}

/**
 * Cross-correlation of images with filters: x [N, C, H, W] (or [C, H, W]), w [K, C / groups, R, S],
 * bias [K]; the result is [N, K, P, Q] with P = ⌊(H + 2 padding - dilation (R - 1) - 1) / stride⌋ + 1.
 * On the CPU, 3 × 3 windows of stride 1 take Winograd's form in float32 where that is faster: its
 * greatest error is within 4 times that of the direct sum, and a NaN or an infinity may reach all
 * results of the tiles of 4 × 4 pixels that see it.
 * @throws ShapeError where shapes do not fit, or the window is larger than the padded image;
 * DTypeError unless all have one floating dtype
 */
export function conv2d(
  x: Tensor,
  w: Tensor,
  bias?: Tensor | null,
  options: Conv2dOptions = {},
): Tensor {
  checkOptions('conv2d', options)
  const given = [toBatch('conv2d', x), w, bias ?? null] as const
  const [images, filters, offset] = autocastTo(conv2dOp.autocast, given)
  if (checkTensor('conv2d', w).ndim !== 4 || w.shape[2] < 1 || w.shape[3] < 1) {
    throw new ShapeError(
      `conv2d: expected w of shape [K, C / groups, R, S], got ${showShape(w.shape)}`,
    )
  }
  const { trim, ...attrs } = plan(options, [w.shape[2], w.shape[3]])
  checkOperands(images, filters, offset, attrs)
  const [, , p, q] = outputShape(images.shape, w.shape, attrs)
  if (p < 1 || q < 1) {
    throw new ShapeError(
      `conv2d: expected an image that the filter fits into, got x ${showShape(x.shape)} and w ` +
        `${showShape(w.shape)} with padding ${showShape(attrs.padding)} and dilation ` +
        showShape(attrs.dilation),
    )
  }
  const isRectified = checkActivation('conv2d', options.activation) === 'relu'
  let y = apply(isRectified ? conv2dReluOp : conv2dOp, [images, filters, offset], attrs)
  trim.forEach((excess, i) => {
    if (excess > 0) y = slice(y, 2 + i, excess)
  })
  return fromBatch(y, x)
}
