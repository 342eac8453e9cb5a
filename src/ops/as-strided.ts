import { apply } from '../core/apply.js'
import { type Geometry, geometryOf } from '../core/engine-ops.js'
import { ShapeError } from '../core/errors.js'
import { defineOp, from, type Op } from '../core/op.js'
import { type Shape, showShape } from '../core/shape.js'
import { Tensor } from '../core/tensor.js'
import { clone, zerosFor } from './copy.js'
import { permute } from './views.js'

/**
 * A view by sizes, strides and offset from the first element of a row-major tensor: what the tape
 * uses to rebuild views.
 */
export const asStridedOp = defineOp<Geometry>()({
  name: 'asStrided',
  inputs: ['x'],
  isView: true,
  run: ([x], { shape, strides, offset }) => x.alias(shape, strides, x.offset + offset),
  gradient: {
    x: from([], ({ dy, attrs, inputs: [x] }) =>
      apply(scatterOp, [dy], { view: attrs, shape: (x as Tensor).shape }),
    ),
  },
  samples: (s) => [
    // overlapping elements
    { inputs: [s.normal([6])], attrs: { shape: [3, 2], strides: [1, 2], offset: 1 } },
  ],
})

/**
 * Zeros of a row-major shape to which the elements of a view of it are added: the gradient of
 * `asStrided`. Elements that the view repeats add up.
 */
export const scatterOp = defineOp<{ view: Geometry; shape: Shape }>()({
  name: 'asStridedBackward',
  inputs: ['part'],
  run: ([part], { view: { shape: inner, strides, offset }, shape }) => {
    const y = zerosFor(part, shape)
    const target = y.alias(inner, strides, offset)
    part.device.calls.begin('accumulateOverlapping').input(part).input(target).run()
    target.dispose()
    return y
  },
  gradient: { part: from([], ({ dy, attrs }) => asStridedDense(dy, attrs.view)) },
  samples: (s) => [
    {
      inputs: [s.normal([3, 2])],
      attrs: { view: { shape: [3, 2], strides: [1, 2], offset: 1 }, shape: [6] },
    },
  ],
})

/** A view by geometry of `x`, or of a row-major copy of it. */
function asStridedDense(x: Tensor, view: Geometry): Tensor {
  const dense = x.isContiguous ? x : clone(x)
  return apply(asStridedOp, [dense], view)
}

/** `whole` (row-major) with the elements of a view of it replaced by `part`. */
const putOp: Op<Geometry> = defineOp<Geometry>()({
  name: 'asStridedPut',
  inputs: ['whole', 'part'],
  run: ([whole, part], { shape, strides, offset }) => {
    const { calls } = whole.device
    const y = Tensor.pending(whole.device, whole.dtype, whole.shape)
    calls.begin('copy').input(whole).output(y).run()
    const target = y.alias(shape, strides, offset)
    calls.begin('copy').input(part).output(target).run()
    target.dispose()
    return y
  },
  // what was replaced passes nothing; the part takes its elements
  gradient: {
    whole: from([], ({ dy, attrs, inputs: [, part] }) =>
      apply(putOp, [dy, zerosFor(dy, (part as Tensor).shape)], attrs),
    ),
    part: from([], ({ dy, attrs }) => asStridedDense(dy, attrs)),
  },
  samples: (s) => [
    {
      inputs: [s.normal([6]), s.normal([2, 2])],
      attrs: { shape: [2, 2], strides: [1, 2], offset: 1 },
    },
  ],
})

/**
 * Axes of a dense base sorted by stride, with which it is row-major: views are then addressed
 * from its first element. @throws ShapeError for a base with gaps.
 */
function rowMajorOrder(base: Geometry): number[] {
  const order = base.shape.map((_, axis) => axis)
  order.sort((a, b) => base.strides[b] - base.strides[a] || base.shape[a] - base.shape[b])
  let expected = 1
  for (const axis of [...order].reverse()) {
    if (base.shape[axis] !== 1 && base.strides[axis] !== expected) {
      throw new ShapeError(
        'in-place: expected a view of a tensor without gaps, got one of strides ' +
          `${showShape(base.strides)} for shape ${showShape(base.shape)}; clone it first`,
      )
    }
    expected *= base.shape[axis]
  }
  return order
}

const inside = (base: Geometry, view: Geometry): Geometry => ({
  ...view,
  offset: view.offset - base.offset,
})

/** A view of a base by the view's geometry in their common storage, for the tape. */
export function viewOfBase(base: Tensor, view: Geometry): Tensor {
  const order = rowMajorOrder(base)
  const rows = order.every((axis, i) => axis === i) ? base : permute(base, order)
  return apply(asStridedOp, [rows], inside(geometryOf(base), view))
}

/** The part of a gradient of the base that belongs to the view. */
export function takeSlice(g: Tensor, base: Geometry, view: Geometry): Tensor {
  const order = rowMajorOrder(base)
  return asStridedDense(clone(permute(g, order)), inside(base, view))
}

/** A gradient of the base with the view's part replaced. */
export function putSlice(g: Tensor, part: Tensor, base: Geometry, view: Geometry): Tensor {
  const order = rowMajorOrder(base)
  const replaced = apply(putOp, [permute(g, order), part], inside(base, view))
  return permute(
    replaced,
    order.map((_, axis) => order.indexOf(axis)),
  )
}
