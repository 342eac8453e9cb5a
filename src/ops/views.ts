import { apply } from '../core/apply.js'
import { ArgumentError, describe, IndexError, ShapeError } from '../core/errors.js'
import { defineOp, from, type Op } from '../core/op.js'
import {
  checkAxis,
  checkShape,
  contiguousStrides,
  numelOf,
  type Shape,
  sameShape,
  showShape,
} from '../core/shape.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { clone, zerosFor } from './copy.js'

/**
 * Strides with which a view of `shape` reads the same elements in the same order, or null if only
 * a copy can. Axes of the new shape may split or join old axes that lie contiguously.
 */
function stridesOfView(from: Tensor, shape: Shape): Shape | null {
  if (numelOf(shape) === 0) return contiguousStrides(shape)
  const old = from.shape.map((size, i) => ({ size, stride: from.strides[i] }))
  const axes = old.filter(({ size }) => size !== 1)
  const strides = new Array<number>(shape.length)
  let at = shape.length - 1
  let i = axes.length - 1
  let inner = 1
  while (i >= 0) {
    // The longest run of old axes that is contiguous within itself.
    const base = axes[i].stride
    let run = axes[i].size
    while (i > 0 && axes[i - 1].stride === axes[i].stride * axes[i].size) run *= axes[--i].size
    i--
    let left = run
    inner = base
    while (at >= 0 && left > 1) {
      if (left % shape[at] !== 0) return null
      strides[at] = inner
      inner *= shape[at]
      left /= shape[at]
      at--
    }
    if (left > 1) return null
  }
  for (; at >= 0; at--) strides[at] = inner
  return strides
}

const viewOp = defineOp<{ shape: Shape; strides: Shape }>()({
  name: 'view',
  inputs: ['x'],
  isView: true,
  run: ([x], { shape, strides }) => x.alias(shape, strides, x.offset),
  gradient: { x: from([], ({ dy, inputs: [x] }) => reshape(dy, (x as Tensor).shape)) },
  samples: (s) => [
    { inputs: [s.normal([2, 3])], attrs: { shape: [3, 2], strides: [2, 1] } },
    { inputs: [s.normal([4])], attrs: { shape: [1, 2, 2], strides: [4, 2, 1] } },
  ],
})

/** Fills in the one size that may be -1. */
function inferShape(op: string, x: Tensor, shape: readonly number[]): Shape {
  checkTensor(op, x)
  const wildcard = Array.isArray(shape) ? shape.indexOf(-1) : -1
  let full: number[]
  if (wildcard >= 0) {
    const rest = checkShape(
      op,
      shape.map((size, i) => (i === wildcard ? 1 : size)),
    )
    const known = numelOf(rest)
    if (known === 0 || x.numel % known !== 0) {
      throw new ShapeError(
        `${op}: expected a shape of ${x.numel} elements, got ${showShape(shape)}`,
      )
    }
    full = rest.map((size, i) => (i === wildcard ? x.numel / known : size))
  } else {
    full = checkShape(op, shape)
  }
  if (numelOf(full) !== x.numel) {
    throw new ShapeError(
      `${op}: expected a shape of ${x.numel} elements, as ${showShape(x.shape)} has, got ` +
        showShape(full),
    )
  }
  return full
}

/** The same elements in another shape; one size may be -1. A view where one is possible. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const full = inferShape('reshape', x, shape)
  if (sameShape(full, x.shape)) return x
  const strides = stridesOfView(x, full)
  if (strides !== null) return apply(viewOp, [x], { shape: full, strides })
  const dense = clone(x)
  return apply(viewOp, [dense], { shape: full, strides: contiguousStrides(full) })
}

/** As `reshape`, but always a view. @throws ShapeError where only a copy could do it. */
export function view(x: Tensor, shape: readonly number[]): Tensor {
  const full = inferShape('view', x, shape)
  const strides = stridesOfView(x, full)
  if (strides === null) {
    throw new ShapeError(
      `view: expected a shape that fits strides ${showShape(x.strides)} of ` +
        `${showShape(x.shape)}, got ${showShape(full)}; use reshape`,
    )
  }
  return apply(viewOp, [x], { shape: full, strides })
}

/** Joins the axes from `start` to `end` (both included) into one. Default: all of them. */
export function flatten(x: Tensor, start = 0, end = -1): Tensor {
  checkTensor('flatten', x)
  if (x.ndim === 0) return reshape(x, [1])
  const a = checkAxis('flatten', start, x.ndim)
  const b = checkAxis('flatten', end, x.ndim)
  if (a > b) throw new ArgumentError(`flatten: expected start <= end, got ${start} and ${end}`)
  const joined = numelOf(x.shape.slice(a, b + 1))
  return reshape(x, [...x.shape.slice(0, a), joined, ...x.shape.slice(b + 1)])
}

/** Adds an axis of size 1 before `axis` (from -ndim - 1 to ndim). */
export function unsqueeze(x: Tensor, axis: number): Tensor {
  checkTensor('unsqueeze', x)
  const at = checkAxis('unsqueeze', axis, x.ndim + 1)
  return view(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)])
}

/** Drops `axis` if its size is 1; without an axis, all axes of size 1. */
export function squeeze(x: Tensor, axis?: number): Tensor {
  checkTensor('squeeze', x)
  const at = axis === undefined ? -1 : checkAxis('squeeze', axis, x.ndim)
  const shape = x.shape.filter((size, i) => size !== 1 || (axis !== undefined && i !== at))
  return view(x, shape)
}

const permuteOp = defineOp<{ order: readonly number[] }>()({
  name: 'permute',
  inputs: ['x'],
  isView: true,
  run: ([x], { order }) =>
    x.alias(
      order.map((axis) => x.shape[axis]),
      order.map((axis) => x.strides[axis]),
      x.offset,
    ),
  // the inverse permutation
  gradient: {
    x: from([], ({ dy, attrs: { order } }) =>
      permute(
        dy,
        order.map((_, axis) => order.indexOf(axis)),
      ),
    ),
  },
  samples: (s) => [{ inputs: [s.normal([2, 3, 4])], attrs: { order: [2, 0, 1] } }],
})

/** Axes in another order: axis i of the result is axis `order[i]`. */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  checkTensor('permute', x)
  if (!Array.isArray(order) || order.length !== x.ndim) {
    throw new ShapeError(`permute: expected ${x.ndim} axes, got ${describe(order)}`)
  }
  const axes = order.map((axis) => checkAxis('permute', axis, x.ndim))
  if (new Set(axes).size !== axes.length) {
    throw new ArgumentError(`permute: expected each axis once, got ${describe(order)}`)
  }
  return apply(permuteOp, [x], { order: axes })
}

/** Swaps two axes. */
export function transpose(x: Tensor, a: number, b: number): Tensor {
  checkTensor('transpose', x)
  const i = checkAxis('transpose', a, x.ndim)
  const j = checkAxis('transpose', b, x.ndim)
  const order = x.shape.map((_, axis) => (axis === i ? j : axis === j ? i : axis))
  return permute(x, order)
}

/** The transpose of a matrix (or of a vector: itself). */
export function t(x: Tensor): Tensor {
  checkTensor('t', x)
  if (x.ndim > 2) {
    throw new ShapeError(`t: expected at most 2 axes, got ${showShape(x.shape)}; use transpose`)
  }
  return x.ndim < 2 ? x : transpose(x, 0, 1)
}

const expandOp = defineOp<{ shape: Shape }>()({
  name: 'expand',
  inputs: ['x'],
  isView: true,
  run: ([x], { shape }) => {
    const lead = shape.length - x.ndim
    const strides = shape.map((size: number, i: number) => {
      const own = i - lead
      return own < 0 || (x.shape[own] === 1 && size !== 1) ? 0 : x.strides[own]
    })
    return x.alias(shape, strides, x.offset)
  },
  // summed over the expanded axes, which the engine does
  gradient: { x: from([], ({ dy }) => dy) },
  samples: (s) => [{ inputs: [s.normal([3, 1])], attrs: { shape: [2, 3, 4] } }],
})

/** Repeats axes of size 1 without copying; -1 keeps a size, new axes come in front. */
export function expand(x: Tensor, shape: readonly number[]): Tensor {
  checkTensor('expand', x)
  const lead = Array.isArray(shape) ? shape.length - x.ndim : -1
  if (lead < 0) {
    throw new ShapeError(`expand: expected at least ${x.ndim} sizes, got ${describe(shape)}`)
  }
  const full = checkShape(
    'expand',
    shape.map((size, i) => (size === -1 && i >= lead ? x.shape[i - lead] : size)),
  )
  x.shape.forEach((size, i) => {
    if (size !== full[lead + i] && size !== 1) {
      throw new ShapeError(
        `expand: expected a shape that ${showShape(x.shape)} broadcasts to, got ${showShape(full)}`,
      )
    }
  })
  return sameShape(full, x.shape) ? x : apply(expandOp, [x], { shape: full })
}

interface SliceAttrs {
  readonly axis: number
  readonly start: number
  readonly length: number
  readonly step: number
}

const sliceOp: Op<SliceAttrs> = defineOp<SliceAttrs>()({
  name: 'slice',
  inputs: ['x'],
  isView: true,
  run: ([x], { axis, start, length, step }) => sliceView(x, axis, start, length, step),
  gradient: {
    x: from([], ({ dy, attrs, inputs: [x] }) =>
      apply(padOp, [dy], { ...attrs, shape: (x as Tensor).shape }),
    ),
  },
  samples: (s) => [
    { inputs: [s.normal([5, 3])], attrs: { axis: 0, start: 1, length: 2, step: 2 } },
  ],
})

/** Every `step`th position of an axis from `start`, on the same memory, with no history. Internal. */
export function sliceView(
  x: Tensor,
  axis: number,
  start: number,
  length: number,
  step: number,
): Tensor {
  const shape = x.shape.map((size, i) => (i === axis ? length : size))
  const strides = x.strides.map((stride, i) => (i === axis ? stride * step : stride))
  return x.alias(shape, strides, x.offset + (length > 0 ? start * x.strides[axis] : 0))
}

/** Zeros of `shape` but for a slice: the gradient of `slice`. */
const padOp: Op<SliceAttrs & { shape: Shape }> = defineOp<SliceAttrs & { shape: Shape }>()({
  name: 'sliceBackward',
  inputs: ['part'],
  run: ([part], { shape, axis, start, length, step }) => {
    const y = zerosFor(part, shape)
    const target = sliceView(y, axis, start, length, step)
    part.device.calls.begin('copy').input(part).output(target).run()
    target.dispose()
    return y
  },
  gradient: { part: from([], ({ dy, attrs }) => apply(sliceOp, [dy], attrs)) },
  samples: (s) => [
    {
      inputs: [s.normal([2, 3])],
      attrs: { axis: 0, start: 1, length: 2, step: 2, shape: [5, 3] },
    },
  ],
})

function checkIndex(op: string, index: unknown): number {
  if (!Number.isInteger(index)) {
    throw new IndexError(`${op}: expected a whole number as index, got ${describe(index)}`)
  }
  return index as number
}

/**
 * Elements `start`, `start + step`, … before `end` along an axis, as a view. Negative positions
 * count from the end, and those beyond the axis are clipped, as in Python.
 */
export function slice(x: Tensor, axis: number, start = 0, end?: number | null, step = 1): Tensor {
  checkTensor('slice', x)
  const at = checkAxis('slice', axis, x.ndim)
  if (x.ndim === 0) throw new ShapeError('slice: expected a tensor with axes, got []')
  if (checkIndex('slice', step) < 1) {
    throw new ArgumentError(`slice: expected a step of 1 or more, got ${step}`)
  }
  const size = x.shape[at]
  const clip = (i: number) => Math.min(Math.max(i < 0 ? i + size : i, 0), size)
  const first = clip(checkIndex('slice', start))
  const last = clip(end === undefined || end === null ? size : checkIndex('slice', end))
  const length = Math.max(0, Math.ceil((last - first) / step))
  return apply(sliceOp, [x], { axis: at, start: first, length, step })
}

/** One position of an axis, which is dropped. */
export function select(x: Tensor, axis: number, index: number): Tensor {
  checkTensor('select', x)
  if (x.ndim === 0) throw new ShapeError('select: expected a tensor with axes, got []')
  const at = checkAxis('select', axis, x.ndim)
  const size = x.shape[at]
  const i = checkIndex('select', index)
  if (i < -size || i >= size) {
    throw new IndexError(`select: expected an index from ${-size} to ${size - 1}, got ${i}`)
  }
  const start = i < 0 ? i + size : i
  const part = apply(sliceOp, [x], { axis: at, start, length: 1, step: 1 })
  return view(part, [...x.shape.slice(0, at), ...x.shape.slice(at + 1)])
}

/** `length` positions of an axis from `start` on. */
export function narrow(x: Tensor, axis: number, start: number, length: number): Tensor {
  checkTensor('narrow', x)
  const at = checkAxis('narrow', axis, x.ndim)
  const size = x.shape[at]
  const first = checkIndex('narrow', start) < 0 ? start + size : start
  if (!Number.isInteger(length) || length < 0 || first < 0 || first + length > size) {
    throw new IndexError(
      `narrow: expected a range within ${size} positions, got ${start} and ${describe(length)} more`,
    )
  }
  return slice(x, at, first, first + length)
}
