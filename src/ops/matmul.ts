import type { ViewLike } from '../bindings/calls.js'
import { apply } from '../core/apply.js'
import { autocastTo } from '../core/autocast.js'
import { promoteTypes } from '../core/dtype.js'
import { DTypeError, ShapeError } from '../core/errors.js'
import { defineOp, deviceOf, from, type Op } from '../core/op.js'
import { broadcastShapes, numelOf, type Shape, showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { cast } from './copy.js'
import { expand, reshape, unsqueeze } from './views.js'

/** Which of the operands are read with their last two axes exchanged. */
interface MatmulAttrs {
  readonly transposeA: boolean
  readonly transposeB: boolean
}

const plain: MatmulAttrs = { transposeA: false, transposeB: false }

/** Where the elements of x lie, or of its transpose: no tensor is made for it. */
export function operand(x: Tensor, transposed: boolean): ViewLike {
  if (!transposed) return x
  const swapped = (sizes: Shape) => [...sizes.slice(0, -2), sizes[x.ndim - 1], sizes[x.ndim - 2]]
  const { handle, dtypeCode, offset } = x
  return { handle, dtypeCode, shape: swapped(x.shape), strides: swapped(x.strides), offset }
}

// y [.., M, N] = a [.., M, K] b [.., K, N] with equal batch axes; each of a and b may be given
// transposed
const matmulOp: Op<MatmulAttrs> = defineOp<MatmulAttrs>()({
  name: 'matmul',
  inputs: ['a', 'b'],
  run: ([a, b], { transposeA, transposeB }) => {
    const left = operand(a, transposeA)
    const right = operand(b, transposeB)
    const shape = [...left.shape.slice(0, -1), right.shape[b.ndim - 1]]
    const y = Tensor.pending(a.device, a.dtype, shape)
    a.device.calls.begin('matmul').input(left).input(right).number(0).output(y).run()
    return y
  },
  // dy bᵀ, or its transpose b dyᵀ; aᵀ dy, or its transpose dyᵀ a
  gradient: {
    a: from(['b'], ({ dy, b, attrs: { transposeA, transposeB } }) =>
      transposeA ? product(b, dy, transposeB, true) : product(dy, b, false, !transposeB),
    ),
    b: from(['a'], ({ dy, a, attrs: { transposeA, transposeB } }) =>
      transposeB ? product(dy, a, true, transposeA) : product(a, dy, !transposeA, false),
    ),
  },
  autocast: 'half',
  samples: (s) => [
    { inputs: [s.normal([2, 3]), s.normal([3, 4])], attrs: plain },
    { inputs: [s.normal([2, 3, 2]), s.normal([2, 2, 3])], attrs: plain },
    { inputs: [s.normal([3, 2]), s.normal([3, 4])], attrs: { ...plain, transposeA: true } },
    { inputs: [s.normal([2, 3]), s.normal([4, 3])], attrs: { ...plain, transposeB: true } },
    {
      inputs: [s.normal([2, 2, 3]), s.normal([2, 4, 2])],
      attrs: { transposeA: true, transposeB: true },
    },
  ],
})

/** a b, or of their transposes; [.., M, K] and [.., K, N] of one dtype, with equal batch axes. */
export function product(a: Tensor, b: Tensor, transposeA = false, transposeB = false): Tensor {
  return apply(matmulOp, [a, b], { transposeA, transposeB })
}

/** Both operands in their common dtype. */
export function meet(op: string, left: Tensor, right: Tensor): [Tensor, Tensor] {
  checkTensor(op, left)
  checkTensor(op, right)
  const [a, b] = autocastTo(matmulOp.autocast, [left, right])
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
