import { applyAll } from '../core/apply.js'
import { ArgumentError, describe, ShapeError } from '../core/errors.js'
import { checkHeap } from '../core/heap.js'
import { defineOp, jointly, type Op } from '../core/op.js'
import { checkAxis, checkShape } from '../core/shape.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { zerosFor } from './copy.js'
import { cat } from './indexing.js'
import { sliceView, view } from './views.js'

// Of one part: a tensor, and perhaps another view of it.
const PART_BYTES = 1024

interface SplitAttrs {
  readonly axis: number
  readonly sizes: readonly number[]
}

// One op for all parts: their gradients are joined once, where slices would each fill a tensor with
// zeros.
const splitOp: Op<SplitAttrs> = defineOp<SplitAttrs>()({
  name: 'split',
  inputs: ['x'],
  isView: true,
  differentiable: Number.POSITIVE_INFINITY,
  run: ([x], { axis, sizes }) => {
    let start = 0
    return sizes.map((length) => {
      const part = sliceView(x, axis, start, length, 1)
      start += length
      return part
    })
  },
  gradient: jointly([], ({ dys, inputs: [x], attrs: { axis, sizes } }) => {
    const like = dys.find((dy) => dy) as Tensor
    const shapeOf = (length: number) =>
      (x as Tensor).shape.map((size, i) => (i === axis ? length : size))
    const parts = sizes.map((length, i) => dys[i] ?? zerosFor(like, shapeOf(length)))
    return [cat(parts, axis)]
  }),
  samples: (s) => [
    { inputs: [s.normal([2, 5])], attrs: { axis: 1, sizes: [2, 0, 3] } },
    { inputs: [s.normal([3])], attrs: { axis: 0, sizes: [1, 1, 1] } },
  ],
})

/** Parts of `size` positions along an axis (the last may be shorter), or of the sizes given. */
export function split(x: Tensor, size: number | readonly number[], axis = 0): Tensor[] {
  checkTensor('split', x)
  const at = checkAxis('split', axis, x.ndim)
  if (x.ndim === 0) throw new ShapeError('split: expected a tensor with axes, got []')
  const total = x.shape[at]
  let sizes: readonly number[]
  if (typeof size === 'number') {
    if (!Number.isInteger(size) || size < 1) {
      throw new ArgumentError(`split: expected a size of 1 or more, got ${size}`)
    }
    const count = Math.max(1, Math.ceil(total / size))
    checkHeap('split', count, PART_BYTES)
    sizes = Array.from({ length: count }, (_, i) => Math.min(size, total - i * size))
  } else {
    sizes = checkShape('split', size)
  }
  if (sizes.reduce((a, b) => a + b, 0) !== total) {
    throw new ShapeError(`split: expected sizes that add up to ${total}, got ${describe(size)}`)
  }
  return sizes.length === 0 ? [] : applyAll(splitOp, [x], { axis: at, sizes })
}

/** At most `count` parts of equal size along an axis. */
export function chunk(x: Tensor, count: number, axis = 0): Tensor[] {
  checkTensor('chunk', x)
  if (!Number.isInteger(count) || count < 1) {
    throw new ArgumentError(`chunk: expected a count of 1 or more, got ${describe(count)}`)
  }
  const at = checkAxis('chunk', axis, x.ndim)
  return split(x, Math.max(1, Math.ceil(x.shape[at] / count)), at)
}

/** The positions of an axis one by one, without it. */
export function unbind(x: Tensor, axis = 0): Tensor[] {
  checkTensor('unbind', x)
  const at = checkAxis('unbind', axis, x.ndim)
  if (x.ndim === 0) throw new ShapeError('unbind: expected a tensor with axes, got []')
  const shape = x.shape.filter((_, i) => i !== at)
  return x.shape[at] === 0 ? [] : split(x, 1, at).map((part) => view(part, shape))
}
