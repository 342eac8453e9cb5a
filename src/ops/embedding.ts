import { apply } from '../core/apply.js'
import { isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe, ShapeError } from '../core/errors.js'
import { defineOp, from, type Op } from '../core/op.js'
import { type Shape, showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { arange } from './creation.js'
import { binary } from './elementwise.js'
import { checkIndexTensor } from './indexing.js'
import { reshape } from './views.js'
import { where } from './where.js'

interface EmbeddingAttrs {
  /** Of the indices, which come as one axis. */
  readonly shape: Shape
  /** The row that gets no gradient, or -1. */
  readonly padding: number
}

// y = weight[index]; dweight: the rows of dy added up by index, but not at the padding
const embeddingOp: Op<EmbeddingAttrs> = defineOp<EmbeddingAttrs>()({
  name: 'embedding',
  inputs: ['weight', 'index'],
  run: ([weight, index], { shape }) => {
    const columns = weight.shape[1]
    const y = Tensor.pending(weight.device, weight.dtype, [...shape, columns])
    const { calls } = weight.device
    calls.begin('embedding').input(weight).input(index).outputAs(y, [index.numel, columns]).run()
    return y
  },
  gradient: {
    weight: from(['index'], ({ dy, index, attrs: { padding }, inputs }) => {
      const [rows, columns] = (inputs[0] as Tensor).shape
      const source = reshape(dy, [index.numel, columns])
      return apply(embeddingBackwardOp, [source, index], { rows, padding })
    }),
    index: null,
  },
  samples: (s) => [
    {
      inputs: [s.normal([4, 3]), s.integers([6], 0, 4)],
      attrs: { shape: [2, 3], padding: -1 },
    },
  ],
})

interface EmbeddingBackwardAttrs {
  readonly rows: number
  readonly padding: number
}

const embeddingBackwardOp: Op<EmbeddingBackwardAttrs> = defineOp<EmbeddingBackwardAttrs>()({
  name: 'embeddingBackward',
  inputs: ['source', 'index'],
  run: ([source, index], { rows, padding }) => {
    const dweight = Tensor.pending(source.device, source.dtype, [rows, source.shape[1]])
    const { calls } = source.device
    calls.begin('embeddingBackward').input(source).input(index).output(dweight)
    calls.number(padding).run()
    return dweight
  },
  // dy[index], 0 at the padding
  gradient: {
    source: from(['index'], ({ dy, index, attrs: { rows, padding } }) => {
      const isLearned = binary('ne', arange(0, rows, 1, { device: dy.device }), padding)
      const learned = padding < 0 ? dy : where(reshape(isLearned, [rows, 1]), dy, 0)
      return apply(embeddingOp, [learned, index], { shape: index.shape, padding })
    }),
    index: null,
  },
  samples: (s) => [
    {
      inputs: [s.normal([7, 3]), s.integers([7], 0, 4)],
      attrs: { rows: 4, padding: 1 },
    },
    {
      inputs: [s.normal([5, 2]), s.integers([5], 0, 3)],
      attrs: { rows: 3, padding: -1 },
    },
  ],
})

export interface EmbeddingOptions {
  /** A row whose gradient is 0, as that of padding; negative ones count from the end. */
  paddingIdx?: number | null
}

/** Checks a padding index; returns its row, or -1 for none. */
export function checkPadding(op: string, index: number | null | undefined, rows: number): number {
  if (index === null || index === undefined) return -1
  if (!Number.isInteger(index) || index < -rows || index >= rows) {
    throw new ArgumentError(
      `${op}: expected paddingIdx in [${-rows}, ${rows}), got ${describe(index)}`,
    )
  }
  return index < 0 ? index + rows : index
}

/**
 * The rows of a table: y[.., d] = weight[index[..], d] for weight [V, D] and integer indices of any
 * shape. The gradient of the table is dense.
 * @throws IndexError for an index outside [0, V)
 */
export function embedding(index: Tensor, weight: Tensor, options: EmbeddingOptions = {}): Tensor {
  checkOptions('embedding', options)
  checkTensor('embedding', index)
  if (checkTensor('embedding', weight).ndim !== 2) {
    throw new ShapeError(
      `embedding: expected a weight of shape [V, D], got ${showShape(weight.shape)}`,
    )
  }
  if (!isFloating(weight.dtype)) {
    throw new DTypeError(`embedding: expected a floating weight, got ${weight.dtype}`)
  }
  const flat = reshape(checkIndexTensor('embedding', weight, index), [index.numel])
  const padding = checkPadding('embedding', options.paddingIdx, weight.shape[0])
  return apply(embeddingOp, [weight, flat], { shape: index.shape, padding })
}
