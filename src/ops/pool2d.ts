import type { Calls } from '../bindings/calls.js'
import { apply, applyAll } from '../core/apply.js'
import { isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, ShapeError } from '../core/errors.js'
import { defineOp, from, type Op } from '../core/op.js'
import { showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { cast } from './copy.js'
import { arange } from './creation.js'
import { binary } from './elementwise.js'
import type { ValuesAndIndices } from './reduce.js'
import { checkPair, fromBatch, type HW, type Pair, toBatch, windowCount } from './spatial.js'
import { add, mul, sub } from './terms.js'
import { reshape } from './views.js'
import { where } from './where.js'

interface PoolAttrs {
  readonly kernel: HW
  readonly stride: HW
  readonly padding: HW
  readonly dilation: HW
  /** Height and width of y. */
  readonly size: HW
}

interface PoolBackwardAttrs extends PoolAttrs {
  /** Height and width of x. */
  readonly image: HW
}

const images = (x: Tensor, [h, w]: HW) => [x.shape[0], x.shape[1], h, w]

function attributes(calls: Calls, { kernel, stride, padding, dilation }: PoolAttrs): Calls {
  for (const [h, w] of [kernel, stride, padding, dilation]) calls.number(h).number(w)
  return calls
}

// What a tap's dtype counts to.
const BYTE_TAPS = 256

// y[n, c, p, q] = max over the window of x [N, C, H, W]; tap: the number r kernelW + s of the
// window's element that it is (the first of equals; NaN wins)
const maxPool2dOp: Op<PoolAttrs> = defineOp<PoolAttrs>()({
  name: 'maxPool2d',
  inputs: ['x'],
  outputs: ['y', 'tap'],
  run: ([x], attrs) => {
    const shape = images(x, attrs.size)
    const [height, width] = attrs.kernel
    const y = Tensor.pendingLike(x, x.dtype, shape)
    const tap = Tensor.pendingLike(x, height * width <= BYTE_TAPS ? 'uint8' : 'int32', shape)
    const { calls } = x.device
    calls.begin('maxPool2d').input(x).output(y).output(tap)
    attributes(calls, attrs).run()
    return [y, tap]
  },
  // dy, added up where the maxima were found
  gradient: {
    x: from(['tap'], ({ dy, tap, attrs, inputs: [x] }) => {
      const [, , h, w] = (x as Tensor).shape
      return apply(backwardOp, [dy, tap], { ...attrs, image: [h, w] })
    }),
  },
  samples: (s) => [
    {
      inputs: [s.distinct([2, 2, 4, 5])],
      attrs: { kernel: [2, 3], stride: [2, 1], padding: [1, 1], dilation: [1, 1], size: [3, 5] },
    },
    {
      inputs: [s.distinct([1, 2, 5, 5])],
      attrs: { kernel: [2, 2], stride: [1, 2], padding: [0, 0], dilation: [2, 2], size: [3, 2] },
    },
    {
      inputs: [s.distinct([1, 2, 4, 5])],
      attrs: { kernel: [2, 2], stride: [2, 2], padding: [0, 0], dilation: [1, 1], size: [2, 2] },
    },
  ],
})

// Windows whose every tap may be the maximum, some of them outside the image.
const anyTap: PoolBackwardAttrs = {
  kernel: [2, 3],
  stride: [2, 1],
  padding: [1, 1],
  dilation: [1, 1],
  size: [2, 4],
  image: [3, 4],
}

// dx [N, C, H, W] = Σ g at the taps; linear in g
const backwardOp: Op<PoolBackwardAttrs> = defineOp<PoolBackwardAttrs>()({
  name: 'maxPool2dBackward',
  inputs: ['g', 'tap'],
  run: ([g, tap], attrs) => {
    const dx = Tensor.pendingLike(tap, g.dtype, images(g, attrs.image))
    const { calls } = g.device
    calls.begin('maxPool2dBackward').input(g).input(tap).output(dx)
    attributes(calls, attrs).run()
    return dx
  },
  gradient: {
    g: from(['tap'], ({ dy, tap, attrs }) => apply(gatherOp, [dy, tap], attrs)),
    tap: null,
  },
  samples: (s) => [
    {
      inputs: [s.normal([2, 1, 2, 4]), cast(s.integers([2, 1, 2, 4], 0, 6), 'uint8')],
      attrs: anyTap,
    },
  ],
})

// y [N, C, P, Q] = x [N, C, H, W] at the taps: the transpose of the above
const gatherOp: Op<PoolBackwardAttrs> = defineOp<PoolBackwardAttrs>()({
  name: 'maxPool2dGather',
  inputs: ['x', 'tap'],
  run: ([x, tap], attrs) => {
    const y = Tensor.pendingLike(tap, x.dtype, tap.shape)
    const { calls } = x.device
    calls.begin('maxPool2dGather').input(x).input(tap).output(y)
    attributes(calls, attrs).run()
    return y
  },
  gradient: {
    x: from(['tap'], ({ dy, tap, attrs }) => apply(backwardOp, [dy, tap], attrs)),
    tap: null,
  },
  samples: (s) => [
    {
      inputs: [s.normal([2, 1, 3, 4]), cast(s.integers([2, 1, 2, 4], 0, 6), 'uint8')],
      attrs: anyTap,
    },
  ],
})

// h W + w of taps [N, C, P, Q], int64; -1 outside the image [.., H, W]
function pixels(tap: Tensor, { kernel, stride, padding, dilation }: PoolAttrs, [h, w]: HW): Tensor {
  const numbers = cast(tap, 'int64')
  // Where along an axis the taps of each window are, and whether that is inside.
  const along = (axis: 0 | 1, taps: Tensor) => {
    const count = tap.shape[2 + axis]
    const windows = arange(0, count, 1, { dtype: 'int64', device: tap.device })
    const starts = sub(mul(windows, stride[axis]), padding[axis])
    const at = add(mul(taps, dilation[axis]), axis === 0 ? reshape(starts, [count, 1]) : starts)
    const length = axis === 0 ? h : w
    const inside = binary('logicalAnd', binary('ge', at, 0), binary('lt', at, length))
    return { at, inside }
  }
  const rows = along(0, binary('floorDivide', numbers, kernel[1]))
  const columns = along(1, binary('remainder', numbers, kernel[1]))
  const inside = binary('logicalAnd', rows.inside, columns.inside)
  return where(inside, add(mul(rows.at, w), columns.at), -1)
}

export interface PoolOptions {
  /** Step of the window; default: its size. */
  stride?: Pair
  /** Positions around the image that never win, at most half the window; default 0. */
  padding?: Pair
  /** Whether a window that only starts inside the padded image counts too; default false. */
  ceilMode?: boolean
}

export interface MaxPool2dOptions extends PoolOptions {
  /** Distance between the window's elements; default 1. */
  dilation?: Pair
  /** Returns the positions h W + w (int64) of the maxima too; default false. */
  returnIndices?: boolean
}

/** Checked geometry of a window over x [N, C, H, W]. @internal */
export function poolGeometry(
  op: string,
  x: Tensor,
  window: Pair,
  options: PoolOptions & { dilation?: Pair },
): PoolAttrs {
  checkOptions(op, options)
  const kernel = checkPair(op, 'kernel', window, 1)
  const stride = checkPair(op, 'stride', options.stride, 1, kernel)
  const padding = checkPair(op, 'padding', options.padding, 0, 0)
  const dilation = checkPair(op, 'dilation', options.dilation, 1, 1)
  const size = [0, 1].map((i) => {
    if (2 * padding[i] > kernel[i]) {
      throw new ArgumentError(
        `${op}: expected padding of at most half the window, got ${showShape(padding)} for ` +
          showShape(kernel),
      )
    }
    const length = x.shape[2 + i]
    const floor = windowCount(length, kernel[i], stride[i], padding[i], dilation[i])
    if (!options.ceilMode) return floor
    const reach = length + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1
    const ceil = Math.ceil(reach / stride[i]) + 1
    // The last window must start inside the image or the padding before it.
    return (ceil - 1) * stride[i] >= length + padding[i] ? ceil - 1 : ceil
  })
  if (size[0] < 1 || size[1] < 1) {
    throw new ShapeError(
      `${op}: expected an image that the window fits into, got x ${showShape(x.shape)} and ` +
        `window ${showShape(kernel)} with dilation ${showShape(dilation)}`,
    )
  }
  return { kernel, stride, padding, dilation, size: [size[0], size[1]] }
}

/** A floating batch of images. @internal */
export function checkImages(op: string, x: Tensor): Tensor {
  if (!isFloating(checkTensor(op, x).dtype)) {
    throw new DTypeError(`${op}: expected a floating dtype, got ${x.dtype}`)
  }
  return toBatch(op, x)
}

export function maxPool2d(
  x: Tensor,
  kernel: Pair,
  options: MaxPool2dOptions & { returnIndices: true },
): ValuesAndIndices
export function maxPool2d(
  x: Tensor,
  kernel: Pair,
  options?: MaxPool2dOptions & { returnIndices?: false },
): Tensor
/**
 * The largest element of each window: x [N, C, H, W] (or [C, H, W]) gives [N, C, P, Q] with
 * P = ⌊(H + 2 padding - dilation (kernel - 1) - 1) / stride⌋ + 1. NaN wins.
 * @throws ShapeError where the window is larger than the padded image
 */
export function maxPool2d(
  x: Tensor,
  kernel: Pair,
  options: MaxPool2dOptions = {},
): Tensor | ValuesAndIndices {
  const input = checkImages('maxPool2d', x)
  const attrs = poolGeometry('maxPool2d', input, kernel, options)
  const [y, tap] = applyAll(maxPool2dOp, [input], attrs)
  const values = fromBatch(y, x)
  const image: HW = [input.shape[2], input.shape[3]]
  const indices = options.returnIndices ? fromBatch(pixels(tap, attrs, image), x) : null
  // What backward needs of it is held by the tape.
  tap.dispose()
  return indices === null ? values : { values, indices }
}
