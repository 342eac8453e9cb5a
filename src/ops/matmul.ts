import { apply } from '../core/apply.js'
import { promoteTypes } from '../core/dtype.js'
import { DTypeError, ShapeError } from '../core/errors.js'
import { defineOp, deviceOf, from, type Op } from '../core/op.js'
import { broadcastShapes, numelOf, showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { cast } from './copy.js'
import { expand, reshape, transpose, unsqueeze } from './views.js'

const swap = (x: Tensor) => transpose(x, -2, -1)

// y [.., M, N] = a [.., M, K] b [.., K, N] with equal batch axes
const matmulOp: Op<void> = defineOp()({
  name: 'matmul',
  inputs: ['a', 'b'],
  run: ([a, b]) => {
    const y = Tensor.pending(a.device, a.dtype, [...a.shape.slice(0, -1), b.shape[b.ndim - 1]])
    a.device.calls.begin('matmul').input(a).input(b).number(0).output(y).run()
    return y
  },
  // dy bᵀ; aᵀ dy
  gradient: {
    a: from(['b'], ({ dy, b }) => product(dy, swap(b))),
    b: from(['a'], ({ dy, a }) => product(swap(a), dy)),
  },
  autocast: 'half',
  samples: (s) => [
    { inputs: [s.normal([2, 3]), s.normal([3, 4])], attrs: undefined },
    { inputs: [s.normal([2, 3, 2]), s.normal([2, 2, 3])], attrs: undefined },
  ],
})

const product = (a: Tensor, b: Tensor) => apply(matmulOp, [a, b], undefined)

// y [N, M] = x [N, K] wᵀ + bias, with w [M, K] as nn.Linear keeps it; the bias is added where the
// product is finished
const linearOp: Op<void> = defineOp()({
  name: 'linear',
  inputs: ['x', 'w', 'bias'],
  run: ([x, w, bias]) => {
    const y = Tensor.pending(x.device, x.dtype, [x.shape[0], w.shape[0]])
    const wT = {
      handle: w.handle,
      dtypeCode: w.dtypeCode,
      shape: [w.shape[1], w.shape[0]],
      strides: [w.strides[1], w.strides[0]],
      offset: w.offset,
    }
    x.device.calls.begin('matmul').input(x).input(wT).optional(bias).output(y).run()
    return y
  },
  // dy w; dyᵀ x; Σ dy, summed by the engine
  gradient: {
    x: from(['w'], ({ dy, w }) => product(dy, w)),
    w: from(['x'], ({ dy, x }) => product(swap(dy), x)),
    bias: from([], ({ dy }) => dy),
  },
  autocast: 'half',
  samples: (s) => [
    { inputs: [s.normal([3, 4]), s.normal([2, 4]), s.normal([2])], attrs: undefined },
    { inputs: [s.normal([3, 4]), s.normal([2, 4]), null], attrs: undefined },
  ],
})

/** Both operands in their common dtype. */
function meet(op: string, a: Tensor, b: Tensor): [Tensor, Tensor] {
  checkTensor(op, a)
  checkTensor(op, b)
  deviceOf(op, [a, b])
  const dtype = promoteTypes(a.dtype, b.dtype)
  if (dtype === 'bool') throw new DTypeError(`${op}: expected numbers, got bool`)
  return [cast(a, dtype), cast(b, dtype)]
}

function mismatch(op: string, a: Tensor, b: Tensor): ShapeError {
  return new ShapeError(
    `${op}: expected inner sizes to agree, got ${showShape(a.shape)} x ${showShape(b.shape)}`,
  )
}

/**
 * The matrix product, as torch.matmul: vector by vector is the inner product, a vector is a row at
 * the left and a column at the right, and axes before the last two are batch axes, which broadcast.
 */
export function matmul(x: Tensor, other: Tensor): Tensor {
  const [left, right] = meet('matmul', x, other)
  if (left.ndim === 0 || right.ndim === 0) {
    throw new ShapeError(
      `matmul: expected tensors with axes, got ${showShape(x.shape)} x ${showShape(other.shape)}`,
    )
  }
  const a = left.ndim === 1 ? unsqueeze(left, 0) : left
  const b = right.ndim === 1 ? unsqueeze(right, 1) : right
  if (a.shape[a.ndim - 1] !== b.shape[b.ndim - 2]) throw mismatch('matmul', x, other)
  const y = batched(a, b)
  // The axes that stand for vectors go again.
  const shape = y.shape.filter(
    (_, axis) =>
      !(left.ndim === 1 && axis === y.ndim - 2) && !(right.ndim === 1 && axis === y.ndim - 1),
  )
  return shape.length === y.ndim ? y : reshape(y, shape)
}

function batched(a: Tensor, b: Tensor): Tensor {
  if (a.ndim === 2 && b.ndim === 2) return product(a, b)
  const [m, k] = a.shape.slice(-2)
  const n = b.shape[b.ndim - 1]
  if (b.ndim === 2) {
    // One large product instead of many small ones.
    const lead = a.shape.slice(0, -2)
    return reshape(product(reshape(a, [numelOf(lead) * m, k]), b), [...lead, m, n])
  }
  const lead = broadcastShapes('matmul', a.shape.slice(0, -2), b.shape.slice(0, -2))
  return product(expand(a, [...lead, m, k]), expand(b, [...lead, k, n]))
}

/** x wᵀ + bias: x [.., K], w [M, K], bias [M]; the result is [.., M]. */
export function linear(x: Tensor, w: Tensor, bias?: Tensor | null): Tensor {
  const [input, weight] = meet('linear', x, w)
  if (w.ndim !== 2 || x.ndim === 0 || x.shape[x.ndim - 1] !== w.shape[1]) {
    throw new ShapeError(
      `linear: expected x [.., K] and w [M, K], got ${showShape(x.shape)} and ${showShape(w.shape)}`,
    )
  }
  if (bias) checkTensor('linear', bias)
  if (bias && (bias.ndim !== 1 || bias.shape[0] !== w.shape[0])) {
    throw new ShapeError(
      `linear: expected a bias of shape [${w.shape[0]}], got ${showShape(bias.shape)}`,
    )
  }
  if (bias) deviceOf('linear', [x, bias])
  const lead = input.shape.slice(0, -1)
  const rows = input.ndim === 2 ? input : reshape(input, [numelOf(lead), w.shape[1]])
  const added = bias ? cast(bias, input.dtype) : null
  const y = apply(linearOp, [rows, weight, added], undefined)
  return input.ndim === 2 ? y : reshape(y, [...lead, w.shape[0]])
}
