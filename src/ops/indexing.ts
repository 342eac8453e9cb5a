import { apply } from '../core/apply.js'
import { promoteTypes } from '../core/dtype.js'
import { ArgumentError, DTypeError, describe, IndexError, ShapeError } from '../core/errors.js'
import { defineOp, deviceOf, from, jointly, type Op } from '../core/op.js'
import { checkAxis, type Shape, showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { cast, zerosFor } from './copy.js'
import { select, slice, unsqueeze } from './views.js'

interface AxisAttrs {
  readonly axis: number
}

interface ScatterAttrs extends AxisAttrs {
  readonly shape: Shape
}

/** Checks that `index` is an integer tensor on x's device; returns it as int64. */
export function checkIndexTensor(op: string, x: Tensor, index: Tensor): Tensor {
  checkTensor(op, index)
  deviceOf(op, [x, index])
  if (index.dtype !== 'int64' && index.dtype !== 'int32') {
    throw new DTypeError(`${op}: expected an int64 or int32 index, got ${index.dtype}`)
  }
  return cast(index, 'int64')
}

const gatherOp: Op<AxisAttrs> = defineOp<AxisAttrs>()({
  name: 'gather',
  inputs: ['x', 'index'],
  run: ([x, index], { axis }) => {
    const y = Tensor.pending(x.device, x.dtype, index.shape)
    x.device.calls.begin('gather').input(x).input(index).output(y).number(axis).run()
    return y
  },
  // added up where they came from
  gradient: {
    x: from(['index'], ({ dy, index, attrs: { axis }, inputs: [x] }) =>
      apply(scatterOp, [dy, index], { axis, shape: (x as Tensor).shape }),
    ),
    index: null,
  },
  samples: (s) => [{ inputs: [s.normal([3, 4]), s.integers([3, 2], 0, 4)], attrs: { axis: 1 } }],
})

/** Zeros of a shape, with `source` added at `index` along an axis: the gradient of `gather`. */
const scatterOp: Op<ScatterAttrs> = defineOp<ScatterAttrs>()({
  name: 'gatherBackward',
  inputs: ['source', 'index'],
  run: ([source, index], { axis, shape }) => {
    const y = zerosFor(source, shape)
    y.device.calls.begin('scatterAdd').input(index).input(source).input(y).number(axis).run()
    return y
  },
  gradient: {
    source: from(['index'], ({ dy, index, attrs: { axis } }) =>
      apply(gatherOp, [dy, index], { axis }),
    ),
    index: null,
  },
  samples: (s) => [
    {
      inputs: [s.normal([3, 2]), s.integers([3, 2], 0, 4)],
      attrs: { axis: 1, shape: [3, 4] },
    },
  ],
})

/** Picks along an axis: y[i][j] = x[i][index[i][j]] for axis 1. The index is no larger elsewhere. */
export function gather(x: Tensor, axis: number, index: Tensor): Tensor {
  checkTensor('gather', x)
  const at = checkAxis('gather', axis, x.ndim)
  const checked = checkIndexTensor('gather', x, index)
  if (index.ndim !== x.ndim || index.shape.some((size, i) => i !== at && size > x.shape[i])) {
    throw new ShapeError(
      `gather: expected an index of ${x.ndim} axes, no larger than ${showShape(x.shape)} but in ` +
        `axis ${at}, got ${showShape(index.shape)}`,
    )
  }
  const trimmed = index.shape.reduce(
    (part, size, i) => (i === at || size === part.shape[i] ? part : slice(part, i, 0, size)),
    x,
  )
  return apply(gatherOp, [trimmed, checked], { axis: at })
}

/** Adds `source` to a copy of `x` at `index` along an axis; indices that repeat add up. */
export function scatterAdd(x: Tensor, axis: number, index: Tensor, source: Tensor): Tensor {
  checkTensor('scatterAdd', x)
  const at = checkAxis('scatterAdd', axis, x.ndim)
  const checked = checkIndexTensor('scatterAdd', x, index)
  checkTensor('scatterAdd', source)
  if (showShape(index.shape) !== showShape(source.shape) || index.ndim !== x.ndim) {
    throw new ShapeError(
      `scatterAdd: expected an index and a source of one shape of ${x.ndim} axes, got ` +
        `${showShape(index.shape)} and ${showShape(source.shape)}`,
    )
  }
  if (index.shape.some((size, i) => i !== at && size !== x.shape[i])) {
    throw new ShapeError(
      `scatterAdd: expected an index that agrees with ${showShape(x.shape)} but in axis ${at}, ` +
        `got ${showShape(index.shape)}`,
    )
  }
  const added = apply(scatterOp, [cast(source, x.dtype), checked], { axis: at, shape: x.shape })
  return x.add(added)
}

const indexSelectOp: Op<AxisAttrs> = defineOp<AxisAttrs>()({
  name: 'indexSelect',
  inputs: ['x', 'index'],
  run: ([x, index], { axis }) => {
    const shape = x.shape.map((size: number, i: number) => (i === axis ? index.shape[0] : size))
    const y = Tensor.pending(x.device, x.dtype, shape)
    x.device.calls.begin('indexSelect').input(x).input(index).output(y).number(axis).run()
    return y
  },
  gradient: {
    x: from(['index'], ({ dy, index, attrs: { axis }, inputs: [x] }) =>
      apply(indexAddOp, [dy, index], { axis, shape: (x as Tensor).shape }),
    ),
    index: null,
  },
  samples: (s) => [{ inputs: [s.normal([3, 4]), s.integers([5], 0, 4)], attrs: { axis: 1 } }],
})

const indexAddOp: Op<ScatterAttrs> = defineOp<ScatterAttrs>()({
  name: 'indexSelectBackward',
  inputs: ['source', 'index'],
  run: ([source, index], { axis, shape }) => {
    const y = zerosFor(source, shape)
    y.device.calls.begin('indexAdd').input(index).input(source).input(y).number(axis).run()
    return y
  },
  gradient: {
    source: from(['index'], ({ dy, index, attrs: { axis } }) =>
      apply(indexSelectOp, [dy, index], { axis }),
    ),
    index: null,
  },
  samples: (s) => [
    { inputs: [s.normal([3, 5]), s.integers([5], 0, 4)], attrs: { axis: 1, shape: [3, 4] } },
  ],
})

/** The positions `index` (int64, one axis) of an axis, in that order. */
export function indexSelect(x: Tensor, axis: number, index: Tensor): Tensor {
  checkTensor('indexSelect', x)
  const at = checkAxis('indexSelect', axis, x.ndim)
  const checked = checkIndexTensor('indexSelect', x, index)
  if (x.ndim === 0 || index.ndim !== 1) {
    throw new ShapeError(
      `indexSelect: expected a tensor with axes and an index of one axis, got ` +
        `${showShape(x.shape)} and ${showShape(index.shape)}`,
    )
  }
  return apply(indexSelectOp, [x, checked], { axis: at })
}

// the parts of dy
const catOp: Op<AxisAttrs> = defineOp<AxisAttrs>()({
  name: 'cat',
  inputs: ['parts'],
  run: (parts: readonly Tensor[], { axis }) => {
    const [first] = parts
    const total = parts.reduce((n, part) => n + part.shape[axis], 0)
    const shape = first.shape.map((size, i) => (i === axis ? total : size))
    const y = Tensor.reserved(Tensor.pendingLike(first, first.dtype, shape))
    let start = 0
    for (const part of parts) {
      const target = y.alias(part.shape, y.strides, start * y.strides[axis])
      first.device.calls.begin('copy').input(part).output(target).run()
      target.dispose()
      start += part.shape[axis]
    }
    return y
  },
  gradient: jointly([], ({ dy, attrs: { axis }, inputs, needs }) => {
    let start = 0
    return inputs.map((info, i) => {
      const length = (info as Tensor).shape[axis]
      const part = needs[i] ? slice(dy, axis, start, start + length) : null
      start += length
      return part
    })
  }),
  autocast: 'widest',
  samples: (s) => [
    { inputs: [s.normal([2, 3]), s.normal([2, 1]), s.normal([2, 2])], attrs: { axis: 1 } },
  ],
})

function checkParts(op: string, parts: readonly Tensor[]): void {
  if (!Array.isArray(parts) || parts.length === 0 || !parts.every((p) => p instanceof Tensor)) {
    throw new ArgumentError(`${op}: expected a list of one or more tensors, got ${describe(parts)}`)
  }
}

/** Joins tensors along an axis; their other sizes agree, their dtypes are promoted. */
export function cat(parts: readonly Tensor[], axis = 0): Tensor {
  checkParts('cat', parts)
  const [first] = parts
  if (first.ndim === 0) throw new ShapeError('cat: expected tensors with axes, got []; use stack')
  const at = checkAxis('cat', axis, first.ndim)
  for (const part of parts) {
    const fits =
      part.ndim === first.ndim && part.shape.every((size, i) => i === at || size === first.shape[i])
    if (!fits) {
      throw new ShapeError(
        `cat: expected shapes that agree but in axis ${at}, got ` +
          parts.map((p) => showShape(p.shape)).join(', '),
      )
    }
  }
  deviceOf('cat', parts)
  const dtype = parts.map((part) => part.dtype).reduce(promoteTypes)
  return apply(
    catOp,
    parts.map((part) => cast(part, dtype)),
    { axis: at },
  )
}

/** Joins tensors of one shape along a new axis. */
export function stack(parts: readonly Tensor[], axis = 0): Tensor {
  checkParts('stack', parts)
  const { shape } = parts[0]
  if (parts.some((part) => showShape(part.shape) !== showShape(shape))) {
    throw new ShapeError(
      `stack: expected one shape, got ${parts.map((p) => showShape(p.shape)).join(', ')}`,
    )
  }
  const at = checkAxis('stack', axis, shape.length + 1)
  return cat(
    parts.map((part) => unsqueeze(part, at)),
    at,
  )
}

/** A range of an axis: `[start, end?, step?]`; null for an end that is left open. */
export type Range = readonly [start: number | null, end?: number | null, step?: number]

/**
 * What stands for an axis in `index`: a number picks a position and drops the axis, a range or
 * `':'` keeps part or all of it, `null` adds an axis, `'...'` skips axes, and an integer tensor of
 * one axis picks positions.
 */
export type IndexSpec = number | Range | Tensor | null | ':' | '...'

/** Indexing by ranges, as x[…] in PyTorch: `index(x, 0, [1, -1], '...', null)`. */
export function index(x: Tensor, ...specs: IndexSpec[]): Tensor {
  checkTensor('index', x)
  const used = specs.filter((spec) => spec !== null && spec !== '...').length
  if (used > x.ndim || specs.filter((spec) => spec === '...').length > 1) {
    throw new IndexError(
      `index: expected at most ${x.ndim} indices and one '...', got ${specs.length}`,
    )
  }
  let y = x
  let axis = 0
  for (const spec of specs) {
    if (spec === null) {
      y = unsqueeze(y, axis++)
    } else if (spec === '...') {
      axis += x.ndim - used
    } else if (spec === ':') {
      axis++
    } else if (typeof spec === 'number') {
      y = select(y, axis, spec)
    } else if (spec instanceof Tensor) {
      y = indexSelect(y, axis++, spec)
    } else if (Array.isArray(spec)) {
      const [start, end, step] = spec as Range
      y = slice(y, axis++, start ?? 0, end, step ?? 1)
    } else {
      throw new IndexError(
        `index: expected a number, range, ':', '...' or null, got ${describe(spec)}`,
      )
    }
  }
  return y
}
